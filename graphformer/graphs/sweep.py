"""Sweeps over runs of keys: compiled and row by row on the CPU, else in torch with all rows on one line.

Runs are told as (ptr, start, stop): each row's offsets, and half-open ranges of keys, int64.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from graphformer._library import LIBRARY, address, call
from graphformer.graphs.layout import expand_rows, make_layout, offsets

Runs = tuple[Tensor, Tensor, Tensor]
Rule = Callable[[Tensor, Tensor], Tensor]


def turns(count: Tensor) -> tuple[Tensor, Tensor]:
    """(row, turn), turn in [0, count[row]), for each row in order. Two tensors of shape `[sum of count]`, int64.

    Example:
        >>> turns(torch.tensor([2, 0, 3]))
        (tensor([0, 0, 2, 2, 2]), tensor([0, 1, 0, 1, 2]))
    """
    total = int(count.sum())
    row = torch.repeat_interleave(count, output_size=total)
    before = count.cumsum(0) - count
    return row, torch.arange(total, device=count.device) - before[row]


def join(
    query: Tensor,
    start: Tensor,
    stop: Tensor,
    count: Tensor | None,
    step: Tensor | None,
    num_queries: int,
    num_keys: int,
) -> Runs:
    """The runs of rows whose runs lie in any order, may be empty, touch or overlap; see `KeyRuns.from_runs`."""
    if not _is_native(query):
        if count is not None and step is not None:
            line, turn = turns(count)
            shift = step[line] * turn
            query, start, stop = query[line], start[line] + shift, stop[line] + shift
        return _join_on_a_line(query, start, stop, num_queries, num_keys)
    if not bool((query[1:] >= query[:-1]).all()):
        query, order = query.sort(stable=True)
        start, stop = start[order], stop[order]
        count, step = (None if held is None else held[order] for held in (count, step))
    ptr = offsets(torch.bincount(query, minlength=num_queries))
    return _in_two_calls("gf_join_runs", (ptr, start, stop, count, step), (ctypes.c_int32(1),))


def join_pairs(query: Tensor, key: Tensor, num_queries: int, num_keys: int) -> Runs:
    """The runs of pairs in any order; duplicates count once."""
    if not _is_native(query):
        code = query * (num_keys + 1) + key
        if not bool((code[1:] > code[:-1]).all()):
            code = code.unique()
        return from_ends(ends_of(code), num_queries, num_keys)
    ptr, index, _ = make_layout(query, key, num_queries, num_keys)
    return _in_two_calls("gf_join_runs", (ptr, index, None, None, None), (ctypes.c_int32(index.dtype == torch.int64),))


def combine(first: Runs, second: Runs, rule: Rule, num_keys: int) -> Runs:
    """What a rule makes of two sets of runs; it says for each key whether it stays, from whether the two have it."""
    if not _is_native(first[0]):
        merged = _merge(ends(*first, num_keys), ends(*second, num_keys), rule)
        return from_ends(merged, first[0].numel() - 1, num_keys)
    both = torch.tensor([[False, False, True, True], [False, True, False, True]], device="cpu")
    truth = rule(*both)
    return _in_two_calls("gf_combine_runs", (*first, *second, truth), ())


def count_pairs(runs: Runs) -> Tensor:
    """The rows' pairs as offsets. Shape `[N + 1]`, int64."""
    ptr, start, stop = runs
    if not _is_native(ptr):
        return offsets(stop - start)[ptr]
    out = torch.empty_like(ptr)
    threads = ctypes.c_int32(torch.get_num_threads())
    LIBRARY.gf_count_pairs(ctypes.c_int64(ptr.numel() - 1), *map(address, runs), threads, address(out))  # type: ignore[union-attr]
    return out


def list_keys(runs: Runs, pair_ptr: Tensor, num_pairs: int, dtype: torch.dtype) -> Tensor:
    """The keys of all rows, row after row, ascending in each; `pair_ptr` as counted. Shape `[num_pairs]`."""
    ptr, start, stop = runs
    if not _is_native(ptr):
        length = stop - start
        shift = start - (length.cumsum(0) - length)
        every = torch.arange(num_pairs, device=shift.device)
        return torch.repeat_interleave(shift, length, output_size=num_pairs).add_(every).to(dtype)
    out = ptr.new_empty(num_pairs, dtype=dtype)
    threads, wide = ctypes.c_int32(torch.get_num_threads()), ctypes.c_int32(dtype == torch.int64)
    LIBRARY.gf_list_keys(ctypes.c_int64(ptr.numel() - 1), *map(address, (*runs, pair_ptr)), wide, threads, address(out))  # type: ignore[union-attr]
    return out


def _is_native(tensor: Tensor) -> bool:
    if LIBRARY is None or torch.compiler.is_compiling() or type(tensor) is not Tensor:
        return False
    return tensor.device.type == "cpu"


def _in_two_calls(function: str, given: tuple[Tensor | None, ...], flags: tuple[Any, ...]) -> Runs:
    """Count the rows' runs, and write them where there is room for them."""
    given = tuple(None if tensor is None else tensor.contiguous() for tensor in given)
    num_rows = given[0].numel() - 1  # type: ignore[union-attr]
    threads = ctypes.c_int32(torch.get_num_threads())
    task = f"order {sum(held.numel() for held in given if held is not None):,} ends of runs in {num_rows:,} rows"
    sweep = partial(call, function, "KeyRuns", task)
    head = (ctypes.c_int64(num_rows), *map(address, given), *flags, threads)
    ptr = given[0].new_empty(num_rows + 1)  # type: ignore[union-attr]
    start, stop = (ptr.new_empty(sweep(*head, address(ptr), None, None)) for _ in range(2))
    sweep(*head, *map(address, (ptr, start, stop)))
    return ptr, start, stop


# All rows on one line: row i holds the positions i * (M + 1) + key. The spare position at a row's end keeps runs of
# neighbouring rows from touching, so that a set of pairs is a strictly ascending list of end points.
def ends(ptr: Tensor, start: Tensor, stop: Tensor, num_keys: int) -> Tensor:
    """The end points of all rows' runs on one line. Shape `[2 R]`, int64."""
    base = expand_rows(ptr, start.numel()) * (num_keys + 1)
    return torch.stack((base + start, base + stop), dim=1).flatten()


def ends_of(code: Tensor) -> Tensor:
    """End points of strictly ascending positions on the line."""
    edge = torch.ones(code.numel() + 1, dtype=torch.bool, device=code.device)
    edge[1:-1] = code[1:] != code[:-1] + 1
    return torch.stack((code[edge[:-1]], code[edge[1:]] + 1), dim=1).flatten()


def from_ends(ends: Tensor, num_queries: int, num_keys: int) -> Runs:
    """The runs that have these end points."""
    width = num_keys + 1
    start, stop = ends.view(-1, 2).unbind(1)
    row = start // width
    return offsets(torch.bincount(row, minlength=num_queries)), start - row * width, stop - row * width


def inside(ends: Tensor, point: Tensor) -> Tensor:
    """Whether each point lies in a run: it does where an odd number of end points is at or before it."""
    return torch.searchsorted(ends, point, right=True) % 2 == 1


def _join_on_a_line(query: Tensor, start: Tensor, stop: Tensor, num_queries: int, num_keys: int) -> Runs:
    base = query * (num_keys + 1)
    first, last = base + start, base + stop
    kept = start < stop
    first, last = first[kept], last[kept]
    first, order = first.sort()
    reach = last[order].cummax(0).values
    edge = torch.ones(first.numel() + 1, dtype=torch.bool, device=first.device)
    edge[1:-1] = first[1:] > reach[:-1]
    return from_ends(torch.stack((first[edge[:-1]], reach[edge[1:]]), dim=1).flatten(), num_queries, num_keys)


def _merge(a: Tensor, b: Tensor, rule: Rule) -> Tensor:
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
    state[place_a] = rule(rank_a % 2 == 0, inside(b, a))
    state[place_b] = rule(a_before_b % 2 == 1, count_b % 2 == 0)
    before = torch.zeros_like(state)
    before[1:] = state[:-1]
    return point[state != before]
