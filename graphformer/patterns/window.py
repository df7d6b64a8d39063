"""Truncated attention: a window around each query, on sequences and grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from graphformer._checks import require, require_choice
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_axes
from graphformer.patterns.terms import RunTerm, Term

PerAxis = int | tuple[int, ...]
_FAR = 2**31


class _Axes(NamedTuple):
    """A window's numbers with one entry an axis. Shape `[d]`, int64, each; `step` is the dilation."""

    left: Tensor
    right: Tensor
    step: Tensor
    stride: Tensor
    offset: Tensor


@dataclass(frozen=True, repr=False)
class Window(Pattern):
    """Each query attends to the keys around its place: a sequence's truncated attention, a grid's convolution window.

    On every axis the query at place i sees the keys at places `stride * i + offset + dilation * t`, t from -left to
    right. A number stands for all axes, a tuple has one an axis; nodes without a :class:`Grid` are a sequence, one
    axis. A convolution with `kernel`, `padding`, `stride` and `dilation` looks through
    `Window(left=0, right=kernel - 1, offset=-padding, stride=stride, dilation=dilation)`, laid over the pair of grids
    (its input, its output).

    Args:
        radius: Keys seen on each side, besides the middle one. Give this, or `left` and `right`.
        left: Keys seen before the middle one. Default: 0 where only `right` is given.
        right: Keys seen after the middle one. Default: 0 where only `left` is given.
        dilation: Distance between neighbouring keys of the window, 1 or more.
        stride: Distance between the middles of neighbouring queries, 1 or more. Other than 1 it needs two sets,
            (key nodes, query nodes).
        offset: Place of the first query's middle key; any sign.
        border: What becomes of keys outside of the grid. `"clip"`: they are not there, as zero padding contributes
            nothing. `"wrap"`: the grid is circular; a key that a window meets twice is seen once. `"shift"`: the
            window moves inside by whole steps, so that every query has as many keys (Hassani et al., "Neighborhood
            attention transformer", 2023); an axis that is too short is seen as far as the steps go.

    Raises:
        InputError: Neither or both of `radius` and `left`/`right`, a number out of range, a tuple that does not fit
            the nodes' axes, or a stride within one set.

    Example:
        >>> Window(1, dilation=2).on(4).edge_index
        tensor([[0, 2, 1, 3, 0, 2, 1, 3],
                [0, 0, 1, 1, 2, 2, 3, 3]])
        >>> from graphformer.patterns import Grid
        >>> Window((0, 1)).on(Grid(2, 3)).edge_index
        tensor([[0, 1, 0, 1, 2, 1, 2, 3, 4, 3, 4, 5, 4, 5],
                [0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5]])
        >>> Window(1, stride=2).on((Grid(8, 8), Grid(4, 4))).degree
        tensor([4, 6, 6, 6, 6, 9, 9, 9, 6, 9, 9, 9, 6, 9, 9, 9])
    """

    radius: PerAxis | None = None
    left: PerAxis | None = None
    right: PerAxis | None = None
    dilation: PerAxis = 1
    stride: PerAxis = 1
    offset: PerAxis = 0
    border: str = "clip"

    def __post_init__(self) -> None:
        sides = self.left is not None or self.right is not None
        require(
            (self.radius is not None) != sides,
            "Window",
            "radius",
            "be given, or else left and right, not both",
            f"radius={self.radius}, left={self.left}, right={self.right}",
            "For example Window(3), or Window(left=3, right=0).",
        )
        for name in ("radius", "left", "right"):
            if getattr(self, name) is not None:
                check_axes(self, name, low=0)
        for name in ("dilation", "stride"):
            check_axes(self, name, low=1)
        check_axes(self, "offset", low=1 - _FAR)
        require_choice(self.border, ("clip", "wrap", "shift"), "Window", "border")

    def _axes(self, sets: NodeSets) -> _Axes:
        moves = any(step != 1 for step in sets.per_axis(self.stride, "stride"))
        remedy = "Pass the keys first, for example (Grid(8, 8), Grid(4, 4)) with stride=2."
        fits = sets.is_bipartite or not moves
        require(fits, sets.where, "nodes", "be a tuple (key nodes, query nodes) with a stride", "one node set", remedy)
        if self.radius is not None:
            left = right = sets.per_axis(self.radius, "radius")
        else:
            left, right = (sets.per_axis(getattr(self, side) or 0, side) for side in ("left", "right"))
        others = (sets.per_axis(getattr(self, name), name) for name in ("dilation", "stride", "offset"))
        return _Axes(*(torch.tensor(entries, device=sets.device) for entries in (left, right, *others)))

    def _lower(self, sets: NodeSets) -> list[Term]:
        axes, size = self._axes(sets), sets.set_shape
        middle, width = sets.query_place * axes.stride + axes.offset, axes.left + axes.right + 1
        if self.border == "wrap":
            turn = (-axes.left).expand_as(middle)
            count = width.minimum(size)  # after so many steps the keys come again
        else:
            # The turns t of the keys that lie inside: middle + step * t in [0, size).
            lowest, end = -(middle // axes.step), (size - 1 - middle) // axes.step + 1
            turn = lowest.maximum((-axes.left).minimum(end - width) if self.border == "shift" else -axes.left)
            reach = turn + width if self.border == "shift" else axes.right + 1
            count = (end.minimum(reach) - turn).clamp(min=0)
        step = sets.per_axis(self.dilation, "dilation")
        return [RunTerm(sets.lattice(middle + axes.step * turn, count, step, wrap=self.border == "wrap"))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        axes = self._axes(sets)
        middle, place = sets.query_place[query] * axes.stride + axes.offset, sets.key_place[key]
        size, ahead = sets.set_shape[query], place - middle
        if self.border == "wrap":
            return _meets(ahead, axes, size).all(1)
        same_phase = ahead % axes.step == 0
        if self.border == "clip":
            near = (ahead >= -axes.left * axes.step) & (ahead <= axes.right * axes.step)
            return (near & same_phase).all(1)
        # Among the places of the middle's own phase, numbered from 0, the window is a range that begins in [0, most].
        most = (size - 1 - middle % axes.step) // axes.step - axes.left - axes.right
        first = (middle // axes.step - axes.left).minimum(most).clamp(min=0)
        rank = place // axes.step
        return (same_phase & (rank >= first) & (rank <= first + axes.left + axes.right)).all(1)


def _meets(ahead: Tensor, axes: _Axes, size: Tensor) -> Tensor:
    """On which axes a circular window meets a key that far ahead of its middle: step by step."""
    out = torch.zeros_like(ahead, dtype=torch.bool)
    longest = int(size.max()) if size.numel() else 0
    for turn in range(min(int((axes.left + axes.right).max()) + 1, longest)):
        met = (axes.step * (turn - axes.left) - ahead) % size.clamp(min=1) == 0
        out |= met & (turn <= axes.left + axes.right)
    return out
