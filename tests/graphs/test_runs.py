"""KeyRuns against sets of Python pairs, in C++ and in torch."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphformer import GraphformerError
from graphformer.graphs import layout, sweep
from graphformer.graphs.runs import KeyRuns


@pytest.fixture(params=["library", "torch"], autouse=True, scope="module")
def way(request):
    if request.param == "library" and sweep.LIBRARY is None:
        pytest.skip("the library is not built")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(sweep, "LIBRARY", None)
            patch.setattr(layout, "LIBRARY", None)
        yield request.param


@st.composite
def two_pair_lists(draw):
    num_queries, num_keys = draw(st.integers(0, 5)), draw(st.integers(0, 9))
    pair = st.tuples(st.integers(0, num_queries - 1), st.integers(0, num_keys - 1))
    pairs = st.lists(pair, max_size=30) if num_queries and num_keys else st.just([])
    return num_queries, num_keys, draw(pairs), draw(pairs)


def make(pairs, num_queries, num_keys):
    query, key = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return KeyRuns.from_pairs(query, key, num_queries, num_keys)


def as_set(runs):
    query, key = runs.expand()
    return set(zip(query.tolist(), key.tolist(), strict=True))


def assert_canonical(runs):
    """Offsets fit, runs lie in range, are not empty, ascend and do not touch."""
    assert runs.ptr[0] == 0
    assert runs.ptr[-1] == runs.start.numel() == runs.stop.numel()
    for row in range(runs.num_queries):
        ends = [0]
        for run in range(runs.ptr[row], runs.ptr[row + 1]):
            start, stop = int(runs.start[run]), int(runs.stop[run])
            assert start < stop <= runs.num_keys
            assert start >= ends[-1] + (len(ends) > 1)
            ends.append(stop)


@settings(deadline=None)
@given(two_pair_lists())
def test_the_transpose_exchanges_the_sides(case):
    num_queries, num_keys, pairs, _ = case
    runs = make(pairs, num_queries, num_keys).transpose()
    assert_canonical(runs)
    assert as_set(runs) == {(key, query) for query, key in pairs}
    assert (runs.num_queries, runs.num_keys) == (num_keys, num_queries)


@settings(deadline=None)
@given(two_pair_lists())
def test_boolean_algebra_is_that_of_sets(case):
    num_queries, num_keys, first, second = case
    a, b = make(first, num_queries, num_keys), make(second, num_queries, num_keys)
    for runs, expected in (
        (a, set(first)),
        (a.union(b), set(first) | set(second)),
        (a.intersection(b), set(first) & set(second)),
        (a.difference(b), set(first) - set(second)),
    ):
        assert_canonical(runs)
        assert as_set(runs) == expected
        assert runs.num_pairs == len(expected)
        assert runs.num_queries == num_queries
        assert runs.degree.tolist() == [sum(query == row for query, _ in expected) for row in range(num_queries)]


@settings(deadline=None)
@given(two_pair_lists(), st.data())
def test_complement_stays_within_each_rows_limits(case, data):
    num_queries, num_keys, pairs, _ = case
    limits = st.lists(st.integers(0, num_keys), min_size=num_queries, max_size=num_queries)
    start, stop = data.draw(limits), data.draw(limits)
    runs = make(pairs, num_queries, num_keys).complement(
        torch.tensor(start, dtype=torch.int64), torch.tensor(stop, dtype=torch.int64)
    )
    inside = {(row, key) for row in range(num_queries) for key in range(start[row], stop[row])}
    assert_canonical(runs)
    assert as_set(runs) == inside - set(pairs)


@settings(deadline=None)
@given(two_pair_lists())
def test_contains_and_order(case):
    num_queries, num_keys, pairs, _ = case
    runs = make(pairs, num_queries, num_keys)
    everywhere = torch.cartesian_prod(torch.arange(num_queries), torch.arange(num_keys)).reshape(-1, 2)
    found = everywhere[runs.contains(*everywhere.unbind(1))]
    assert [tuple(pair) for pair in found.tolist()] == sorted(set(pairs))
    assert torch.equal(torch.stack(runs.expand(), 1), found)


def test_ranges_are_clipped_and_empty_rows_have_no_run():
    runs = KeyRuns.from_ranges(torch.tensor([-3, 2, 4, 6, 1]), torch.tensor([2, 9, 4, 3, 2]), num_keys=5)
    assert_canonical(runs)
    assert runs.ptr.tolist() == [0, 1, 2, 2, 2, 3]
    assert (runs.start.tolist(), runs.stop.tolist()) == ([0, 2, 1], [2, 5, 2])


@settings(deadline=None)
@given(two_pair_lists(), st.data())
def test_runs_in_any_order_are_their_pairs(case, data):
    num_queries, num_keys, pairs, _ = case
    length = torch.tensor([data.draw(st.integers(0, num_keys - key)) for _, key in pairs], dtype=torch.int64)
    query, key = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    runs = KeyRuns.from_runs(query, key, key + length, num_queries, num_keys)
    assert_canonical(runs)
    held = {(q, k + t) for (q, k), width in zip(pairs, length.tolist(), strict=True) for t in range(width)}
    assert as_set(runs) == held


@settings(deadline=None)
@given(two_pair_lists(), st.data())
def test_runs_that_come_again_are_their_pairs(case, data):
    num_queries, num_keys, pairs, _ = case
    lines = []
    for query, key in pairs:
        length, count = data.draw(st.integers(-1, num_keys - key)), data.draw(st.integers(0, 4))
        most = (num_keys - key - length) // (count - 1) if count > 1 else 9
        lines.append((query, key, length, count, data.draw(st.integers(0, max(most, 0)))))
        if count > 1 and most < 0:
            lines.pop()
    query, start, length, count, step = torch.tensor(lines, dtype=torch.int64).reshape(-1, 5).unbind(1)
    runs = KeyRuns.from_runs(query, start, start + length, num_queries, num_keys, count=count, step=step)
    assert_canonical(runs)
    held = {(q, k + s * turn + t) for q, k, w, c, s in lines for turn in range(c) for t in range(w)}
    assert as_set(runs) == held


@settings(deadline=None)
@given(two_pair_lists(), st.data())
def test_rows_are_taken_in_any_order_and_none_is_empty(case, data):
    num_queries, num_keys, pairs, _ = case
    rows = data.draw(st.lists(st.integers(-1, num_queries - 1), max_size=8))
    runs = make(pairs, num_queries, num_keys).rows(torch.tensor(rows, dtype=torch.int64))
    assert_canonical(runs)
    assert as_set(runs) == {(place, key) for place, row in enumerate(rows) for query, key in pairs if query == row}
    assert runs.num_queries == len(rows)


@settings(deadline=None)
@given(two_pair_lists())
def test_a_layout_lists_the_pairs(case):
    num_queries, num_keys, pairs, _ = case
    runs = make(pairs, num_queries, num_keys)
    ptr, index, edge_id = runs.layout()
    query, key = runs.expand(torch.int32)
    assert (query.dtype, key.dtype, index.dtype, edge_id) == (torch.int32, torch.int32, torch.int32, None)
    assert torch.equal(index, key)
    assert torch.equal(ptr.diff(), torch.bincount(query, minlength=num_queries))
    assert torch.equal(torch.stack((query, key)).long(), torch.stack(runs.expand()))


@pytest.mark.parametrize("threads", [1, 3])
def test_many_rows_are_swept_as_in_torch(way, threads):
    if way == "torch":
        pytest.skip("what the library is compared with")
    mask = torch.rand(2, 3000, 70) < torch.tensor([0.5, 0.02])[:, None, None]
    before = torch.get_num_threads()
    found = []
    try:
        torch.set_num_threads(threads)
        for library in (sweep.LIBRARY, None):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sweep, "LIBRARY", library)
                a, b = (
                    KeyRuns.from_pairs(*one.nonzero()[torch.randperm(int(one.sum()))].t(), 3000, 70) for one in mask
                )
                made = (a, b, a.union(b), a.intersection(b), a.difference(b), b.transpose())
                found.append([t for runs in made for t in (runs.ptr, runs.start, runs.stop, *runs.layout()[:2])])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_runs_that_touch_become_one_and_equal_sets_have_equal_tensors():
    left = KeyRuns.from_ranges(torch.tensor([0, 3]), torch.tensor([2, 5]), num_keys=7)
    right = KeyRuns.from_ranges(torch.tensor([2, 1]), torch.tensor([4, 3]), num_keys=7)
    both, other_way = left.union(right), right.union(left)
    assert (both.start.tolist(), both.stop.tolist()) == ([0, 1], [4, 5])
    assert torch.equal(both.start, other_way.start)
    assert torch.equal(both.ptr, other_way.ptr)


def test_a_row_that_ends_at_the_last_key_does_not_touch_the_next_row():
    runs = KeyRuns.from_pairs(torch.tensor([0, 1]), torch.tensor([3, 0]), 2, 4)
    assert runs.ptr.tolist() == [0, 1, 2]


def test_codes_beyond_32_bits():
    row, top = torch.tensor([0, 99_999]), 2**40
    runs = KeyRuns.from_pairs(row, torch.tensor([top - 1, top - 1]), 100_000, top)
    assert runs.union(runs).expand()[1].tolist() == [top - 1, top - 1]


@settings(deadline=None)
@given(two_pair_lists(), st.integers(1, 7))
def test_a_filter_keeps_what_the_rule_allows_and_asks_a_few_at_a_time(case, piece):
    num_queries, num_keys, first, second = case
    allowed, asked = make(second, num_queries, num_keys), []

    def rule(query, key):
        asked.extend(zip(query.tolist(), key.tolist(), strict=True))
        assert 0 < query.numel() <= piece
        return allowed.contains(query, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphformer.graphs.runs._PIECE", piece)
        found = make(first, num_queries, num_keys).filter(rule)
    assert asked == sorted(set(first))
    assert as_set(found) == set(first) & set(second)
    assert_canonical(found)


def test_different_shapes_are_refused():
    one, other = make([(0, 0)], 2, 3), make([(0, 0)], 2, 5)
    with pytest.raises(GraphformerError, match="other must have 2 queries and 3 keys; got 2 and 5. Combine runs over"):
        one.union(other)


def test_a_million_rows_unite_in_seconds():
    row = torch.arange(1_000_000)
    window, first = (KeyRuns.from_ranges(row - 64, row + 65, 10**6), KeyRuns.from_ranges(0 * row, 0 * row + 1, 10**6))
    began = time.perf_counter()
    united = window.union(first)
    assert time.perf_counter() - began < 5.0  # about 0.5 s on one quiet core
    assert united.start.numel() == 2 * 10**6 - 66
    assert united.num_pairs == window.num_pairs + 10**6 - 65
