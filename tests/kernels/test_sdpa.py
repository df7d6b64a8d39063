"""Attention over every pair handed to torch's fused kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import graphformer as gf
from graphformer._errors import BackendError
from graphformer.graphs import AttentionGraph
from graphformer.kernels import api
from graphformer.patterns import Full, Window
from graphformer.testing import assert_close


def complete(num_nodes: int = 9) -> AttentionGraph:
    return Full().on(num_nodes)


def inputs(graph: AttentionGraph, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(graph.num_queries, 2, 8, dtype=dtype, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients(dtype: torch.dtype) -> None:
    graph = complete()
    nodes = inputs(graph, dtype)
    found = []
    for backend in ("sdpa", "reference"):
        out = gf.attend(*nodes, graph, scale=0.3, backend=backend)
        found.append((out, *torch.autograd.grad(out.sin().sum(), nodes)))
    for ours, expected in zip(*found, strict=True):
        assert_close(ours, expected, dtype)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    graph = complete()
    query, key, value = inputs(graph)
    out = gf.attend(query, key.detach(), value, graph, backend="sdpa")
    grads = torch.autograd.grad(out.sum(), (query, value))
    expected = torch.autograd.grad(gf.attend(query, key.detach(), value, graph).sum(), (query, value))
    assert_close(grads[0], expected[0])
    assert_close(grads[1], expected[1])


def test_second_derivatives() -> None:
    graph = complete(4)
    nodes = inputs(graph)
    found = []
    for backend in ("sdpa", "reference"):
        out = gf.attend(*nodes, graph, backend=backend)
        (grad,) = torch.autograd.grad(out.sin().sum(), nodes[0], create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), nodes))
    for ours, expected in zip(*found, strict=True):
        assert_close(ours, expected)


def test_it_compiles() -> None:
    graph = complete()
    nodes = inputs(graph)
    compiled = torch.compile(lambda q, k, v: gf.attend(q, k, v, graph, backend="sdpa"), fullgraph=True, backend="eager")
    assert_close(compiled(*nodes), gf.attend(*nodes, graph))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"bias": torch.zeros(81)}, "the dot score with softmax, and nothing else"),
        ({"dropout": 0.5}, "the dot score with softmax, and nothing else"),
        ({"normalizer": "relu"}, "the dot score with softmax, and nothing else"),
        ({"score": "additive"}, "the dot score with softmax, and nothing else"),
    ],
)
def test_refusals_name_the_reason(arguments: dict[str, object], reason: str) -> None:
    graph = complete()
    with pytest.raises(BackendError, match=reason):
        gf.attend(*inputs(graph), graph, backend="sdpa", **arguments)


def test_other_graphs_and_widths_are_refused() -> None:
    graph = Window(1).on(9)
    with pytest.raises(BackendError, match="is not every query with every key"):
        gf.attend(*inputs(graph), graph, backend="sdpa")
    with pytest.raises(BackendError, match="torch fuses float32 and half precision"):
        gf.attend(*inputs(complete(), torch.float64), complete(), backend="sdpa")


def test_auto_takes_it_on_a_gpu() -> None:
    """Which is decided by the case alone."""
    graph = complete()
    tensors, options = api._problem("attend", graph, dict(zip(("query", "key", "value"), inputs(graph), strict=True)))
    case = api._case(tensors, graph, options)
    assert api.choose(case, "auto") == "native"
    assert api.choose(case._replace(device=torch.device("cuda")), "auto") == "sdpa"
