"""Runs of keys: sets of (query, key) pairs that cost their runs, not their pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.graphs import sweep
from graphformer.graphs.layout import Layout, expand_rows, index_dtype, offsets, transpose_layout

_PAIRS_OF_A_RUN = 4  # a run takes as much memory as this many pairs in a list, and attention over it no longer
_PIECE = 2**18  # pairs that a rule is asked about at a time


@dataclass(frozen=True, eq=False)
class KeyRuns:
    """For each query row, sorted disjoint half-open runs ``[start, stop)`` of keys; no run touches the next.

    The form is canonical: equal sets of pairs have equal tensors. Boolean algebra is one sweep over the end points of
    all rows at once, so that a million rows cost a million runs, however many pairs those hold.

    Attributes:
        ptr: Offsets of the rows' runs. Shape `[N + 1]`, int64.
        start: First key of each run. Shape `[R]`, int64, in [0, num_keys).
        stop: One past the last key of each run. Shape `[R]`, int64, in (start, num_keys].
        num_keys: Number of keys M.

    Example:
        >>> row = torch.arange(4)
        >>> window = KeyRuns.from_ranges(row - 1, row + 2, num_keys=4)
        >>> first = KeyRuns.from_ranges(0 * row, 0 * row + 1, num_keys=4)
        >>> window.union(first)
        KeyRuns(4 queries, 4 keys, 5 runs, 12 pairs)
        >>> window.intersection(first).expand()
        (tensor([0, 1]), tensor([0, 0]))
    """

    ptr: Tensor
    start: Tensor
    stop: Tensor
    num_keys: int

    @classmethod
    def from_ranges(cls, start: Tensor, stop: Tensor, num_keys: int) -> KeyRuns:
        """One run a row, clipped to the keys there are; a row whose range is empty has none.

        Args:
            start: First key of each row. Shape `[N]`, int64, any value.
            stop: One past the last key of each row. Shape `[N]`, int64, any value.
            num_keys: Number of keys M.
        """
        start, stop = start.clamp(min=0), stop.clamp(max=num_keys)
        kept = start < stop
        return cls(offsets(kept), start[kept], stop[kept], num_keys)

    @classmethod
    def from_runs(
        cls,
        query: Tensor,
        start: Tensor,
        stop: Tensor,
        num_queries: int,
        num_keys: int,
        *,
        count: Tensor | None = None,
        step: Tensor | None = None,
    ) -> KeyRuns:
        """Runs of any rows in any order; they may be empty, touch or overlap.

        Args:
            query: The row of each run. Shape `[R]`, int64, in [0, num_queries).
            start: Its first key. Shape `[R]`, int64, not negative.
            stop: One past its last key. Shape `[R]`, int64, at most num_keys.
            num_queries: Number of queries N.
            num_keys: Number of keys M.
            count: How often each run comes, every time `step` keys further on. Shape `[R]`, int64. Default: once.
            step: Shape `[R]`, int64, not negative; needed with `count`. The last run that it leads to is in range too.

        Example:
            >>> row, start = torch.tensor([1, 0, 1]), torch.tensor([2, 0, 0])
            >>> KeyRuns.from_runs(row, start, start + 2, num_queries=2, num_keys=4)
            KeyRuns(2 queries, 4 keys, 2 runs, 6 pairs)
        """
        return cls(*sweep.join(query, start, stop, count, step, num_queries, num_keys), num_keys)

    @classmethod
    def from_pairs(cls, query: Tensor, key: Tensor, num_queries: int, num_keys: int) -> KeyRuns:
        """The runs of explicit pairs in any order; duplicates count once.

        Args:
            query: Shape `[E]`, int64, in [0, num_queries).
            key: Shape `[E]`, int64, in [0, num_keys).
            num_queries: Number of queries N.
            num_keys: Number of keys M.
        """
        return cls(*sweep.join_pairs(query, key, num_queries, num_keys), num_keys)

    @property
    def num_queries(self) -> int:
        """Number of query rows N."""
        return self.ptr.numel() - 1

    @property
    def num_pairs(self) -> int:
        """Number of pairs that the runs hold."""
        return int(self.stop.sum() - self.start.sum())

    @property
    def degree(self) -> Tensor:
        """Number of keys of each query. Shape `[N]`, int64."""
        return self.pair_ptr.diff()

    @property
    def pair_ptr(self) -> Tensor:
        """Offsets of the rows' pairs. Shape `[N + 1]`, int64; counted anew at each call."""
        return sweep.count_pairs(self._held)

    def are_few(self, num_pairs: int) -> bool:
        """Whether the runs cost no more than a list of their pairs."""
        return self.start.numel() * _PAIRS_OF_A_RUN <= num_pairs

    def layout(self, num_pairs: int | None = None) -> Layout:
        """All pairs listed, their ids the positions.

        Args:
            num_pairs: Their number; counted if not told.

        Example:
            >>> row = torch.arange(3)
            >>> KeyRuns.from_ranges(row, row + 2, num_keys=4).layout()
            Layout(ptr=tensor([0, 2, 4, 6]), index=tensor([0, 1, 1, 2, 2, 3], dtype=torch.int32), edge_id=None)
        """
        pair_ptr, total = self.pair_ptr, self.num_pairs if num_pairs is None else num_pairs
        dtype = index_dtype(max(self.num_queries, self.num_keys))
        return Layout(pair_ptr, sweep.list_keys(self._held, pair_ptr, total, dtype), None)

    def expand(self, dtype: torch.dtype = torch.int64) -> tuple[Tensor, Tensor]:
        """All pairs as (query, key), sorted by query, then key. Two tensors of shape `[num_pairs]`, int64 or int32."""
        pair_ptr, total = self.pair_ptr, self.num_pairs
        query = torch.repeat_interleave(pair_ptr.diff().to(dtype), output_size=total)
        return query, sweep.list_keys(self._held, pair_ptr, total, dtype)

    def rows(self, row: Tensor) -> KeyRuns:
        """The runs of the given rows, one row after the other; none where it is -1. Takes shape `[n]`, int64.

        Example:
            >>> row = torch.arange(3)
            >>> KeyRuns.from_ranges(0 * row, row + 1, num_keys=4).rows(torch.tensor([2, -1])).expand()
            (tensor([0, 0, 0]), tensor([0, 1, 2]))
        """
        count = torch.where(row < 0, 0, self.ptr[row + 1] - self.ptr[row])
        place, turn = sweep.turns(count)
        run = self.ptr[row][place].add_(turn)
        return KeyRuns(offsets(count), self.start[run], self.stop[run], self.num_keys)

    def contains(self, query: Tensor, key: Tensor) -> Tensor:
        """Which of the given pairs lie in a run. Takes and gives shape `[E]`; bool."""
        code = query * (self.num_keys + 1) + key
        return sweep.inside(sweep.ends(*self._held, self.num_keys), code)

    def union(self, other: KeyRuns) -> KeyRuns:
        """The pairs of either."""
        return self._combine(other, lambda mine, theirs: mine | theirs)

    def intersection(self, other: KeyRuns) -> KeyRuns:
        """The pairs of both."""
        return self._combine(other, lambda mine, theirs: mine & theirs)

    def difference(self, other: KeyRuns) -> KeyRuns:
        """The pairs of this one that the other does not have."""
        return self._combine(other, lambda mine, theirs: mine & ~theirs)

    def complement(self, start: Tensor, stop: Tensor) -> KeyRuns:
        """What each row leaves out of its own range of keys ``[start, stop)``; both of shape `[N]`, int64."""
        return KeyRuns.from_ranges(start, stop, self.num_keys).difference(self)

    def filter(self, rule: Callable[[Tensor, Tensor], Tensor]) -> KeyRuns:
        """The pairs for which a rule holds, which is asked about a bounded number of pairs at a time.

        Args:
            rule: Takes (query, key) of sorted pairs, int64, and gives bool, all of shape `[E]`.

        Example:
            >>> row = torch.arange(4)
            >>> KeyRuns.from_ranges(row - 1, row + 2, num_keys=4).filter(lambda query, key: query + key != 3)
            KeyRuns(4 queries, 4 keys, 4 runs, 8 pairs)
        """
        parts = [self.ptr[:0]]
        for query, key in self.pieces():
            parts.append(sweep.ends_of((query * (self.num_keys + 1) + key)[rule(query, key)]))
        ends = torch.cat(parts)
        joint = torch.zeros(ends.numel() + 1, dtype=torch.bool, device=ends.device)
        joint[1:-1] = ends[1:] == ends[:-1]  # a run that was cut between two pieces
        ends = ends[~(joint[1:] | joint[:-1])]
        return KeyRuns(*sweep.from_ends(ends, self.num_queries, self.num_keys), self.num_keys)

    def pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All pairs in order, a bounded number at a time, however long a run is."""
        row, length = expand_rows(self.ptr, self.start.numel()), self.stop - self.start
        after = length.cumsum(0)
        total = int(length.sum())
        for first in range(0, total, _PIECE):
            last = min(first + _PIECE, total)
            bounds = torch.tensor((first, last - 1), device=after.device)
            low, high = torch.searchsorted(after, bounds, right=True).tolist()
            part = slice(low, high + 1)
            before = after[part] - length[part]
            begin, end = (first - before).clamp(min=0), (last - before).minimum(length[part])
            count = end - begin
            run = torch.repeat_interleave(count, output_size=last - first)
            shift = self.start[part] + begin - (count.cumsum(0) - count)
            yield row[part][run], shift[run] + torch.arange(last - first, device=run.device)

    def transpose(self) -> KeyRuns:
        """The same pairs with the two sides exchanged: for each key, the runs of queries; costs the runs of both.

        Example:
            >>> row = torch.arange(3)
            >>> causal = KeyRuns.from_ranges(0 * row, row + 1, num_keys=4)
            >>> causal.transpose().expand()
            (tensor([0, 0, 0, 1, 1, 2]), tensor([0, 1, 2, 1, 2, 2]))
        """
        # A key's runs start at the queries that have it while the query before has not; they stop likewise.
        before = torch.cat((self.ptr[:1], self.ptr[:-1]))
        after = torch.cat((self.ptr[1:], self.ptr[-1:]))
        above = KeyRuns(before, self.start[: before[-1]], self.stop[: before[-1]], self.num_keys)
        below = KeyRuns(after - after[0], self.start[after[0] :], self.stop[after[0] :], self.num_keys)
        ptr, start, _ = transpose_layout(self.difference(above).layout(), self.num_keys)
        last = transpose_layout(self.difference(below).layout(), self.num_keys).index
        return KeyRuns(ptr, start.long(), last.long().add_(1), self.num_queries)

    def __repr__(self) -> str:
        runs = self.start.numel()
        return f"KeyRuns({self.num_queries} queries, {self.num_keys} keys, {runs} runs, {self.num_pairs} pairs)"

    def _combine(self, other: KeyRuns, rule: Callable[[Tensor, Tensor], Tensor]) -> KeyRuns:
        sizes = [(runs.num_queries, runs.num_keys) for runs in (self, other)]
        require(
            sizes[0] == sizes[1],
            "KeyRuns",
            "other",
            f"have {sizes[0][0]} queries and {sizes[0][1]} keys",
            f"{sizes[1][0]} and {sizes[1][1]}",
            "Combine runs over the same node sets.",
        )
        return KeyRuns(*sweep.combine(self._held, other._held, rule, self.num_keys), self.num_keys)

    @property
    def _held(self) -> sweep.Runs:
        return self.ptr, self.start, self.stop
