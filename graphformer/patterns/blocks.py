"""Block-diagonal attention: windows that do not overlap, on sequences and grids."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_axes
from graphformer.patterns.terms import RunTerm, Term


@dataclass(frozen=True, repr=False)
class Blocks(Pattern):
    """Each set is cut into blocks; a query attends to the keys of its own block.

    On a :class:`Grid` every axis is cut. The last block of an axis holds what is left. In a bipartite graph, block b of
    the queries sees block b of the keys.

    Args:
        size: Places a block, 1 or more; a number for all axes, or a tuple with one an axis.
        shift: Where the first cut is, in [0, size): before it lies a block of `shift` places. Likewise an axis.

    Raises:
        InputError: A number out of range, or a tuple that does not fit the nodes' axes.

    Example:
        >>> Blocks(2).on(3).edge_index
        tensor([[0, 1, 0, 1, 2],
                [0, 0, 1, 1, 2]])
        >>> from graphformer.patterns import Grid
        >>> Blocks((1, 2), shift=(0, 1)).on(Grid(2, 3)).edge_index
        tensor([[0, 1, 2, 1, 2, 3, 4, 5, 4, 5],
                [0, 1, 1, 2, 2, 3, 4, 4, 5, 5]])
    """

    size: int | tuple[int, ...]
    shift: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        check_axes(self, "size", low=1)
        check_axes(self, "shift", low=0)
        num_axes = max(len(value) if isinstance(value, tuple) else 1 for value in (self.size, self.shift))
        size, shift = (value if isinstance(value, tuple) else (value,) * num_axes for value in (self.size, self.shift))
        fits = len(size) == len(shift) and all(begin < width for width, begin in zip(size, shift, strict=True))
        rule, remedy = f"have an entry below that of size = {self.size} for each axis", "Shift by half a block."
        require(fits, "Blocks", "shift", rule, self.shift, remedy)

    def _axes(self, sets: NodeSets) -> tuple[Tensor, Tensor]:
        size, shift = sets.per_axis(self.size, "size"), sets.per_axis(self.shift, "shift")
        return torch.tensor(size, device=sets.device), torch.tensor(shift, device=sets.device)

    def _lower(self, sets: NodeSets) -> list[Term]:
        size, shift = self._axes(sets)
        cut = (sets.query_place - shift) // size * size + shift
        first = cut.clamp(min=0)
        return [RunTerm(sets.lattice(first, ((cut + size).minimum(sets.set_shape) - first).clamp(min=0)))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        size, shift = self._axes(sets)
        ours, theirs = sets.query_place[query] + size - shift, sets.key_place[key] + size - shift
        return (ours // size == theirs // size).all(1)


def ShiftedWindows(size: int | tuple[int, ...]) -> Pattern:
    """The blocks of every other Swin layer: cut half a block later (Liu et al., "Swin transformer", 2021).

    `Blocks(size, shift=size // 2)`. Swin rolls the image round and masks what has come in from the other side; what is
    left are these blocks, cut at the border. Its other layers are `Blocks(size)`.

    Args:
        size: Places a block, as for :class:`Blocks`.

    Example:
        >>> ShiftedWindows(7)
        Blocks(size=7, shift=3)
        >>> ShiftedWindows((4, 6))
        Blocks(size=(4, 6), shift=(2, 3))
    """
    blocks = Blocks(size)  # refuses what is no size
    half = tuple(width // 2 for width in size) if isinstance(size, tuple) else size // 2
    return Blocks(blocks.size, shift=half)
