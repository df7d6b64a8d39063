"""torch.func, batches of gradients and forward mode through `attend`: the numbers of torch's own operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd import functional as classic
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import graphformer as gf
from graphformer._errors import UnsupportedError
from graphformer.kernels import Additive, native, ops
from graphformer.patterns import Window
from graphformer.testing.tolerance import assert_close as near

N, H, D, E = 5, 2, 3, 11
PAIRS = torch.stack((torch.arange(E) * 3 % N, torch.arange(E) // 2 % (N - 1)))  # the last query has no keys
GRAPH = gf.AttentionGraph.from_edge_index(PAIRS, num_nodes=N, relation=torch.arange(E) % 3, num_relations=3).prepare()
X = torch.randn(N, H, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def terms(score: str) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=draw)

    bias = random(E, H)
    bias[3] = -torch.inf
    weighed = {"score": Additive(random(H, D), "tanh")} if score == "additive" else {}
    edges = {"edge_attr": random(E, 4), "edge_key": random(4, H, D), "edge_value": random(4, H, D)}
    return {"bias": bias, "relation_bias": random(3, H), "relation_value": random(3, H, D), **edges, **weighed}


def of(score: str, backend: str = "auto") -> Callable[[Tensor], Tensor]:
    more = terms(score)
    return lambda x: gf.attend(x, x.cos(), x * 2, GRAPH, **more, backend=backend)


SCORES = pytest.mark.parametrize("score", ["dot", "additive"])


def plain_jacobian(function: Callable[[Tensor], Tensor], x: Tensor = X) -> Tensor:
    return classic.jacobian(function, x)


@SCORES
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_first_derivatives_are_those_of_autograd(score: str, backend: str) -> None:
    function = of(score, backend)
    expected = plain_jacobian(function)
    near(jacrev(function)(X), expected)
    near(grad(lambda x: function(x).sum())(X), expected.sum((0, 1, 2)))
    out, pull = vjp(function, X)
    near(out, function(X))
    near(pull(torch.ones_like(X))[0], expected.sum((0, 1, 2)))  # after the transform


@SCORES
def test_forward_mode(score: str) -> None:
    function, expected = of(score), plain_jacobian(of(score))
    near(jacfwd(function)(X), expected)
    out, moved = jvp(function, (X,), (torch.ones_like(X),))
    near(out, function(X))
    near(moved, expected.sum((3, 4, 5)))
    with forward_ad.dual_level():
        dual = function(forward_ad.make_dual(X, torch.ones_like(X)))
        near(forward_ad.unpack_dual(dual).tangent, expected.sum((3, 4, 5)))
    near(classic.jacobian(function, X, strategy="forward-mode", vectorize=True), expected)


@SCORES
def test_second_derivatives(score: str) -> None:
    function = of(score)

    def energy(x: Tensor) -> Tensor:
        return function(x).sin().sum()

    expected = classic.hessian(energy, X)
    near(hessian(energy)(X), expected)
    near(jacrev(jacrev(energy))(X), expected)
    near(jacrev(jacfwd(energy))(X), expected)
    near(classic.hessian(energy, X, vectorize=True), expected)


@SCORES
def test_batches_of_gradients(score: str) -> None:
    x, function = X.clone().requires_grad_(), of(score)
    out = function(x)
    basis = torch.eye(out.numel(), dtype=torch.float64).view(-1, *out.shape)
    expected = torch.stack([torch.autograd.grad(out, x, each, retain_graph=True)[0] for each in basis])
    near(torch.autograd.grad(out, x, basis, is_grads_batched=True, retain_graph=True)[0], expected)
    near(vmap(lambda each: torch.autograd.grad(out, x, each, retain_graph=True)[0])(basis), expected)
    near(classic.jacobian(function, X, vectorize=True).flatten(0, 2), expected)


@SCORES
def test_batches_of_second_derivatives(score: str) -> None:
    """As for the Hessian of a molecule's energy."""
    x = X.clone().requires_grad_()
    force = torch.autograd.grad(of(score)(x).sin().sum(), x, create_graph=True)[0]
    basis = torch.eye(X.numel(), dtype=torch.float64).view(-1, *X.shape)
    expected = torch.stack([torch.autograd.grad(force, x, each, retain_graph=True)[0] for each in basis])
    near(torch.autograd.grad(force, x, basis, is_grads_batched=True, retain_graph=True)[0], expected)
    near(vmap(lambda each: torch.autograd.grad(force, x, each, retain_graph=True)[0])(basis), expected)


def test_what_gets_no_second_derivative_is_zero_in_a_batch() -> None:
    """The first derivative in the value does not depend on the value."""
    value = X.clone().requires_grad_()
    query = X.clone().requires_grad_()
    out = gf.attend(query, X, value, GRAPH)
    by_value = torch.autograd.grad(out.sum(), value, create_graph=True)[0]
    pulled = torch.autograd.grad(by_value, (query, value), torch.ones(2, *X.shape).double(), is_grads_batched=True)
    assert not pulled[1].any()
    assert pulled[0].any()


@pytest.mark.parametrize("shared", [(0, None, None), (None, 1, 0), (0, 0, 0)], ids=str)
def test_samples_go_one_by_one(shared: tuple[int | None, ...]) -> None:
    sides = [X if dim is None else torch.stack((X, X + 1, X.cos()), dim) for dim in shared]
    members = [
        [side if d is None else side.select(d, i) for side, d in zip(sides, shared, strict=True)] for i in range(3)
    ]

    more = terms("dot")

    def loss(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return gf.attend(query, key, value, GRAPH, **more).square().sum()

    near(vmap(loss, shared)(*sides), torch.stack([loss(*member) for member in members]))
    found = vmap(grad(loss, argnums=(0, 1, 2)), shared)(*sides)
    for got, expected in zip(
        found, zip(*(grad(loss, (0, 1, 2))(*member) for member in members), strict=True), strict=True
    ):
        near(got, torch.stack(expected))
    summed = grad(lambda *sides: vmap(loss, shared)(*sides).sum())(*sides)
    alone = [grad(loss)(*member) for member in members]
    near(summed, sum(alone[1:], alone[0]) if shared[0] is None else torch.stack(alone))


def test_dropout_is_one_mask_for_output_and_gradient() -> None:
    def mean(value: Tensor) -> Tensor:
        return gf.attend(X, X, value, GRAPH, dropout=0.5).sum()

    torch.manual_seed(0)
    slopes, sums = vmap(torch.func.grad_and_value(mean), randomness="different")(torch.stack((X, X, X)))
    near((slopes * X).sum((1, 2, 3)), sums)  # linear in the value
    assert len(set(sums.tolist())) == 3
    torch.manual_seed(0)
    slope, total = torch.func.grad_and_value(mean)(X)
    near((slope * X).sum(), total)


def test_one_derivative_is_the_backends_own() -> None:
    with (
        patch.object(native, "backward", wraps=native.backward) as backward,
        patch.object(ops.formula, "attend") as formula,
    ):
        grad(lambda x: gf.attend(x, x, x, GRAPH).sum())(X)
        vmap(grad(lambda x: gf.attend(x, x, x, GRAPH).sum()))(torch.stack((X, X)))
    assert backward.call_count == 3
    formula.assert_not_called()


def test_autograd_sees_through_a_transform() -> None:
    x = X.clone().requires_grad_()
    slope = grad(lambda v: gf.attend(x, x, v, GRAPH).sin().sum())(X)
    plain = X.clone().requires_grad_()
    first = torch.autograd.grad(gf.attend(x, x, plain, GRAPH).sin().sum(), plain, create_graph=True)[0]
    near(torch.autograd.grad(slope.sum(), x)[0], torch.autograd.grad(first.sum(), x)[0])


def test_half_precision_and_autocast() -> None:
    x = X.bfloat16()
    near(jacrev(of_plain)(x), plain_jacobian(of_plain, x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, moved = jvp(of_plain, (X.float(),), (X.float(),))
    assert out.dtype == moved.dtype == torch.bfloat16


def of_plain(x: Tensor) -> Tensor:
    return gf.attend(x, x, x, GRAPH)


def test_large_graphs_in_several_chunks() -> None:
    """Chunks are recomputed elsewhere, which torch.func does not allow."""
    with patch.object(ops.formula, "CHUNK_ELEMENTS", 6):
        near(jacfwd(of("dot"))(X), plain_jacobian(of("dot")))


def test_scores_and_weights_of_a_users_own() -> None:
    def own(x: Tensor) -> Tensor:
        return gf.attend(x, x, x, GRAPH, score=lambda q, k: (q * k).sum(2).tanh())

    expected = plain_jacobian(own)
    near(jacrev(own)(X), expected)
    near(jacfwd(own)(X), expected)
    near(
        jacrev(lambda x: gf.attention_weights(x, x, GRAPH))(X),
        plain_jacobian(lambda x: gf.attention_weights(x, x, GRAPH)),
    )


# ------------------------------------------------------------------ graphs


def test_graphs_made_inside_a_transform_outlast_it() -> None:
    made = []

    def loss(x: Tensor, pairs: Tensor) -> Tensor:
        graphs = [gf.AttentionGraph.from_edge_index(pairs, num_nodes=N), Window(1).on(N)]
        graphs.append(gf.AttentionGraph.union(graphs[:1]))
        made.extend(graphs)
        return sum(gf.attend(x, x, x, graph).sum() for graph in graphs) + graphs[0].edge_index.sum()

    slope = grad(loss)(X, PAIRS)
    plain = [gf.AttentionGraph.from_edge_index(PAIRS, num_nodes=N), Window(1).on(N)]
    assert made[:2] == plain
    assert made[2] == plain[0]
    near(slope, grad(lambda x: sum(gf.attend(x, x, x, graph).sum() for graph in (*plain, plain[0])))(X))


def test_lazy_parts_of_a_graph_outlast_a_transform() -> None:
    graph = Window(1).on(N)

    def loss(x: Tensor) -> Tensor:
        return gf.attend(x, x, x, graph).sum() + gf.attention_weights(x, x, graph).sum() + graph.edge_index.sum()

    hessian(loss)(X)
    fresh = Window(1).on(N)
    assert graph == fresh
    near(of_graph(graph), of_graph(fresh))


def of_graph(graph: gf.AttentionGraph) -> Tensor:
    return plain_jacobian(lambda x: gf.attend(x, x, x, graph))


def test_a_graph_for_each_sample_is_refused() -> None:
    def function(x: Tensor, pairs: Tensor) -> Tensor:
        return gf.attend(x, x, x, gf.AttentionGraph.from_edge_index(pairs, num_nodes=N))

    with pytest.raises(UnsupportedError, match=r"edge_index must be one for all samples of torch.func.vmap.*in_dims"):
        vmap(function)(torch.stack((X, X)), torch.stack((PAIRS, PAIRS)))


def test_a_graph_of_tensors_from_inside_is_refused() -> None:
    def function(x: Tensor) -> Tensor:
        graph = gf.AttentionGraph.from_csr(torch.arange(N + 1), torch.arange(N), N)
        return gf.attend(x, x, x, graph).sum()

    with pytest.raises(UnsupportedError, match="made of tensors from outside torch.func's transforms.*before the"):
        grad(function)(X)


# ------------------------------------------------------------------ what there is not


def test_a_late_derivative_is_refused() -> None:
    _, pull = vjp(of("dot"), X)
    with pytest.raises(UnsupportedError, match="a gradient must be taken where all transforms are.*Nest them"):
        grad(lambda g: pull(g)[0].sum())(X)
    with pytest.raises(UnsupportedError, match="a gradient must be taken where all transforms are"):
        jvp(lambda g: pull(g)[0], (X,), (X,))


def test_a_batch_of_third_derivatives_is_refused() -> None:
    x = X.clone().requires_grad_()
    force = torch.autograd.grad(of("dot")(x).sin().sum(), x, create_graph=True)[0]
    rows = torch.autograd.grad(force, x, torch.stack((X, X)), is_grads_batched=True, create_graph=True)[0]
    with pytest.raises(UnsupportedError, match="a batch of derivatives must be of first or second order"):
        rows.sum().backward()
