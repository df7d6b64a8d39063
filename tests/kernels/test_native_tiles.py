"""The tile loops at sizes of several windows and blocks, against the reference: every option, poison, thread counts."""

from __future__ import annotations

import ctypes

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import graphformer as gf
from graphformer.graphs import tiles
from graphformer.kernels import native
from graphformer.testing import assert_close

NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles everywhere; here the row loops are no subject."""
    monkeypatch.setattr(tiles, "LEAST_FILL", 1e-9)


def graph_of(kind: str, num_nodes: int, num_relations: int, seed: int) -> gf.AttentionGraph:
    generator = torch.Generator().manual_seed(seed)
    if kind == "random":
        edge_index = torch.randint(0, num_nodes, (2, 20 * num_nodes), generator=generator)
    else:
        pattern = {
            "full": gf.patterns.Full(),
            "ragged": gf.patterns.Full(),
            "window": gf.patterns.Window(radius=23),
            "causal": gf.patterns.Causal(),
            "hubs": gf.patterns.Window(radius=2) | gf.patterns.Global(3),
        }[kind]
        lengths = {"full": [num_nodes - 40, 3, 37], "ragged": [num_nodes // 10] * 9 + [num_nodes - num_nodes // 10 * 9]}
        edge_index = pattern.on(lengths.get(kind, num_nodes)).edge_index
    relation = torch.randint(0, num_relations, (edge_index.shape[1],), generator=generator)
    return gf.AttentionGraph.from_edge_index(
        edge_index, num_nodes=num_nodes, relation=relation, num_relations=num_relations
    )


def compare(graph: gf.AttentionGraph, nodes: list[Tensor], terms: dict[str, object]) -> None:
    """Values and all gradients of `native` and `reference`; what is infinite in one may be NaN in the other."""
    weight = getattr(terms.get("score"), "weight", None)
    leaves = [t for t in (*nodes, *terms.values(), weight) if isinstance(t, Tensor)]
    upstream = torch.randn(graph.num_queries, *nodes[2].shape[1:], dtype=nodes[0].dtype)
    results = []
    for backend in ("native", "reference"):
        out = gf.attend(*nodes, graph, backend=backend, **terms)
        results.append([out, *torch.autograd.grad(out, leaves, upstream)])
    for actual, expected in zip(*results, strict=True):
        assert_close(*(torch.where(t.isfinite(), t, NAN) for t in (actual, expected)))


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["random", "full", "ragged", "window", "causal", "hubs"]),
    num_nodes=st.integers(41, 150),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 19), st.integers(1, 18), st.integers(1, 6), st.integers(1, 3)),
    names=st.sets(
        st.sampled_from(
            ["bias", "relation_bias", "relation_key", "relation_value", "edge_key", "edge_value", "dropout"]
        )
    ),
    score=st.sampled_from(["dot", "leaky_relu", "tanh"]),
    normalizer=st.sampled_from(["softmax", "relu", "sigmoid"]),
    removes=st.booleans(),
    poison=st.sampled_from([None, NAN, INF]),
    seed=st.integers(0, 2**20),
)
def test_every_option_agrees_with_the_reference(
    kind: str,
    num_nodes: int,
    sizes: tuple[int, ...],
    names: set[str],
    score: str,
    normalizer: str,
    removes: bool,
    poison: float | None,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    heads, width, value_width, relations, features = sizes
    graph = graph_of(kind, num_nodes, relations, seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    shapes = {
        "bias": (graph.num_edges, heads),
        "relation_bias": (relations, heads),
        "relation_key": (relations, heads, width),
        "relation_value": (relations, heads, value_width),
        "edge_key": (features, heads, width),
        "edge_value": (features, heads, value_width),
    }
    terms: dict[str, object] = {name: leaf(*shapes[name]) for name in names & set(shapes)}
    if names & {"edge_key", "edge_value"}:
        terms["edge_attr"] = leaf(graph.num_edges, features)
    if "dropout" in names:
        terms |= {"dropout": 0.3, "seed": seed}
    if score != "dot":
        terms["score"] = gf.Additive(leaf(heads, width), score)
    nodes = [leaf(num_nodes, heads, size) for size in (width, width, value_width)]
    with torch.no_grad():
        if removes and "bias" in terms:
            terms["bias"][torch.rand(shapes["bias"]) < 0.3] = -INF  # type: ignore[index]
        # Infinity times a key may be a score of -inf, which the reference alone takes for removed; a value is no score.
        for tensor in nodes if poison is NAN else nodes[2:]:
            if poison is not None:
                tensor[int(torch.randint(num_nodes, ())), int(torch.randint(heads, ()))] = poison
    compare(graph, nodes, {**terms, "normalizer": normalizer})


@pytest.mark.parametrize("poison", [None, NAN])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_wide_heads_take_a_head_through_all_windows(dtype: torch.dtype, poison: float | None) -> None:
    """Long rows of wide heads: rows are packed once for a group of windows, and windows are taken head by head."""
    num_nodes, heads, width = 301, 3, 128
    graph = gf.patterns.Full().on([num_nodes - 20, 20])
    nodes = [torch.randn(num_nodes, heads, width, dtype=dtype) for _ in range(3)]
    if poison is not None:
        nodes[1][7, 1, 3] = nodes[2][290, 2, 0] = nodes[0][300, 0, 1] = poison
    results = []
    for backend in ("native", "reference"):
        leaves = [t.clone().requires_grad_() for t in nodes]
        out = gf.attend(*leaves, graph, backend=backend)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many passes each backward call of `native` took."""
    found: list[int] = []
    run = native._Call.run

    def counted(call: native._Call, function: str) -> None:
        if function == "gf_backward":
            found.append(native.LIBRARY.gf_backward_passes(ctypes.byref(call.problem)))
        run(call, function)

    monkeypatch.setattr(native._Call, "run", counted)
    return found


@pytest.mark.parametrize("kind", ["full", "ragged", "window", "hubs", "causal", "random"])
@pytest.mark.parametrize("terms", ["plain", "relation_bias", "relation tables"])
def test_any_number_of_threads_gives_the_same_bits(kind: str, terms: str, passes: list[int]) -> None:
    graph = graph_of(kind, 500, 5, seed=0)
    nodes = [torch.randn(500, 4, 16, requires_grad=True) for _ in range(3)]
    table = torch.randn(5, 4, 16, requires_grad=True)
    named = {"relation_key": table, "relation_value": table} if terms == "relation tables" else {}
    if terms == "relation_bias":
        named = {"relation_bias": torch.randn(5, 4, requires_grad=True), "dropout": 0.2, "seed": 3}
    leaves = [*nodes, *(t for t in named.values() if isinstance(t, Tensor))]
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            out = gf.attend(*nodes, graph, **named, backend="native")
            results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    finally:
        torch.set_num_threads(threads)
    assert passes == [2 if terms == "relation tables" else 1] * 4
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("window", {}, 1),
        ("ragged", {}, 1),
        ("full", {}, 2),  # every chunk meets every query, so chunks would be too few
        ("ragged", {"normalizer": "sigmoid", "dtype": torch.bfloat16}, 1),
        ("window", {"dtype": torch.bfloat16}, 2),  # delta must come from the pairs
        ("window", {"relation_key": True}, 2),
        ("window", {"relation_bias": True, "bias": True, "dropout": 0.5}, 1),
        ("window", {"relation_value": True}, 2),
        ("window", {"edge_key": True}, 2),
        ("window", {"poison": NAN}, 1),
        ("window", {"poison": INF, "bias": True}, 1),
    ],
)
def test_one_backward_pass_where_it_pays(kind: str, options: dict, expected: int, passes: list[int]) -> None:
    """Each agrees with the reference, and takes the passes that are expected."""
    torch.manual_seed(1)
    num_nodes, heads, width, value_width = 330, 3, 19, 6
    graph = graph_of(kind, num_nodes, 4, seed=2)
    shapes = {
        "bias": (graph.num_edges, heads),
        "relation_bias": (4, heads),
        "relation_key": (4, heads, width),
        "relation_value": (4, heads, value_width),
        "edge_key": (2, heads, width),
    }
    dtype = options.get("dtype", torch.float64)
    terms: dict[str, object] = {
        name: torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for name, shape in shapes.items()
        if name in options
    }
    if "edge_key" in options:
        terms["edge_attr"] = torch.randn(graph.num_edges, 2, dtype=torch.float64, requires_grad=True)
    nodes = [
        torch.randn(num_nodes, heads, size, dtype=dtype, requires_grad=True) for size in (width, width, value_width)
    ]
    with torch.no_grad():
        if "bias" in terms:
            terms["bias"][torch.rand(shapes["bias"]) < 0.3] = -INF  # type: ignore[index]
        if "poison" in options:
            nodes[1 if options["poison"] is NAN else 2][133, 1, 2] = options["poison"]
    if "dropout" in options:
        terms |= {"dropout": options["dropout"], "seed": 5}
    compare(graph, nodes, {**terms, "normalizer": options.get("normalizer", "softmax")})
    assert passes == [expected]


def test_a_graph_may_use_both_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dense window beside sparse ones: each is served once, and the whole agrees."""
    monkeypatch.setattr(tiles, "LEAST_FILL", 0.5)
    generator = torch.Generator().manual_seed(2)
    dense = torch.cartesian_prod(torch.arange(50), torch.arange(32, 64)).T
    sparse = torch.randint(0, 200, (2, 300), generator=generator)
    graph = gf.AttentionGraph.from_edge_index(torch.cat((dense, sparse), 1), num_nodes=200)
    stats = graph.stats()
    assert 0 < stats.num_tiled_windows < stats.num_windows
    nodes = [torch.randn(200, 2, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    bias = torch.randn(graph.num_edges, 2, dtype=torch.float64, requires_grad=True)
    compare(graph, nodes, {"bias": bias})


def test_dead_pairs_of_relu_carry_nan_to_the_map_of_edge_features() -> None:
    """A NaN query has pairs whose slope is zero, and zero times NaN is NaN; only a row without pairs stays out."""
    mask = torch.rand(12, 12) < 0.5
    mask[3], mask[5, 0] = False, True
    graph = gf.AttentionGraph.from_dense(mask)
    for poisoned in (3, 5):
        nodes = [torch.randn(12, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
        with torch.no_grad():
            nodes[0][poisoned] = NAN
        terms: dict[str, object] = {"edge_attr": torch.randn(graph.num_edges, 2, dtype=torch.float64)}
        terms["edge_key"] = edge_key = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
        compare(graph, nodes, {**terms, "edge_attr": terms["edge_attr"].requires_grad_(), "normalizer": "relu"})  # type: ignore[attr-defined]
        out = gf.attend(*nodes, graph, **terms, normalizer="relu", backend="native")
        assert torch.autograd.grad(out.nansum(), edge_key)[0].isfinite().all() == (poisoned == 3)
