"""Truncated attention: a window around each query."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from graphformer._checks import require
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_whole
from graphformer.patterns.terms import RunTerm, Term


@dataclass(frozen=True, repr=False)
class Window(Pattern):
    """Query i attends to the keys from i - left to i + right of its own set, clipped at the set's borders.

    With dilation d the reach is d times as far, and only every d-th key of it is seen:
    j - i is a multiple of d in [-left * d, right * d].

    Args:
        radius: Keys seen on each side, besides the query's own place. Give this, or `left` and `right`.
        left: Keys seen before the query. Default: 0 where only `right` is given.
        right: Keys seen after the query. Default: 0 where only `left` is given.
        dilation: Distance between neighbouring keys of the window.

    Raises:
        InputError: Neither or both of `radius` and `left`/`right`, or a number out of range.

    Example:
        >>> Window(1, dilation=2).on(4).edge_index
        tensor([[0, 2, 1, 3, 0, 2, 1, 3],
                [0, 0, 1, 1, 2, 2, 3, 3]])
    """

    radius: int | None = None
    left: int | None = None
    right: int | None = None
    dilation: int = 1

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
                check_whole(self, name, low=0)
        check_whole(self, "dilation", low=1)

    @property
    def _sides(self) -> tuple[int, int]:
        if self.radius is not None:
            return self.radius, self.radius
        return self.left or 0, self.right or 0

    def _lower(self, sets: NodeSets) -> list[Term]:
        left, right = self._sides
        place, step = sets.local_query, self.dilation
        if step == 1:
            return [RunTerm(sets.runs(place - left, place + right + 1))]
        # The keys that a query can reach are phase, phase + step, phase + 2 step, ...: in that list it sees one run.
        phase = place % step
        reachable = (sets.set_keys - 1 - phase) // step + 1
        first, last = place // step - left, place // step + right + 1
        query, turn = KeyRuns.from_ranges(first, last.minimum(reachable), sets.num_keys).expand()
        key = sets.key_start[query] + phase[query] + step * turn
        return [RunTerm(KeyRuns.from_pairs(query, key, sets.num_queries, sets.num_keys))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        left, right = self._sides
        offset = sets.local_key[key] - sets.local_query[query]
        near = (offset >= -left * self.dilation) & (offset <= right * self.dilation)
        return near & (offset % self.dilation == 0)
