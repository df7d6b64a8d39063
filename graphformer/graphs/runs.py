"""Runs of keys: sets of (query, key) pairs that cost their runs, not their pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.graphs.layout import expand_rows

# A run costs as much memory as this many pairs in a list; and kernels walk a row's runs, this many on average at most.
_PAIRS_OF_A_RUN, _RUNS_OF_A_ROW = 4, 32
_PIECE = 2**20  # pairs that a rule is asked about at a time


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
        ptr = torch.zeros(start.numel() + 1, dtype=torch.int64, device=start.device)
        torch.cumsum(kept, 0, out=ptr[1:])
        return cls(ptr, start[kept], stop[kept], num_keys)

    @classmethod
    def from_runs(cls, query: Tensor, start: Tensor, stop: Tensor, num_queries: int, num_keys: int) -> KeyRuns:
        """Runs of any rows in any order; they may be empty, touch or overlap.

        Args:
            query: The row of each run. Shape `[R]`, int64, in [0, num_queries).
            start: Its first key. Shape `[R]`, int64, not negative.
            stop: One past its last key. Shape `[R]`, int64, at most num_keys.
            num_queries: Number of queries N.
            num_keys: Number of keys M.

        Example:
            >>> row, start = torch.tensor([1, 0, 1]), torch.tensor([2, 0, 0])
            >>> KeyRuns.from_runs(row, start, start + 2, num_queries=2, num_keys=4)
            KeyRuns(2 queries, 4 keys, 2 runs, 6 pairs)
        """
        base = query * (num_keys + 1)
        first, last = base + start, base + stop
        kept = start < stop
        if bool(kept.all()) and bool((first[1:] > last[:-1]).all()):  # as they should be: nothing to order or join
            ptr = torch.zeros(num_queries + 1, dtype=torch.int64, device=query.device)
            torch.cumsum(torch.bincount(query, minlength=num_queries), 0, out=ptr[1:])
            return cls(ptr, start, stop, num_keys)
        first, last = first[kept], last[kept]
        if not bool((first[1:] >= first[:-1]).all()):
            first, order = first.sort()
            last = last[order]
        reach = last.cummax(0).values
        edge = torch.ones(first.numel() + 1, dtype=torch.bool, device=first.device)
        edge[1:-1] = first[1:] > reach[:-1]
        ends = torch.stack((first[edge[:-1]], reach[edge[1:]]), dim=1).flatten()
        return cls._from_ends(ends, num_queries, num_keys)

    @classmethod
    def from_pairs(cls, query: Tensor, key: Tensor, num_queries: int, num_keys: int) -> KeyRuns:
        """The runs of explicit pairs in any order; duplicates count once.

        Args:
            query: Shape `[E]`, int64, in [0, num_queries).
            key: Shape `[E]`, int64, in [0, num_keys).
            num_queries: Number of queries N.
            num_keys: Number of keys M.
        """
        code = query * (num_keys + 1) + key
        if not bool((code[1:] > code[:-1]).all()):
            code = code.unique()
        return cls._from_ends(_ends_of(code), num_queries, num_keys)

    @property
    def num_queries(self) -> int:
        """Number of query rows N."""
        return self.ptr.numel() - 1

    @property
    def num_pairs(self) -> int:
        """Number of pairs that the runs hold."""
        return int((self.stop - self.start).sum())

    @property
    def degree(self) -> Tensor:
        """Number of keys of each query. Shape `[N]`, int64."""
        before = torch.zeros(self.start.numel() + 1, dtype=torch.int64, device=self.ptr.device)
        torch.cumsum(self.stop - self.start, 0, out=before[1:])
        return before[self.ptr].diff()

    def are_few(self, num_pairs: int) -> bool:
        """Whether the runs cost less than a list of their pairs, and a row has few enough to be searched for a pair."""
        runs = self.start.numel()
        return runs * _PAIRS_OF_A_RUN <= num_pairs and runs <= _RUNS_OF_A_ROW * self.num_queries

    def keys(self, num_pairs: int | None = None) -> Tensor:
        """The keys of all rows, row after row, ascending in each. Shape `[num_pairs]`, int64; counted if not told."""
        length = self.stop - self.start
        total = int(length.sum()) if num_pairs is None else num_pairs
        shift = self.start - (length.cumsum(0) - length)
        return torch.repeat_interleave(shift, length, output_size=total).add_(torch.arange(total, device=shift.device))

    def expand(self) -> tuple[Tensor, Tensor]:
        """All pairs as (query, key), sorted by query, then key. Two tensors of shape `[num_pairs]`, int64."""
        key = self.keys()
        rows = torch.arange(self.num_queries, device=key.device)
        return torch.repeat_interleave(rows, self.degree, output_size=key.numel()), key

    def contains(self, query: Tensor, key: Tensor) -> Tensor:
        """Which of the given pairs lie in a run. Takes and gives shape `[E]`; bool."""
        code = query * (self.num_keys + 1) + key
        return _inside(self._ends(), code)

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
        for query, key in self._pieces():
            parts.append(_ends_of((query * (self.num_keys + 1) + key)[rule(query, key)]))
        ends = torch.cat(parts)
        joint = torch.zeros(ends.numel() + 1, dtype=torch.bool, device=ends.device)
        joint[1:-1] = ends[1:] == ends[:-1]  # a run that was cut between two pieces
        return KeyRuns._from_ends(ends[~(joint[1:] | joint[:-1])], self.num_queries, self.num_keys)

    def _pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
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
        start, key = self.difference(above).expand()
        last, last_key = self.difference(below).expand()
        ptr = torch.zeros(self.num_keys + 1, dtype=torch.int64, device=key.device)
        torch.cumsum(torch.bincount(key, minlength=self.num_keys), 0, out=ptr[1:])
        order, last_order = torch.argsort(key, stable=True), torch.argsort(last_key, stable=True)
        return KeyRuns(ptr, start[order], last[last_order] + 1, self.num_queries)

    def __repr__(self) -> str:
        runs = self.start.numel()
        return f"KeyRuns({self.num_queries} queries, {self.num_keys} keys, {runs} runs, {self.num_pairs} pairs)"

    # All rows on one line: row i holds the positions i * (M + 1) + key. The spare position at a row's end keeps runs of
    # neighbouring rows from touching, so that a set of pairs is a strictly ascending list of end points.
    def _ends(self) -> Tensor:
        base = expand_rows(self.ptr, self.start.numel()) * (self.num_keys + 1)
        return torch.stack((base + self.start, base + self.stop), dim=1).flatten()

    @classmethod
    def _from_ends(cls, ends: Tensor, num_queries: int, num_keys: int) -> KeyRuns:
        width = num_keys + 1
        start, stop = ends.view(-1, 2).unbind(1)
        row = start // width
        ptr = torch.zeros(num_queries + 1, dtype=torch.int64, device=ends.device)
        torch.cumsum(torch.bincount(row, minlength=num_queries), 0, out=ptr[1:])
        return cls(ptr, start - row * width, stop - row * width, num_keys)

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
        return KeyRuns._from_ends(_sweep(self._ends(), other._ends(), rule), self.num_queries, self.num_keys)


def _ends_of(code: Tensor) -> Tensor:
    """End points of strictly ascending positions."""
    edge = torch.ones(code.numel() + 1, dtype=torch.bool, device=code.device)
    edge[1:-1] = code[1:] != code[:-1] + 1
    return torch.stack((code[edge[:-1]], code[edge[1:]] + 1), dim=1).flatten()


def _inside(ends: Tensor, point: Tensor) -> Tensor:
    """Whether each point lies in a run: it does where an odd number of end points is at or before it."""
    return torch.searchsorted(ends, point, right=True) % 2 == 1


def _sweep(a: Tensor, b: Tensor, rule: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """End points of the set that ``rule`` makes of two sets, each a strictly ascending list of end points."""
    # Merging two sorted lists by rank is several times faster than sorting them together.
    count_b, rank_a = torch.arange(b.numel(), device=b.device), torch.arange(a.numel(), device=a.device)
    place_a = rank_a + torch.searchsorted(b, a)
    a_before_b = torch.searchsorted(a, b, right=True)
    place_b = count_b + a_before_b
    point = a.new_empty(a.numel() + b.numel())
    point[place_a], point[place_b] = a, b
    # The state from each point on. Points at the same place get the same state, so only one of them can be a change.
    state = torch.empty_like(point, dtype=torch.bool)
    state[place_a] = rule(rank_a % 2 == 0, _inside(b, a))
    state[place_b] = rule(a_before_b % 2 == 1, count_b % 2 == 0)
    before = torch.zeros_like(state)
    before[1:] = state[:-1]
    return point[state != before]
