"""Values and gradients of `attend` against the row-by-row oracle, over the whole cross of its arguments."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from backends import BACKENDS
from torch import Tensor
from torch_geometric.data import Data

import graphformer as gf
from graphformer.kernels import formula, segments
from graphformer.testing import DEGENERATE_GRAPHS, assert_close, assert_matches_oracle, random_graph

N, M, H, D, DV, E, R, F = 5, 7, 3, 4, 2, 29, 4, 6
SCORES = {
    "dot": lambda weight: "dot",
    "gatv2": lambda weight: gf.Additive(weight),
    "bahdanau": lambda weight: gf.Additive(weight, "tanh"),
    "gat": lambda weight: gf.Additive(None, negative_slope=0.1),
    "own": lambda weight: lambda query, key: -(query - key).square().sum(2),
}


def nodes(graph: gf.AttentionGraph, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(graph.num_queries, H, D, dtype=dtype),
        torch.randn(graph.num_keys, H, D, dtype=dtype),
        torch.randn(graph.num_keys, H, DV, dtype=dtype),
    )


def extras(dtype: torch.dtype = torch.float64, num_edges: int = E) -> dict[str, Tensor]:
    return {
        "bias": torch.randn(num_edges, H, dtype=dtype),
        "relation_bias": torch.randn(R, H, dtype=dtype),
        "relation_key": torch.randn(R, H, D, dtype=dtype),
        "relation_value": torch.randn(R, H, DV, dtype=dtype),
        "edge_attr": torch.randn(num_edges, F, dtype=dtype),
        "edge_key": torch.randn(F, H, D, dtype=dtype),
        "edge_value": torch.randn(F, H, DV, dtype=dtype),
    }


@pytest.fixture(params=["one chunk", "chunks of one edge", "chunks of seven edges"])
def _chunking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    elements = {"one chunk": 2**19, "chunks of one edge": 1, "chunks of seven edges": 7 * H * D}[request.param]
    monkeypatch.setattr(formula, "CHUNK_ELEMENTS", elements)


@pytest.fixture(params=["torch-scatter", "plain torch"])
def _sums(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain torch":
        monkeypatch.setattr(segments, "torch_scatter", lambda: None)
    elif segments.torch_scatter() is None:
        pytest.skip("torch-scatter is not installed")


def backend_for(score: str, backend: str) -> str:
    """The backend, or "auto" for a score function of a user's own, which only the formula takes."""
    return "auto" if score == "own" else backend


@pytest.mark.usefixtures("_chunking", "_sums")
@pytest.mark.parametrize("normalizer", ["softmax", "relu", "sigmoid"])
@pytest.mark.parametrize("score", SCORES)
def test_all_terms_at_once_in_the_reference(score: str, normalizer: str) -> None:
    graph = random_graph(N, M, num_edges=E, num_relations=R)
    terms = extras() | {"score": SCORES[score](torch.randn(H, D, dtype=torch.float64)), "normalizer": normalizer}
    assert_matches_oracle(*nodes(graph), graph, backend=backend_for(score, "reference"), **terms)


@pytest.mark.parametrize("num_edges", [E, 700])  # within one block of edges, and over several
@pytest.mark.parametrize("normalizer", ["softmax", "relu", "sigmoid"])
@pytest.mark.parametrize("score", ["dot", "gatv2", "bahdanau", "gat"])
def test_all_terms_at_once_in_native(score: str, normalizer: str, num_edges: int) -> None:
    graph = random_graph(N, M, num_edges=num_edges, num_relations=R)
    terms = extras(num_edges=num_edges) | {"score": SCORES[score](torch.randn(H, D, dtype=torch.float64))}
    assert_matches_oracle(*nodes(graph), graph, backend="native", normalizer=normalizer, **terms)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    "terms",
    [
        (),
        ("bias",),
        ("relation_bias",),
        ("relation_key",),
        ("relation_value",),
        ("edge_attr", "edge_key"),
        ("edge_attr", "edge_value"),
        ("edge_attr", "edge_key", "edge_value"),
    ],
    ids="+".join,
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_term_alone(backend: str, score: str, terms: tuple[str, ...]) -> None:
    graph = random_graph(N, M, num_edges=E, num_relations=R, seed=1)
    weight = torch.randn(H, D, dtype=torch.float64)
    chosen = {name: tensor for name, tensor in extras().items() if name in terms}
    chosen["backend"] = backend_for(score, backend)
    assert_matches_oracle(*nodes(graph), graph, score=SCORES[score](weight), **chosen)


@pytest.mark.parametrize("name", DEGENERATE_GRAPHS)
@pytest.mark.parametrize("score", ["dot", "gatv2", "own"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_degenerate_graphs(backend: str, name: str, score: str) -> None:
    size, pairs = DEGENERATE_GRAPHS[name]
    edge_index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t()
    relation = torch.arange(len(pairs)) % R
    graph = gf.AttentionGraph.from_edge_index(edge_index, size=size, relation=relation, num_relations=R)
    weight = torch.randn(H, D, dtype=torch.float64)
    assert_matches_oracle(
        *nodes(graph),
        graph,
        score=SCORES[score](weight),
        backend=backend_for(score, backend),
        **extras(num_edges=len(pairs)),
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [1, 3, 80])
@pytest.mark.parametrize("heads", [1, 5])
def test_widths(width: int, heads: int, backend: str) -> None:
    graph = random_graph(6, 4, num_edges=13)
    assert_matches_oracle(
        torch.randn(6, heads, width),
        torch.randn(4, heads, width),
        torch.randn(4, heads, width + 2),
        graph,
        backend=backend,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [8, 16, 32, 64, 128])
def test_the_widths_that_native_knows(width: int, dtype: torch.dtype) -> None:
    """Half the head's scale, so that 128 terms of a score stay of order one."""
    graph = random_graph(6, 4, num_edges=150)
    q, k, v = (torch.randn(n, 3, width).div(2).to(dtype) for n in (6, 4, 4))
    assert_matches_oracle(q, k, v, graph, backend="native")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("normalizer", ["softmax", "sigmoid"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_dtypes(backend: str, dtype: torch.dtype, normalizer: str) -> None:
    graph = random_graph(N, M, num_edges=E, num_relations=R)
    assert_matches_oracle(*nodes(graph, dtype), graph, normalizer=normalizer, backend=backend, **extras(dtype))


def test_terms_may_be_wider_than_the_query() -> None:
    graph = random_graph(N, M, num_edges=E, num_relations=R)
    q, k, v = nodes(graph, torch.bfloat16)
    out = gf.attend(q, k, v, graph, **extras(torch.float32))
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_inputs(backend: str) -> None:
    graph = random_graph(N, num_edges=E)
    packed = torch.randn(N, 3, D, H, dtype=torch.float64).transpose(2, 3)
    assert_matches_oracle(*packed.unbind(1), graph, bias=torch.randn(E, dtype=torch.float64), backend=backend)


def test_masked_scaled_dot_product_attention() -> None:
    mask = torch.rand(9, 6) < 0.5
    mask[:, 0] = True  # torch's function has no rule for an empty row
    graph = gf.AttentionGraph.from_dense(mask)
    q, k, v = nodes(graph)
    dense = torch.nn.functional.scaled_dot_product_attention(
        *(t.transpose(0, 1) for t in (q, k, v)), attn_mask=mask
    ).transpose(0, 1)
    assert_close(gf.attend(q, k, v, graph), dense)


def test_by_hand() -> None:
    """Three nodes: query 0 sees keys 0 and 1 with scores log 1 and log 3, query 1 sees key 2, query 2 nothing."""
    graph = gf.AttentionGraph.from_edge_index(torch.tensor([[0, 1, 2], [0, 0, 1]]), num_nodes=3)
    q = torch.ones(3, 1, 1, dtype=torch.float64)
    k = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64).log().view(3, 1, 1).requires_grad_()
    v = torch.tensor([4.0, 8.0, 2.0], dtype=torch.float64).view(3, 1, 1).requires_grad_()
    out = gf.attend(q, k, v, graph, scale=1.0)
    assert_close(out.flatten(), torch.tensor([4 * 0.25 + 8 * 0.75, 2.0, 0.0]).double())
    out.sum().backward()
    assert_close(v.grad.flatten(), torch.tensor([0.25, 0.75, 1.0]).double())
    # d out / d score = alpha * (v - out): 0.25 * (4 - 7), 0.75 * (8 - 7), and 0 for the only key of query 1
    assert_close(k.grad.flatten(), torch.tensor([-0.75, 0.75, 0.0]).double())


def test_one_key_copies_its_value() -> None:
    graph = gf.AttentionGraph.from_edge_index(torch.tensor([[4, 0, 2], [0, 1, 2]]), size=(5, 3))
    q, k, v = nodes(graph)
    assert_close(gf.attend(q, k, v, graph), v[[4, 0, 2]])


@pytest.mark.parametrize("normalizer", ["softmax", "relu", "sigmoid"])
def test_attention_weights_rebuild_the_output(normalizer: str) -> None:
    graph = random_graph(N, M, num_edges=E, num_relations=R)
    q, k, v = nodes(graph)
    terms = {name: t for name, t in extras().items() if "value" not in name}
    alpha = gf.attention_weights(q, k, graph, normalizer=normalizer, **terms)
    key, query = graph.edge_index
    out = torch.zeros(N, H, DV, dtype=torch.float64).index_add(0, query, alpha.unsqueeze(2) * v[key])
    assert_close(gf.attend(q, k, v, graph, normalizer=normalizer, **terms), out)
    if normalizer == "softmax":
        sums = torch.zeros(N, H, dtype=torch.float64).index_add(0, query, alpha)
        assert_close(sums, (graph.degree > 0).double().unsqueeze(1).expand(N, H))


def test_attention_weights_are_differentiable() -> None:
    graph = random_graph(4, 3, num_edges=8)
    q = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    k = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, k: gf.attention_weights(q, k, graph), (q, k))


def test_edge_attr_follows_the_own_edges() -> None:
    """Pairs that are none of the node set's own edges have a feature of zero."""
    base = random_graph(4, num_edges=6)
    own = torch.tensor([2, -1, 0, 1, -1, 2])
    graph = gf.AttentionGraph(base.by_query, 4, own_edge=own, num_own_edges=3)
    q, k, v = nodes(graph)
    attr, maps = torch.randn(3, F, dtype=torch.float64), extras()
    spread = torch.cat((attr, torch.zeros(1, F)))[own]
    terms = {"edge_key": maps["edge_key"], "edge_value": maps["edge_value"]}
    assert_close(
        gf.attend(q, k, v, graph, edge_attr=attr, **terms), gf.attend(q, k, v, base, edge_attr=spread, **terms)
    )


@pytest.mark.parametrize("score", ["dot", "gatv2", "own"])
def test_first_and_second_derivatives(score: str) -> None:
    graph = random_graph(3, 4, num_edges=7, num_relations=2, seed=2)
    options = {"dtype": torch.float64, "requires_grad": True}
    terms = {
        "bias": torch.randn(7, 2, **options),
        "relation_key": torch.randn(2, 2, 3, **options),
        "edge_attr": torch.randn(7, 2, **options),
        "edge_key": torch.randn(2, 2, 3, **options),
        "edge_value": torch.randn(2, 2, 2, **options),
    }
    inputs = [torch.randn(n, 2, d, **options) for n, d in ((3, 3), (4, 3), (4, 2))]
    weight = torch.randn(2, 3, **options)

    def function(q: Tensor, k: Tensor, v: Tensor, weight: Tensor, *rest: Tensor) -> Tensor:
        named = dict(zip(terms, rest, strict=True))
        return gf.attend(q, k, v, graph, score=SCORES[score](weight), dropout=0.25, seed=1, **named)

    arguments = (*inputs, weight, *terms.values())
    assert torch.autograd.gradcheck(function, arguments)
    assert torch.autograd.gradgradcheck(function, arguments)


def test_second_derivatives_leave_no_graph_behind() -> None:
    graph = random_graph(3, num_edges=6)
    x = torch.randn(3, 1, 2, requires_grad=True)
    (first,) = torch.autograd.grad(gf.attend(x, x, x, graph).square().sum(), x, create_graph=True)
    first.square().sum().backward()
    assert x.grad is not None
    assert x.grad.grad_fn is None


def test_second_derivatives_are_the_same_with_a_graph_kept_for_more() -> None:
    """Query, key and value come from one tensor: the paths to it must be counted once each."""
    graph = random_graph(3, num_edges=6)
    x = torch.randn(3, 1, 2, dtype=torch.float64, requires_grad=True)
    second = []
    for keep in (False, True):
        value = gf.attend(x, 2 * x, x.sin(), graph).square().sum()
        (first,) = torch.autograd.grad(value, x, create_graph=True)
        second.append(torch.autograd.grad(first.square().sum(), x, create_graph=keep)[0])
    assert_close(second[1], second[0])
    third = torch.autograd.grad(second[1].sum(), x)[0]
    assert bool((third != 0).any())


def test_chunks_are_really_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest temporary is a chunk, not [E, H, D], in the forward and in the backward pass."""
    sizes: list[int] = []
    pair_keys = formula.pair_keys

    def spy(*arguments: object) -> Tensor:
        keys = pair_keys(*arguments)
        sizes.append(keys.shape[0])
        return keys

    monkeypatch.setattr(formula, "pair_keys", spy)
    monkeypatch.setattr(formula, "CHUNK_ELEMENTS", 11 * H * D)
    graph = random_graph(N, M, num_edges=E)
    q, k, v = nodes(graph)
    gf.attend(q.requires_grad_(), k, v, graph, backend="reference").sum().backward()
    assert sizes == [11, 11, 7] * 3  # scores forward, scores again, their gradients


@pytest.mark.parametrize("score", ["dot", "gatv2", "own"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_peak_memory_does_not_grow_with_the_width(score: str, backend: str) -> None:
    """Between two widths, the extra memory of a pass grows by node tensors only, never by [E, D]."""

    def extra(width: int) -> int:
        graph = random_graph(64, num_edges=40_000)
        x = torch.randn(64, 1, width, requires_grad=True)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            chosen = SCORES[score](torch.ones(1, width))
            gf.attend(x, x, x, graph, score=chosen, backend=backend_for(score, backend)).sum().backward()
        live = peak = 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                live += event.nbytes()
                peak = max(peak, live)
        return peak

    narrow, wide = extra(64), extra(256)
    assert wide - narrow < 40_000 * 192 * 4 / 4, "the peak grows like [E, D]"


@pytest.mark.parametrize("scores", ["huge", "equal", "zero"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_scores_are_finite(backend: str, scores: str) -> None:
    graph = random_graph(N, M, num_edges=E)
    q, k, v = nodes(graph, torch.float32)
    q = {"huge": q * 1e4, "equal": torch.ones_like(q), "zero": torch.zeros_like(q)}[scores]
    out = gf.attend(q, k, v, graph, scale=1.0, backend=backend)
    assert bool(out.isfinite().all())


def test_adding_a_constant_to_the_scores_changes_nothing() -> None:
    graph = random_graph(N, M, num_edges=E)
    q, k, v = nodes(graph)
    assert_close(gf.attend(q, k, v, graph, bias=torch.full((E,), 7.5).double()), gf.attend(q, k, v, graph))


def test_splitting_heads() -> None:
    graph = random_graph(N, M, num_edges=E)
    q, k, v = nodes(graph)
    together = gf.attend(q, k, v, graph)
    for h in range(H):
        assert_close(gf.attend(q[:, [h]], k[:, [h]], v[:, [h]], graph), together[:, [h]])


def test_disjoint_union_equals_separate_runs() -> None:
    graphs = [random_graph(n, m, num_edges=e, seed=e) for n, m, e in ((3, 4, 6), (5, 2, 7), (1, 1, 0))]
    parts = [nodes(graph) for graph in graphs]
    whole = [torch.cat(group) for group in zip(*parts, strict=True)]
    separate = torch.cat([gf.attend(*part, graph) for part, graph in zip(parts, graphs, strict=True)])
    assert_close(gf.attend(*whole, gf.AttentionGraph.union(graphs)), separate)


def test_the_order_of_edges_does_not_matter() -> None:
    graph = random_graph(N, M, num_edges=E)
    order = torch.randperm(E)
    shuffled = gf.AttentionGraph.from_edge_index(graph.edge_index[:, order], size=graph.size)
    q, k, v = nodes(graph)
    bias = torch.randn(E, H, dtype=torch.float64)
    assert_close(gf.attend(q, k, v, shuffled, bias=bias[order]), gf.attend(q, k, v, graph, bias=bias))


def test_autocast_casts_the_nodes() -> None:
    graph = random_graph(N, M, num_edges=E, num_relations=R)
    q, k, v = nodes(graph, torch.float32)
    terms = extras(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = gf.attend(q, k, v, graph, **terms)
    assert out.dtype == torch.bfloat16
    assert_close(out, gf.attend(*(t.bfloat16() for t in (q, k, v)), graph, **terms))


def test_autocast_leaves_float64_and_the_inside_of_a_call_alone() -> None:
    graph = random_graph(N, M, num_edges=E)
    seen = []

    def score(query: Tensor, key: Tensor) -> Tensor:
        seen.append((query.dtype, torch.is_autocast_enabled("cpu")))
        return (query * key).sum(2)

    q, k, v = nodes(graph)
    maps = {name: extras()[name] for name in ("edge_attr", "edge_key", "edge_value")}
    plain = [t.float().requires_grad_() for t in (q, k, v)]
    maps = {name: t.float().requires_grad_() for name, t in maps.items()}
    out = gf.attend(*plain, graph, **maps)
    expected = torch.autograd.grad(out.sin().sum(), [*plain, *maps.values()], retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gf.attend(q, k, v, graph).dtype == torch.float64
        assert gf.attend(q.float(), k.float(), v.float(), graph, score=score).dtype == torch.bfloat16
        actual = torch.autograd.grad(out.sin().sum(), [*plain, *maps.values()])
    assert set(seen) == {(torch.float32, False)}
    for ours, theirs in zip(actual, expected, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_own_edges_through_the_algebra_and_unions(backend: str) -> None:
    """A pattern's own edges, with duplicates, relations and a union, against the oracle, which spreads them by hand."""
    edge_index = torch.tensor([[0, 2, 2, 1], [1, 0, 0, 2]])
    pattern = gf.patterns.Edges().as_relation(1) + gf.patterns.Window(1).as_relation(0)
    parts = [pattern.on(Data(num_nodes=n, edge_index=edge_index)) for n in (3, 4)]
    graph = gf.AttentionGraph.union(parts)
    terms = extras() | {"relation_bias": torch.randn(2, H).double(), "edge_attr": torch.randn(8, F).double()}
    kept = {name: terms[name] for name in ("relation_bias", "edge_attr", "edge_key", "edge_value")}
    assert_matches_oracle(*nodes(graph), graph, backend=backend, **kept)


@pytest.mark.gpu
@pytest.mark.parametrize(("score", "normalizer"), list(itertools.product(["dot", "gatv2"], ["softmax", "relu"])))
def test_on_a_gpu(score: str, normalizer: str) -> None:
    graph = random_graph(N, M, num_edges=E, num_relations=R)
    weight = torch.randn(H, D, dtype=torch.float64).cuda()
    inputs = [t.cuda() for t in nodes(graph)]
    terms = {name: t.cuda() for name, t in extras().items()}
    assert_matches_oracle(*inputs, graph.cuda(), score=SCORES[score](weight), normalizer=normalizer, **terms)


def test_the_oracle_can_refuse() -> None:
    """The comparer fails on a wrong value, and on a wrong gradient behind a right value."""
    graph = random_graph(N, M, num_edges=E)

    def wrong_scale(*arguments: Tensor, **named: object) -> Tensor:
        return gf.attend(*arguments, **{**named, "scale": 1 / math.sqrt(D) + 1e-3})

    def wrong_gradient(q: Tensor, k: Tensor, v: Tensor, *arguments: object, **named: object) -> Tensor:
        return gf.attend(q, k.detach(), v, *arguments, **named)

    with pytest.raises(AssertionError, match="not close"):
        assert_matches_oracle(*nodes(graph), graph, function=wrong_scale)
    with pytest.raises(AssertionError, match="gradient of key"):
        assert_matches_oracle(*nodes(graph), graph, function=wrong_gradient)
