"""Tiles over runs in Triton's interpreter: values, statistics and gradients of the reference."""

from __future__ import annotations

import pytest
import torch
from tile_cases import SMALL, check, graph_of, make_tensors, options_of, rows_of_runs, run
from torch import Tensor

from graphformer.kernels import reference
from graphformer.kernels.problem import Rows, Tensors
from graphformer.kernels.triton import tiles
from graphformer.kernels.triton.tile_config import TileConfig, override
from graphformer.kernels.triton.tile_sums import sum_by_relation
from graphformer.patterns import Causal, Full, Global, Pattern, Window
from graphformer.testing import assert_close

pytestmark = pytest.mark.interpreted

NAN, INF = float("nan"), float("inf")
WIDE = TileConfig(32, 16, 4, 1)


@pytest.mark.parametrize(
    ("pattern", "nodes", "dtype", "heads", "widths", "cut"),
    [
        (Window(19), 36, torch.float32, 3, (20, 12), WIDE),
        (Window(19), 45, torch.float16, 1, (16, 16), SMALL),
        (Window(9), 50, torch.bfloat16, 1, (16, 40), WIDE),
        (Causal(), 37, torch.float32, 1, (5, 16), WIDE),
        (Causal(), 37, torch.float16, 2, (20, 12), SMALL),
        (Causal() & Window(10), 41, torch.bfloat16, 1, (16, 16), SMALL),
        (Full(), 33, torch.float16, 1, (33, 16), SMALL),
        (Full(), [5, 1, 30, 0, 17], torch.float32, 1, (20, 12), SMALL),
        (Full(), [5, 1, 30, 0, 17], torch.bfloat16, 1, (16, 16), WIDE),
        (Full(), ([7, 20, 3], [12, 0, 9]), torch.float32, 1, (16, 16), SMALL),
        (Window(8) | Global(2), 41, torch.float32, 1, (16, 16), SMALL),
        (Window(8) | Global(2), 41, torch.float16, 1, (16, 16), WIDE),
        (Full() - Window(3), 34, torch.float32, 1, (16, 16), SMALL),
        (Full(), 1, torch.float32, 2, (3, 3), SMALL),
    ],
    ids=str,
)
def test_patterns(
    pattern: Pattern, nodes: object, dtype: torch.dtype, heads: int, widths: tuple[int, int], cut: TileConfig
) -> None:
    graph = pattern.on(nodes)
    check(graph, make_tensors(graph, dtype, heads, *widths), cut=cut)


@pytest.mark.parametrize("height", [16, 64])
def test_the_order_of_tiles_does_not_matter(height: int) -> None:
    graph = Full().on([18, 20])
    check(graph, make_tensors(graph, heads=2), height=height)


def test_rows_without_keys_and_keys_without_rows() -> None:
    starts, stops = [0, 3, 3, 20, 0] * 5, [0, 9, 3, 24, 2] * 5
    graph = graph_of(starts, stops, num_keys=40)
    out, statistic, grads = check(graph, make_tensors(graph))
    empty = graph.degree == 0
    assert bool((out[empty] == 0).all())
    assert bool((statistic[empty] == -INF).all())
    assert bool((grads.query[empty] == 0).all())
    assert grads.key is not None
    assert bool((grads.key[24:] == 0).all())


@pytest.mark.parametrize(("queries", "keys"), [(0, 4), (3, 0), (0, 0), (3, 4)])
def test_graphs_without_pairs(queries: int, keys: int) -> None:
    graph = graph_of([0] * queries, [0] * queries, keys)
    out, statistic, grads = check(graph, make_tensors(graph))
    assert bool((out == 0).all())
    assert bool((statistic == -INF).all())
    assert all(bool((grad == 0).all()) for grad in grads[:3])


@pytest.mark.parametrize("normalizer", ["relu", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_normalizers(normalizer: str, dtype: torch.dtype) -> None:
    graph = Causal().on(35)
    check(graph, make_tensors(graph, dtype), normalizer)


def _with_bias(graph: object, tensors: Tensors, dtype: torch.dtype = torch.float32) -> Tensors:
    heads = tensors.query.shape[1]
    bias = torch.randn(graph.num_edges, heads, dtype=dtype)  # type: ignore[attr-defined]
    bias[torch.rand_like(bias.float()) < 0.2] = -INF
    bias[: 3 * graph.num_edges // graph.num_queries] = -INF  # type: ignore[attr-defined]  # some rows lose all pairs
    return tensors._replace(bias=bias)


@pytest.mark.parametrize("normalizer", ["softmax", "relu", "sigmoid"])
def test_a_bias_is_added_and_removes(normalizer: str) -> None:
    graph = Window(12).on(36)
    check(graph, _with_bias(graph, make_tensors(graph)), normalizer)


def test_a_bias_in_half_precision_of_several_heads() -> None:
    graph = Causal().on(36)
    tensors = make_tensors(graph, torch.bfloat16, 2)
    found = check(graph, _with_bias(graph, tensors, torch.bfloat16))
    assert found[2].bias is not None


def test_a_bias_that_all_heads_share_is_not_copied() -> None:
    graph = Full().on(20)
    tensors = make_tensors(graph, heads=3)
    bias = torch.randn(graph.num_edges).unsqueeze(1).expand(-1, 3)
    check(graph, tensors._replace(bias=bias))
    assert tiles._by_head(bias).data.data_ptr() == bias.data_ptr()


@pytest.mark.parametrize("has_bias", [False, True])
def test_relation_tables(has_bias: bool) -> None:
    graph = Causal().on(33)
    tensors = make_tensors(graph, heads=3)._replace(relation_bias=torch.randn(5, 3))
    tensors.relation_bias[4, 1] = -INF
    relation = torch.randint(5, (graph.num_edges,), dtype=torch.int32)
    check(graph, _with_bias(graph, tensors) if has_bias else tensors, relation=relation, cut=WIDE)


@pytest.mark.parametrize(("relations", "pairs"), [(5, 1000), (1, 300), (70, 50), (3, 0)])
def test_sums_by_relation(relations: int, pairs: int) -> None:
    relation, numbers = torch.randint(relations, (pairs,)), torch.randn(3, pairs)
    expected = torch.zeros(relations, 3).index_add_(0, relation, numbers.t())
    assert_close(sum_by_relation(numbers, relation, relations), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_dropout_is_that_of_the_reference_in_both_passes(dtype: torch.dtype) -> None:
    graph = Window(8).on(20)
    check(graph, make_tensors(graph, dtype, heads=6 if dtype == torch.float32 else 1), dropout=0.3, cut=WIDE)


def test_dropout_by_ids_beyond_32_bits() -> None:
    graph = Full().on(20)
    tensors = make_tensors(graph)
    options = options_of(tensors, dropout=0.5)
    rows, far = rows_of_runs(graph), 2**33 + 3
    listed = Rows(*graph.by_query, None)
    listed = listed._replace(edge_id=torch.arange(graph.num_edges) + far)
    expected, _ = reference.forward(tensors, listed, options)
    found, _ = tiles.forward(tensors, rows._replace(ptr=rows.ptr + far), options)
    assert_close(found, expected)


# ------------------------------------------------------------------ what is no number

_numpy_may_warn = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")


@_numpy_may_warn
@pytest.mark.parametrize(
    ("which", "poison", "dtype"),
    [
        ("query", NAN, torch.float16),
        ("key", NAN, torch.float32),
        ("key", INF, torch.float16),
        ("value", NAN, torch.float16),
        ("value", INF, torch.float32),
    ],
)
def test_what_is_no_number_reaches_its_rows_and_no_others(which: str, poison: float, dtype: torch.dtype) -> None:
    """Node 20 is in tiles with nodes that it has nothing to do with."""
    graph = Full().on([17, 5, 20])
    tensors = make_tensors(graph, dtype)
    getattr(tensors, which)[20, 0, 3] = poison
    out, _, grads = check(graph, tensors)
    assert not bool(out[17:22].isfinite().all())
    for tensor in (out, *grads[:3]):
        assert bool(torch.cat((tensor[:17], tensor[22:])).isfinite().all())


@_numpy_may_warn
@pytest.mark.parametrize("poison", [NAN, INF])
def test_a_removed_pair_lets_nothing_through(poison: float) -> None:
    graph = Window(9).on(36)
    tensors = make_tensors(graph)
    bias = torch.randn(graph.num_edges, 1)
    bias[graph.edge_index[0] == 20] = -INF
    tensors = tensors._replace(bias=bias)
    tensors.key[20], tensors.value[20] = poison, poison
    out, _, grads = check(graph, tensors)
    assert all(bool(tensor.isfinite().all()) for tensor in (out, *grads[:3], grads.bias))
    assert bool((grads.key[20] == 0).all())


def test_a_poisoned_gradient_reaches_what_its_row_attends_to() -> None:
    graph = Window(4).on(40)
    tensors = make_tensors(graph)
    options, needs = options_of(tensors), Tensors(True, True, True)  # type: ignore[arg-type]
    grad_out = torch.randn(40, 1, 16)
    grad_out[20] = NAN
    with override(forward=SMALL, by_query=SMALL, by_key=SMALL):
        _, _, grads = run(tiles, tensors, rows_of_runs(graph), options, grad_out, needs)
    met = (torch.arange(40) - 20).abs() <= 4
    assert torch.equal(grads.query.isnan().flatten(1).any(1), torch.arange(40) == 20)
    assert torch.equal(grads.key.isnan().flatten(1).any(1), met)
    assert torch.equal(grads.value.isnan().flatten(1).any(1), met)


# ------------------------------------------------------------------ precision, layouts, needs


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_delta_does_not_suffer_from_the_rounding_of_the_result(dtype: torch.dtype) -> None:
    graph = Full().on(24)
    tensors = make_tensors(graph, dtype)
    tensors = tensors._replace(value=(tensors.value.float() / 8 + 15).to(dtype))
    check(graph, tensors)


def test_packed_views_are_read_where_they_are() -> None:
    graph = Causal().on(30)
    packed = torch.randn(30, 2, 3 * 16)
    views = Tensors(*packed.split(16, dim=2))
    check(graph, views)
    for view in views[:3]:
        assert tiles._nodes(view).data.data_ptr() == view.data_ptr()
    crossed = Tensors(*(torch.randn(16, 2, 30).permute(2, 1, 0) for _ in range(3)))
    check(graph, crossed)


@pytest.mark.parametrize(
    ("wanted", "dtype"),
    [
        (("query",), torch.float16),
        (("key",), torch.float32),
        (("key",), torch.float16),
        (("value",), torch.float16),
        (("bias",), torch.float32),
        (("key", "value"), torch.float16),
        (("query", "bias"), torch.float32),
    ],
)
def test_only_what_is_asked_for_is_made(wanted: tuple[str, ...], dtype: torch.dtype) -> None:
    graph = Causal().on(20)
    tensors = make_tensors(graph, dtype)._replace(bias=torch.randn(graph.num_edges, 1))
    options, rows = options_of(tensors), rows_of_runs(graph)
    grad_out = torch.randn(20, 1, 16, dtype=dtype)
    out, statistic = tiles.forward(tensors, rows, options)
    every = tiles.backward(grad_out, out, statistic, tensors, rows, options, Tensors(*(t is not None for t in tensors)))
    needs = Tensors(*(name in wanted for name in Tensors._fields))  # type: ignore[arg-type]
    found = tiles.backward(grad_out, out, statistic, tensors, rows, options, needs)
    for name, mine, other in zip(Tensors._fields, found, every, strict=True):
        assert (mine is not None) == (name in wanted)
        assert mine is None or torch.equal(mine, other)


def test_the_same_bits_again() -> None:
    graph = Window(12).on(36)
    tensors = _with_bias(graph, make_tensors(graph, torch.float16))
    first, again = (check(graph, tensors, dropout=0.2)[0] for _ in range(2))
    assert torch.equal(first, again)


def _poison(tensor: Tensor) -> Tensor:
    return tensor.fill_(NAN) if tensor.is_floating_point() else tensor


def test_every_element_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of([0] * 20, list(range(20)), 30)
    relation = torch.randint(3, (graph.num_edges,))
    tensors = make_tensors(graph)._replace(relation_bias=torch.randn(3, 1), bias=torch.randn(graph.num_edges, 1))
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
        make = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, make=make, **k: _poison(make(*a, **k)))
    found = check(graph, tensors, relation=relation)
    assert all(bool(tensor.isfinite().all()) for tensor in (*found[2], found[0]) if tensor is not None)
