"""Attention along one axis at a time, and at regular distances."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.grid import lattice_runs
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_whole
from graphformer.patterns.terms import RunTerm, Term


@dataclass(frozen=True, repr=False)
class Axial(Pattern):
    """Each query attends to the keys on its own line along an axis (Ho et al., "Axial attention", 2019).

    These are the keys, its own place among them, that differ from it on this axis only. Along the last axis they are
    one run; along another they cost as many runs as pairs.

    Args:
        axis: An axis of the nodes' :class:`Grid`, 0 or more. None: the lines along every axis, each key once.

    Raises:
        InputError: An axis that the nodes do not have.

    Example:
        >>> from graphformer.patterns import Grid
        >>> Axial(0).on(Grid(2, 3)).edge_index
        tensor([[0, 3, 1, 4, 2, 5, 0, 3, 1, 4, 2, 5],
                [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]])
        >>> Axial().on(Grid(4, 5)).degree.unique()
        tensor([8])
    """

    axis: int | None = None

    def __post_init__(self) -> None:
        if self.axis is not None:
            check_whole(self, "axis", low=0)

    def _axes(self, sets: NodeSets) -> range:
        num_axes = sets.query_shape.shape[1]
        if self.axis is None:
            return range(num_axes)
        rule, remedy = f"be one of the nodes' {num_axes} axes", "Axes count from 0; lay the nodes on a Grid."
        require(self.axis < num_axes, sets.where, "axis", rule, self.axis, remedy)
        return range(self.axis, self.axis + 1)

    def _lower(self, sets: NodeSets) -> list[Term]:
        place, size = sets.query_place, sets.set_shape
        step = torch.cat((torch.ones_like(size[:, :1]), size.flip(1).cumprod(1)[:, :-1]), 1).flip(1)
        outside = place >= size  # between grids of different sizes, a line may lie beside the keys
        exists = outside.sum(1, keepdim=True) == outside.long()
        own = sets.key_start + (place * step).sum(1)
        # In the order of its keys, a query's lines are: all before it on the first axis, on the second, ..., the run
        # through it on the last axis, ..., all after it on the second axis, on the first.
        last, before, after = size.shape[1] - 1, [], []
        for axis in self._axes(sets):
            here, width, stride = place[:, axis], size[:, axis] * exists[:, axis], step[:, axis]
            begin, one = own - here * stride, torch.ones_like(width)
            if axis == last:
                before.append((begin, one, one, width))
            else:
                count = here.minimum(width)
                before.append((begin, count, stride, one))
                after.append((begin + count * stride, width - count, stride, one))
        lines = before + after[::-1]
        begin, count, stride, length = (torch.stack(held, 1).flatten() for held in zip(*lines, strict=True))
        query = torch.arange(sets.num_queries, device=sets.device).repeat_interleave(len(lines))
        stop, sizes = begin + length, (sets.num_queries, sets.num_keys)
        return [RunTerm(KeyRuns.from_runs(query, begin, stop, *sizes, count=count, step=stride))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        differs = sets.query_place[query] != sets.key_place[key]
        on_line = [differs.sum(1) == differs[:, axis] for axis in self._axes(sets)]
        return torch.stack(on_line).any(0)


@dataclass(frozen=True, repr=False)
class Strided(Pattern):
    """Query i attends to the keys j of its own set with i - j a multiple of the stride.

    `Window(left=stride) & Causal() | Strided(stride) & Causal()` is the strided attention of Child et al.,
    "Generating long sequences with sparse transformers", 2019. Places count through a :class:`Grid` in row-major order,
    so that a stride of its row's length is a column. Memory is that of the pairs.

    Args:
        stride: Distance between neighbouring keys, 1 or more.

    Example:
        >>> Strided(2).on(5).edge_index
        tensor([[0, 2, 4, 1, 3, 0, 2, 4, 1, 3, 0, 2, 4],
                [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4]])
    """

    stride: int

    def __post_init__(self) -> None:
        check_whole(self, "stride", low=1)

    def _lower(self, sets: NodeSets) -> list[Term]:
        phase = sets.local_query % self.stride
        count = (sets.set_keys - 1 - phase) // self.stride + 1
        line = (sets.set_keys[:, None], phase[:, None], count[:, None])
        return [RunTerm(lattice_runs(sets.key_start, *line, (self.stride,), False, sets.num_keys))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        return (sets.local_query[query] - sets.local_key[key]) % self.stride == 0
