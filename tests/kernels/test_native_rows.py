"""What only the row loops of `native` can get wrong: blocks, parts of long rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import graphformer as gf
from graphformer.testing import assert_close, assert_matches_oracle

INF = float("inf")


def hub_graph(size: int = 120_000) -> gf.AttentionGraph:
    """One query and one key with `size` pairs each, and 30,000 pairs of everyone."""
    queries = torch.cat([torch.full((size,), 7), torch.randint(0, 90, (size + 30_000,))])
    keys = torch.cat([torch.randint(0, 80, (size,)), torch.full((size,), 3), torch.randint(0, 80, (30_000,))])
    order = torch.randperm(len(keys))
    edge_index = torch.stack([keys, queries])[:, order]
    return gf.AttentionGraph.from_edge_index(
        edge_index, size=(80, 90), relation=torch.arange(len(keys)) % 3, num_relations=3
    )


def hub_inputs(graph: gf.AttentionGraph, dtype: torch.dtype) -> dict[str, Tensor]:
    bias = torch.randn(graph.num_edges, 2, dtype=dtype)
    bias[::5] = -INF
    shapes = {"relation_bias": (3, 2), "relation_key": (3, 2, 8), "edge_value": (2, 2, 8), "edge_key": (2, 2, 8)}
    return {
        "query": torch.randn(90, 2, 8, dtype=dtype),
        "key": torch.randn(80, 2, 8, dtype=dtype),
        "value": torch.randn(80, 2, 8, dtype=dtype),
        "bias": bias,
        "edge_attr": torch.randn(graph.num_edges, 2, dtype=dtype),
        **{name: torch.randn(*shape, dtype=dtype) for name, shape in shapes.items()},
    }


def values_and_gradients(inputs: dict[str, Tensor], graph: gf.AttentionGraph, **options: object) -> dict[str, Tensor]:
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    out = gf.attend(graph=graph, **leaves, **options)
    grads = torch.autograd.grad(out.sin().sum(), list(leaves.values()))
    return {"out": out.detach(), **dict(zip(leaves, grads, strict=True))}


# ------------------------------------------------------------------ long rows


@pytest.mark.parametrize(
    ("plain", "normalizer", "size"),
    [(True, "softmax", 120_000), (False, "softmax", 40_000), (False, "relu", 20_000), (False, "sigmoid", 20_000)],
)
def test_a_hub(plain: bool, normalizer: str, size: int) -> None:
    graph = hub_graph(size)
    inputs = hub_inputs(graph, torch.float64)
    if plain:
        inputs = {name: inputs[name] for name in ("query", "key", "value")}
    expected = values_and_gradients(inputs, graph, normalizer=normalizer, backend="reference")
    actual = values_and_gradients(inputs, graph, normalizer=normalizer, backend="native")
    for name, tensor in expected.items():
        torch.testing.assert_close(
            actual[name], tensor, rtol=1e-8, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_hub_has_the_same_bits_for_any_number_of_threads(dtype: torch.dtype) -> None:
    """In bfloat16 the deltas of long rows are sums over their pairs."""
    graph = hub_graph(40_000)
    inputs = hub_inputs(graph, dtype)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(values_and_gradients(inputs, graph, dropout=0.1, seed=5, backend="native"))
    finally:
        torch.set_num_threads(before)
    for name, tensor in results[0].items():
        assert all(torch.equal(tensor, other[name]) for other in results[1:]), name


def test_a_hub_in_half_precision() -> None:
    graph = hub_graph(40_000)
    inputs = {name: t for name, t in hub_inputs(graph, torch.float64).items() if name in ("query", "key", "value")}
    half = {name: tensor.bfloat16() for name, tensor in inputs.items()}
    exact = {name: tensor.double() for name, tensor in half.items()}
    expected = values_and_gradients(exact, graph, backend="reference")
    actual = values_and_gradients(half, graph, backend="native")
    for name, tensor in expected.items():
        scale = tensor.abs().max()
        torch.testing.assert_close(actual[name].double() / scale, tensor / scale, rtol=2e-2, atol=1e-2)


# ------------------------------------------------------------------ blocks


@pytest.mark.parametrize(
    ("heads", "dtype"), [(1, torch.float32), (3, torch.float64), (8, torch.float16), (17, torch.float32)]
)
def test_rows_that_end_at_the_edge_of_a_block(heads: int, dtype: torch.dtype) -> None:
    lengths = torch.tensor([0, 1, 2, 31, 63, 64, 65, 127, 128, 129, 130])
    queries = torch.arange(len(lengths)).repeat_interleave(lengths)
    keys = torch.randint(0, 13, (len(queries),))
    for edge_index, size in ((torch.stack([keys, queries]), (13, 11)), (torch.stack([queries, keys]), (11, 13))):
        graph = gf.AttentionGraph.from_edge_index(edge_index, size=size)
        tensors = [torch.randn(n, heads, 16).div(2).to(dtype) for n in (size[1], size[0], size[0])]
        assert_matches_oracle(*tensors, graph, backend="native")


@pytest.mark.parametrize("normalizer", ["softmax", "relu", "sigmoid"])
def test_whole_blocks_of_removed_pairs(normalizer: str) -> None:
    """NaN behind all pairs of the first and the last block of a row, of the one head that they are removed from."""
    graph = gf.AttentionGraph.from_edge_index(torch.stack([torch.arange(200), torch.zeros(200).long()]), size=(200, 1))
    bias = torch.zeros(200, 2)
    bias[:70, 0] = bias[140:, 0] = -INF
    q, k, v = torch.randn(1, 2, 8), torch.randn(200, 2, 8), torch.randn(200, 2, 8)
    clean = {"query": q, "key": k, "value": v, "bias": bias}
    dirty = {name: tensor.clone() for name, tensor in clean.items()}
    for name in ("key", "value"):
        dirty[name][:70, 0] = dirty[name][140:, 0] = float("nan")
    results = [values_and_gradients(x, graph, normalizer=normalizer, backend="native") for x in (clean, dirty)]
    for name, tensor in results[0].items():
        assert_close(results[1][name], tensor)
    assert bool(results[1]["key"][:70, 0].eq(0).all())


# ------------------------------------------------------------------ widths


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("heads", [1, 3, 8, 20])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 8, 16, 21, 40])
def test_heads_and_edge_features_of_any_width(width: int, heads: int, dtype: torch.dtype) -> None:
    """Each width has vectors of its own: of columns, of several heads at once, or of what is left of both."""
    graph = gf.AttentionGraph.from_edge_index(torch.randint(0, 12, (2, 90)), num_nodes=13)
    # Sums of order one, for which the table of tolerances speaks.
    inputs = {name: torch.randn(13, heads, width, dtype=dtype) / width**0.5 for name in ("query", "key", "value")}
    inputs["edge_attr"] = torch.randn(90, width, dtype=dtype) / width**0.5
    inputs["edge_key"], inputs["edge_value"] = torch.randn(2, width, heads, width, dtype=dtype) / width
    for removed in (False, True):
        if removed:
            inputs["bias"] = torch.zeros(90, heads, dtype=dtype).masked_fill(torch.rand(90, heads) < 0.2, -INF)
        for score in ("dot", "additive"):
            for dropout in (0.0, 0.3):
                options = {"score": score, "dropout": dropout, "seed": 5}
                expected = values_and_gradients(inputs, graph, backend="reference", **options)
                actual = values_and_gradients(inputs, graph, backend="native", **options)
                for name in expected:
                    assert_close(actual[name], expected[name], dtype)
