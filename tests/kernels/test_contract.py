"""The clauses of the kernel contract that are not plain values: removal, containment, dropout, compile, operators."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch
import torch._dynamo.testing
from backends import BACKENDS
from torch import Tensor

import graphformer as gf
from graphformer import _library
from graphformer.kernels import api, native
from graphformer.kernels.dropout import keep_scale
from graphformer.kernels.ops import attend_backward_op, attend_op
from graphformer.kernels.problem import Case, Options, Tensors
from graphformer.testing import assert_close, assert_matches_oracle, random_graph

N, M, H, D, E = 5, 7, 2, 3, 24
NAN, INF = float("nan"), float("inf")


def nodes(graph: gf.AttentionGraph, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    sizes = (graph.num_queries, graph.num_keys, graph.num_keys)
    return [torch.randn(n, H, D, dtype=dtype).requires_grad_() for n in sizes]


SCORES_AND_BACKENDS = [
    pytest.param(score, backend, id=f"{name}-{backend}")
    for name, score in (("dot", "dot"), ("gatv2", gf.Additive(torch.ones(H, D).double())))
    for backend in BACKENDS
] + [pytest.param(lambda q, k: (q * k).sum(2), "auto", id="own")]


# ------------------------------------------------------------------ removal


@pytest.mark.parametrize("normalizer", ["softmax", "relu", "sigmoid"])
@pytest.mark.parametrize(("score", "backend"), SCORES_AND_BACKENDS)
def test_a_bias_of_minus_infinity_removes_the_pair(normalizer: str, score: object, backend: str) -> None:
    graph = random_graph(N, M, num_edges=E)
    bias = torch.randn(E, H, dtype=torch.float64)
    bias[::3, 0] = -INF
    bias[:, 1] = -INF  # every row of head 1 is empty
    q, k, v = nodes(graph)
    terms = {"normalizer": normalizer, "score": score, "bias": bias, "backend": backend}
    assert_matches_oracle(q.detach(), k.detach(), v.detach(), graph, **terms)
    out = gf.attend(q, k, v, graph, **terms)
    assert bool((out[:, 1] == 0).all())


@pytest.mark.parametrize("poison", [NAN, INF])
@pytest.mark.parametrize(("score", "backend"), SCORES_AND_BACKENDS)
def test_a_removed_pair_lets_nothing_through(score: object, backend: str, poison: float) -> None:
    """Key 0 and its value hold NaN or infinity; every pair with it is removed; nothing must notice, in either pass."""
    graph = random_graph(N, M, num_edges=E)
    bias = torch.randn(E, H, dtype=torch.float64)
    removed = graph.edge_index[0] == 0
    bias[removed] = -INF
    maps = [torch.randn(2, H, D, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    clean = [*nodes(graph), torch.randn(E, 2, dtype=torch.float64), *maps]
    dirty = [t.detach().clone() for t in clean]
    dirty[1][0] = dirty[2][0] = dirty[3][removed] = poison
    clean[3].requires_grad_()
    dirty = [t.requires_grad_() for t in dirty]

    def run(tensors: list[Tensor]) -> Tensor:
        q, k, v, attr, edge_key, edge_value = tensors
        terms = {"edge_attr": attr, "edge_key": edge_key, "edge_value": edge_value, "backend": backend}
        return gf.attend(q, k, v, graph, score=score, bias=bias, **terms)

    expected, actual = run(clean), run(dirty)
    assert_close(actual, expected)
    for ours, theirs in zip(
        torch.autograd.grad(actual.square().sum(), dirty),
        torch.autograd.grad(expected.square().sum(), clean),
        strict=True,
    ):
        assert_close(ours, theirs)


@pytest.mark.parametrize(("score", "backend"), SCORES_AND_BACKENDS)
def test_a_poisoned_query_leaves_what_it_was_removed_from_alone(score: object, backend: str) -> None:
    graph = gf.AttentionGraph.from_edge_index(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_nodes=2)
    bias = torch.tensor([-INF, -INF, 0.0], dtype=torch.float64)
    weight = torch.ones(H, D, dtype=torch.float64, requires_grad=True)
    score = gf.Additive(weight) if isinstance(score, gf.Additive) else score
    q, k, v = nodes(graph)
    attr, edge_key = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((3, 2), (2, H, D)))
    with torch.no_grad():
        q[0] = NAN
    terms = {"score": score, "bias": bias, "edge_attr": attr, "edge_key": edge_key}
    learned = [k, attr, edge_key, *([weight] if isinstance(score, gf.Additive) else [])]
    for result in (
        gf.attend(q, k, v, graph, backend=backend, **terms),
        gf.attention_weights(q, k, graph, **terms),
    ):
        assert bool(result.isfinite().all())
        assert all(bool(grad.isfinite().all()) for grad in torch.autograd.grad(result.square().sum(), learned))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_poisoned_map_leaves_empty_rows_alone(backend: str) -> None:
    graph = gf.AttentionGraph.from_edge_index(torch.tensor([[0], [1]]), num_nodes=2)
    q, k, v = nodes(graph)
    poisoned = torch.full((2, H, D), NAN, dtype=torch.float64)
    terms = {"edge_attr": torch.ones(1, 2, dtype=torch.float64), "edge_key": poisoned, "edge_value": poisoned}
    out = gf.attend(q, k, v, graph, backend=backend, **terms)
    (grad,) = torch.autograd.grad(out.sum(), q)
    assert bool((out[0] == 0).all())
    assert bool((grad[0] == 0).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_that_overflow_to_minus_infinity_remove_their_pairs(backend: str) -> None:
    graph = gf.AttentionGraph.from_edge_index(torch.tensor([[0, 1], [0, 1]]), num_nodes=2)
    q, k, v = (t.detach().float() for t in nodes(graph))
    q[0], k[0] = 3e38, -3e38
    inputs = [t.requires_grad_() for t in (q, k, v)]
    out = gf.attend(*inputs, graph, backend=backend)
    grads = torch.autograd.grad(out.sum(), inputs)
    assert bool((out[0] == 0).all())
    assert all(bool(grad[1].isfinite().all()) for grad in grads)
    assert bool((grads[2][0] == 0).all())


@pytest.mark.parametrize("which", ["query", "key", "value"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_non_finite_row_reaches_only_its_neighbours(backend: str, which: str) -> None:
    graph = gf.AttentionGraph.from_edge_index(torch.tensor([[0, 1, 2, 2], [0, 0, 1, 2]]), num_nodes=3)
    tensors = dict(zip(("query", "key", "value"), nodes(graph), strict=True))
    with torch.no_grad():
        tensors[which][0] = NAN
    out = gf.attend(*tensors.values(), graph, backend=backend)
    assert bool(out[0].isnan().all())
    assert bool(out[1:].isfinite().all())


# ------------------------------------------------------------------ dropout


def test_dropout_is_a_function_of_seed_edge_and_head() -> None:
    first = keep_scale(torch.arange(1000), 5, 0.3, torch.tensor(7))
    assert torch.equal(first[300:], keep_scale(torch.arange(300, 1000), 5, 0.3, torch.tensor(7)))
    assert not torch.equal(first, keep_scale(torch.arange(1000), 5, 0.3, torch.tensor(8)))
    assert first.unique().tolist() == pytest.approx([0, 1 / 0.7])
    kept = (first > 0).double()
    assert kept.mean().item() == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / 5000))
    correlation = torch.corrcoef(kept.t()) - torch.eye(5)
    assert correlation.abs().max() < 0.15


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_kept_grows_exactly(dtype: torch.dtype, backend: str) -> None:
    graph = gf.AttentionGraph.from_dense(torch.ones(40, 1).bool())
    q, k, v = torch.ones(40, 1, 1, dtype=dtype), torch.ones(1, 1, 1, dtype=dtype), torch.ones(1, 1, 1, dtype=dtype)
    out = gf.attend(q, k, v, graph, dropout=0.3, backend=backend)
    assert_close(out[out > 0], torch.full_like(out[out > 0], 1 / (1 - 0.3)))


def test_dropout_beyond_32_bits() -> None:
    low = keep_scale(torch.arange(100), 2, 0.5, torch.tensor(1))
    high = keep_scale(torch.arange(100) + 2**32, 2, 0.5, torch.tensor(1))
    assert not torch.equal(low, high)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_follows_the_edge_id_not_the_row_order(backend: str) -> None:
    graph = random_graph(N, M, num_edges=E)
    q, k, v = nodes(graph)
    order = torch.randperm(E)
    shuffled = gf.AttentionGraph.from_edge_index(graph.edge_index[:, order], size=graph.size)
    keep = keep_scale(torch.arange(E), H, 0.5, torch.tensor(3)).double()
    alpha = gf.attention_weights(q, k, shuffled)
    key, query = shuffled.edge_index
    expected = torch.zeros(N, H, D).double().index_add(0, query, (alpha * keep).unsqueeze(2) * v[key])
    assert_close(gf.attend(q, k, v, shuffled, dropout=0.5, seed=3, backend=backend), expected)


def test_both_backends_see_one_mask_in_both_passes() -> None:
    graph = random_graph(N, M, num_edges=E)
    inputs = nodes(graph)
    results = []
    for backend in ("reference", "native"):
        out = gf.attend(*inputs, graph, dropout=0.4, seed=-(2**62) + 11, backend=backend)
        results.append((out, *torch.autograd.grad(out.sin().sum(), inputs)))
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs)


def test_dropout_keeps_the_mean() -> None:
    graph = random_graph(N, M, num_edges=E)
    q, k, v = (t.detach() for t in nodes(graph))
    draws = torch.stack([gf.attend(q, k, v, graph, dropout=0.4) for _ in range(2000)])
    error = (draws.mean(0) - gf.attend(q, k, v, graph)).abs() / (draws.std(0) / math.sqrt(2000) + 1e-9)
    assert error.max() < 5


def test_without_a_seed_torch_decides() -> None:
    graph = random_graph(N, M, num_edges=E)
    q, k, v = nodes(graph)
    torch.manual_seed(5)
    first, second = (gf.attend(q, k, v, graph, dropout=0.5) for _ in range(2))
    torch.manual_seed(5)
    again = gf.attend(q, k, v, graph, dropout=0.5)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


# ------------------------------------------------------------------ determinism


@pytest.mark.parametrize("backend", BACKENDS)
def test_bitwise_equal_for_any_number_of_threads(backend: str) -> None:
    graph = random_graph(300, num_edges=40_000, num_relations=3)
    x, table = torch.randn(300, 2, 8, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            out = gf.attend(x, x, x, graph, relation_bias=table, backend=backend)
            results.append((out, *torch.autograd.grad(out.sin().sum(), (x, table))))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*results, strict=True))


# ------------------------------------------------------------------ operators and compile


def _operator_arguments(backend: str) -> tuple[object, ...]:
    graph = random_graph(N, M, num_edges=E, num_relations=4)
    q, k, v = (t.detach().float().requires_grad_() for t in nodes(graph))
    bias = torch.randn(E, H, requires_grad=True)
    attr, edge_key = torch.randn(E, 2, requires_grad=True), torch.randn(2, H, D, requires_grad=True)
    tensors = Tensors(q, k, v, bias=bias, edge_attr=attr, edge_key=edge_key)
    options = Options("dot", 0.0, "softmax", 0.5, 0.1, torch.tensor(3))
    rows = api.BACKENDS["native"].rows(graph, tensors, options, by_key=True)
    return (*tensors, *rows, options.seed, *options[:-1], backend)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck reads it from copies that it makes
@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend: str) -> None:
    arguments = _operator_arguments(backend)
    torch.library.opcheck(attend_op, arguments)
    plain = [a.detach() if isinstance(a, Tensor) else a for a in arguments]
    out, statistic = attend_op(*plain)
    needs = [a is not None for a in plain[:11]]
    torch.library.opcheck(attend_backward_op, (torch.randn_like(out), out, statistic, *plain, needs))


@pytest.mark.slow
def test_one_compiled_program_serves_every_size() -> None:
    """From edge_index to gradients under fullgraph and dynamic shapes: equal numbers, and no recompilation."""

    def function(x: Tensor, edge_index: Tensor, bias: Tensor) -> Tensor:
        graph = gf.AttentionGraph.from_edge_index(edge_index, num_nodes=x.shape[0])
        heads = x.view(x.shape[0], H, -1)
        out = gf.attend(heads, heads + 1, heads, graph, bias=bias, dropout=0.2, seed=3)
        return out.flatten(1) + gf.attention_weights(heads, heads, graph).sum()

    torch._dynamo.reset()
    counter, programs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager"), []
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=counter)
    for num_nodes, num_edges in ((5, 9), (6, 12), (11, 40)):
        x = torch.randn(num_nodes, H * D, requires_grad=True)
        edge_index, bias = torch.randint(0, num_nodes, (2, num_edges)), torch.randn(num_edges)
        results = [f(x, edge_index, bias) for f in (compiled, function)]
        grads = [torch.autograd.grad(r.square().sum(), x)[0] for r in results]
        assert_close(*results)
        assert_close(*grads)
        programs.append(counter.frame_count)
    assert programs[0] == programs[-1], "a new size made a new program"


def test_no_output_element_is_left_unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every fresh buffer full of NaN, also those of rows without pairs and keys that nobody attends to."""
    empty = torch.empty

    def poisoned(*size: object, **kind: object) -> Tensor:
        tensor = empty(*size, **kind)
        return tensor.fill_(NAN) if tensor.is_floating_point() else tensor.fill_(0)

    monkeypatch.setattr(torch, "empty", poisoned)
    graph = gf.AttentionGraph.from_edge_index(torch.tensor([[1, 1], [2, 0]]), size=(3, 4))
    inputs = nodes(graph)
    bias, attr, edge_key = (
        torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((2, H), (2, 3), (3, H, D))
    )
    terms = {"bias": bias, "edge_attr": attr, "edge_key": edge_key, "edge_value": edge_key}
    for backend in ("reference", "native"):
        out = gf.attend(*inputs, graph, backend=backend, **terms)
        grads = torch.autograd.grad(out.sum(), (*inputs, bias, attr, edge_key))
        assert all(bool(t.isfinite().all()) for t in (out, *grads))


def test_second_derivatives_are_not_offered_under_compile() -> None:
    graph = random_graph(4, num_edges=6)
    compiled = torch.compile(lambda x: gf.attend(x, x, x, graph), backend="aot_eager")
    x = torch.randn(4, 1, 2, requires_grad=True)
    (first,) = torch.autograd.grad(compiled(x).sin().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        first.sum().backward()


def test_a_compiled_program_refuses_bad_ids() -> None:
    def function(x: Tensor, edge_index: Tensor) -> Tensor:
        graph = gf.AttentionGraph.from_edge_index(edge_index, num_nodes=x.shape[0])
        return gf.attend(x, x, x, graph)

    compiled = torch.compile(function, fullgraph=True, backend="eager")
    with pytest.raises(gf.GraphformerError, match=r"ids in \[0, 4\); got 4"):
        compiled(torch.randn(4, 1, 2), torch.tensor([[0, 4], [1, 1]]))


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_a_trace_is_refused() -> None:
    """It would hold the graph without the checks: smaller tensors would be read past their ends."""
    with pytest.raises(
        gf.GraphformerError, match="attend: graph must be checked .* in every call; got a trace by torch.jit"
    ):
        torch.jit.trace(lambda q: gf.attend(q, K, V, GRAPH), (Q,))


# ------------------------------------------------------------------ refusals

GRAPH = random_graph(4, 6, num_edges=9)
RELATED = random_graph(4, 6, num_edges=9, num_relations=2)
Q, K, V = torch.randn(4, 2, 3), torch.randn(6, 2, 3), torch.randn(6, 2, 5)
REFUSALS = {
    "graph": ((Q, K, V, torch.zeros(2, 3)), {}, "attend: graph must be an AttentionGraph; got Tensor. Make one"),
    "query rank": ((Q[0], K, V, GRAPH), {}, "query must have shape [N, H, D]; got [2, 3]. Split"),
    "query rows": ((K, K, V, GRAPH), {}, "query must have one row for each of the graph's 4 queries; got"),
    "key rows": (
        (Q, Q, V, GRAPH),
        {},
        "key must have one row for each of the graph's 6 keys; got key.shape = [4, 2, 3]",
    ),
    "value rows": ((Q, K, V[:5], GRAPH), {}, "value must have one row for each of the graph's 6 keys"),
    "heads": ((Q, K[:, :1], V, GRAPH), {}, "key must have 2 heads like query; got key.shape = [6, 1, 3]. Repeat"),
    "width": ((Q, K[..., :2], V, GRAPH), {}, "key must have query's width 3, at least 1; got key.shape = [6, 2, 2]"),
    "dtype": ((Q, K.double(), V, GRAPH), {}, "key must have query's dtype torch.float32; got torch.float64"),
    "integer": ((Q.int(), K.int(), V.int(), GRAPH), {}, "query must have a floating dtype; got torch.int32"),
    "device": ((Q, K.to("meta"), V, GRAPH), {}, "key must be on the graph's device cpu; got meta. Move it"),
    "bias": ((Q, K, V, GRAPH), {"bias": torch.zeros(8, 2)}, "bias must have shape [E, H] = [9, 2]; got [8, 2]"),
    "no relations": (
        (Q, K, V, GRAPH),
        {"relation_bias": torch.zeros(2, 2)},
        "relation_bias must come with a graph that carries relations; got a graph without. Make the graph",
    ),
    "relations": (
        (Q, K, V, RELATED),
        {"relation_key": torch.zeros(3, 2, 3)},
        "relation_key must have shape [R, H, D] = [2, 2, 3]; got [3, 2, 3]",
    ),
    "edge map alone": ((Q, K, V, GRAPH), {"edge_key": torch.zeros(1, 2, 3)}, "edge_attr must come with edge_key"),
    "edge_attr alone": ((Q, K, V, GRAPH), {"edge_attr": torch.zeros(9, 1)}, "edge_attr must come with edge_key"),
    "edge_attr rank": (
        (Q, K, V, GRAPH),
        {"edge_attr": torch.zeros(9), "edge_key": torch.zeros(1, 2, 3)},
        "edge_attr must have shape [E, F]; got [9]. One feature",
    ),
    "score": ((Q, K, V, GRAPH), {"score": "dots"}, "score must be one of dot, additive; got 'dots'. Did you mean dot?"),
    "activation": (
        (Q, K, V, GRAPH),
        {"score": gf.Additive(None, "relu")},
        "must be one of leaky_relu, tanh; got 'relu'",
    ),
    "normalizer": ((Q, K, V, GRAPH), {"normalizer": "softmx"}, "normalizer must be one of softmax, relu, sigmoid"),
    "weight": (
        (Q, K, V, GRAPH),
        {"score": gf.Additive(torch.ones(2, 4))},
        "weight must have shape [H, D] = [2, 3]; got [2, 4]",
    ),
    "scale": ((Q, K, V, GRAPH), {"score": gf.Additive(), "scale": 2.0}, "scale must be left out unless the score is"),
    "dropout": ((Q, K, V, GRAPH), {"dropout": 1.0}, "dropout must lie in [0, 1); got 1.0. Pass the probability"),
    "no tensor": ((Q, K, None, GRAPH), {}, "value must be a dense tensor; got NoneType. Convert it"),
    "a list": ((Q, K, V, GRAPH), {"bias": [1.0]}, "bias must be a dense tensor; got list."),
    "a sparse tensor": (
        (Q.to_sparse(), K, V, GRAPH),
        {},
        "query must be a dense tensor; got a torch.sparse_coo tensor.",
    ),
    "slope": (
        (Q, K, V, GRAPH),
        {"score": gf.Additive(negative_slope="x")},
        "negative_slope must be a number; got 'x'.",
    ),
    "learned scale": (
        (Q, K, V, GRAPH),
        {"scale": torch.ones(())},
        "scale must be a number; got Tensor. Multiply the query",
    ),
    "dropout text": ((Q, K, V, GRAPH), {"dropout": "0.5"}, "dropout must lie in [0, 1); got 0.5."),
    "seed text": ((Q, K, V, GRAPH), {"seed": "a"}, "seed must be an integer or an int64 tensor of shape []; got 'a'."),
    "seed fraction": ((Q, K, V, GRAPH), {"dropout": 0.5, "seed": 1.5}, "seed must be an integer or an int64 tensor"),
    "seed range": ((Q, K, V, GRAPH), {"dropout": 0.5, "seed": 2**63}, "seed must fit 64 bits, sign included; got 9223"),
    "own score's shape": (
        (Q, K, V, GRAPH),
        {"score": lambda q, k: (q * k).sum(2).mean(1, keepdim=True)},
        "score must return a floating tensor [e, H] = [9, 2]; got [9, 1], torch.float32. Reduce",
    ),
    "own score's type": ((Q, K, V, GRAPH), {"score": lambda q, k: None}, "score must return a floating tensor [e, H]"),
    "seed": ((Q, K, V, GRAPH), {"dropout": 0.5, "seed": torch.zeros(2)}, "seed must be an integer or an int64 tensor"),
    "backend": (
        (Q, K, V, GRAPH),
        {"backend": "referense"},
        "backend must be one of auto, native, triton, reference; got 'referense'",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    arguments, named, message = REFUSALS[name]
    with pytest.raises(gf.GraphformerError, match=re.escape(message)):
        gf.attend(*arguments, **named)


@pytest.mark.parametrize(
    "name", [name for name in REFUSALS if name not in ("backend", "own score's shape", "own score's type")]
)
def test_explain_refuses_what_attend_refuses(name: str) -> None:
    arguments, named, message = REFUSALS[name]
    with pytest.raises(gf.GraphformerError, match=re.escape(message.removeprefix("attend: "))):
        gf.explain(*arguments, **named)


def test_refusals_name_the_function() -> None:
    with pytest.raises(ValueError, match="^attention_weights: query must have shape"):
        gf.attention_weights(Q[0], K, GRAPH)


def test_own_edges_need_their_features() -> None:
    graph = gf.AttentionGraph(GRAPH.by_query, 6, own_edge=torch.zeros(9, dtype=torch.int64), num_own_edges=4)
    with pytest.raises(ValueError, match=r"edge_attr must have shape \[4, F\], one row for each"):
        gf.attend(Q, K, V, graph, edge_attr=torch.zeros(9, 1), edge_key=torch.zeros(1, 2, 3))


def test_explain_names_the_case_and_the_choice() -> None:
    text = gf.explain(Q, K, V, GRAPH, bias=torch.zeros(9, 2), dropout=0.5)
    assert "4 queries, 6 keys, 9 edges, 2 heads of width 3, with bias, dropout 0.5" in text
    assert 'native: runs (chosen by "auto"); tiles serve 0 of 1 window of 32 queries: none is filled' in text
    text = gf.explain(Q, K, V, GRAPH, score=lambda q, k: (q * k).sum(2))
    assert "native: cannot: a score function of your own is Python" in text
    assert 'reference: runs (chosen by "auto")' in text


# ------------------------------------------------------------------ the native library


def test_native_is_built_and_knows_its_instruction_set() -> None:
    assert _library.instruction_set() in ("avx512", "avx2", "baseline")


def test_native_takes_every_case_but_python_scores() -> None:
    for score, normalizer, dtype in itertools.product(
        ("dot", "leaky_relu", "tanh"),
        ("softmax", "relu", "sigmoid"),
        (torch.float32, torch.float64, torch.float16, torch.bfloat16),
    ):
        case = Case(score, normalizer, dtype, torch.device("cpu"), 3, 4, 5, 2, 7, Tensors._fields[4:], 0.5)
        assert native.why_not(case) == []


def test_a_named_backend_runs_or_raises() -> None:
    with pytest.raises(gf.GraphformerError, match="'native': a score function of your own is Python"):
        gf.attend(Q, K, V, GRAPH, score=lambda q, k: (q * k).sum(2), backend="native")


def test_without_the_library_auto_warns_once_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = gf.attend(Q, K, V, GRAPH)
    monkeypatch.setattr(native, "LIBRARY", None)
    api._warn_that_native_is_missing.cache_clear()
    with pytest.warns(UserWarning, match=r"its C\+\+ library is not built"):
        assert_close(gf.attend(Q, K, V, GRAPH), expected)
    gf.attend(Q, K, V, GRAPH)  # a second warning would be an error
    with pytest.raises(gf.GraphformerError, match=r"'native': its C\+\+ library is not built"):
        gf.attend(Q, K, V, GRAPH, backend="native")
