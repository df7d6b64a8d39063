"""Estimates against what really happens: graphs that are made, tensors that are allocated, tiles that are walked."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from cost_measures import peak_bytes
from torch_geometric.data import Data

import graphformer as gf
from graphformer import _library
from graphformer.graphs import Features, tiles
from graphformer.kernels import native
from graphformer.models import GraphTransformer, GraphTransformerConfig
from graphformer.patterns import Bipartite, Blocks, Causal, Edges, Full, Global, Random, Window

needs_library = pytest.mark.skipif(_library.LIBRARY is None, reason="the library is not built")

MOLECULE = Data(edge_index=torch.tensor([[0, 1, 1, 2, 3, 69], [1, 0, 2, 1, 69, 3]]), num_nodes=70)
REPEATED = Data(edge_index=torch.tensor([[0, 0, 2], [1, 1, 0]]), num_nodes=3)
CASES: dict[str, tuple[Any, Any]] = {
    "full": (Full(), 75),
    "ragged": (Full(), [40, 0, 3, 61]),
    "window and hub": (Window(2) | Global(1), 150),
    "causal": (Causal() & Window(40), 97),
    "blocks": (Blocks(16), 90),
    "random": (Random(3), 130),
    "none": (Window(1) - Window(2), 66),
    "bipartite": (Bipartite(), ([50, 4], [70, 9])),
    "labelled": (Window(3).as_relation(1) | Full().as_relation(0), 45),
    "edges": (Edges(self_loops=True), MOLECULE),
    "edges and all": (Edges().as_relation(0) | Full().as_relation(1), MOLECULE),
    "repeated edges": (Edges(), REPEATED),
    "both copies": (Window(3) + Window(1), 68),
}


@pytest.mark.parametrize("name", CASES)
def test_a_pattern_is_told_as_its_graph(name: str) -> None:
    pattern, nodes = CASES[name]
    for backend in ("auto", "reference"):
        told = gf.estimate(pattern, nodes, backend=backend)
        of_graph = gf.estimate(pattern.on(nodes), backend=backend)
        assert told.case.startswith(repr(pattern) + "\n")
        assert replace(told, case="") == replace(of_graph, case="")


@needs_library
@pytest.mark.parametrize("name", CASES)
def test_the_bytes_of_the_graph_are_those_it_holds(name: str) -> None:
    pattern, nodes = CASES[name]
    graph = pattern.on(nodes)
    assert gf.estimate(pattern, nodes, backend="reference").graph_bytes == graph.stats().num_bytes
    graph.prepare()
    by_key = 0 if graph.tiles_by_key is None else sum(part.nbytes for part in graph.tiles_by_key)
    held = graph.stats().num_bytes + graph.stats().num_tile_bytes + by_key
    told = gf.estimate(pattern, nodes)
    assert told.graph_bytes == held
    stats = graph.stats()
    assert (told.num_windows, told.num_tiled_windows) == (stats.num_windows, stats.num_tiled_windows)
    assert told.tile_fill == stats.tile_fill


def test_runs_are_counted_without_their_pairs() -> None:
    peak, told = peak_bytes(lambda: gf.estimate(Full(), 65_536, heads=2, width=3))
    assert told.num_edges == 65_536**2
    assert told.forward_multiply_adds == 65_536**2 * 2 * 6
    assert told.materialised_bytes == 65_536**2 * 2 * 3 * 4
    assert peak < 300 * 65_536


# ------------------------------------------------------------------ tensors really allocated

H, D, F = 4, 8, 3
MEASURED: list[tuple[str, torch.dtype, str, tuple[str, ...]]] = [
    (backend, dtype, score, terms)
    for backend in ("native", "reference")
    for dtype, score, terms in (
        (torch.float32, "dot", ()),
        (torch.bfloat16, "dot", ("bias",)),
        (torch.float64, "additive", ("relation_bias", "relation_key", "relation_value")),
        (torch.float32, "additive", ("edge_key",)),
        (torch.float32, "dot", ("edge_value",)),
        (torch.bfloat16, "dot", ("edge_key", "edge_value")),
    )
]


@needs_library
@pytest.mark.parametrize(("backend", "dtype", "score", "terms"), MEASURED)
def test_extra_memory_is_what_is_allocated(
    backend: str, dtype: torch.dtype, score: str, terms: tuple[str, ...]
) -> None:
    """Told is 0.95 to 1.3 times what is measured, and to 1.5 times for the reference."""
    num_nodes = 1500
    graph = (Window(20).as_relation(0) | Random(6).as_relation(1)).on(num_nodes).prepare()
    real = torch.promote_types(dtype, torch.float32)
    shapes = {"bias": (graph.num_edges, H), "relation_bias": (2, H), "edge_key": (F, H, D), "edge_value": (F, H, D)}
    named = {name: torch.randn(shapes.get(name, (2, H, D)), dtype=real) for name in terms}
    leaves = [torch.randn(num_nodes, H, D, dtype=dtype).requires_grad_() for _ in range(3)]
    leaves += [table.requires_grad_() for name, table in named.items() if name != "bias"]
    arguments: dict[str, Any] = dict(named)
    if score == "additive":
        leaves.append(torch.randn(H, D, dtype=real, requires_grad=True))
        arguments["score"] = gf.Additive(leaves[-1])
    edge_dim = F if {"edge_key", "edge_value"} & set(terms) else None
    if edge_dim:
        arguments["edge_attr"] = torch.randn(graph.num_edges, F, dtype=real)

    forward, out = peak_bytes(lambda: gf.attend(*leaves[:3], graph, backend=backend, **arguments))
    upstream = torch.randn_like(out)
    backward, grads = peak_bytes(lambda: torch.autograd.grad(out, leaves, upstream))
    options = {"score": score, "terms": terms, "edge_dim": edge_dim, "dtype": dtype, "backend": backend}
    told = gf.estimate(graph, heads=H, width=D, **options)
    most = 1.3 if backend == "native" else 1.5
    assert 0.95 < told.forward_bytes / (forward - out.nbytes) < most
    assert 0.95 < told.backward_bytes / (backward - sum(grad.nbytes for grad in grads)) < most
    assert told.node_bytes == 4 * out.nbytes


def test_gradients_by_edge_are_told_where_they_are_asked_for() -> None:
    options: dict[str, Any] = {"heads": H, "width": D, "terms": ("bias", "edge_key"), "edge_dim": F}
    without, given = (gf.estimate(Window(5), 300, **options, edge_gradients=asked) for asked in (False, True))
    assert given.backward_bytes - without.backward_bytes == given.num_edges * (H + F) * 4
    assert given.forward_bytes == without.forward_bytes


def test_own_edges_lay_their_features_out_by_pair() -> None:
    options: dict[str, Any] = {"heads": H, "terms": ("edge_key",), "edge_dim": F}
    plain_graph = gf.AttentionGraph.from_edge_index(MOLECULE.edge_index, num_nodes=70)
    own, plain = gf.estimate(Edges(), MOLECULE, **options), gf.estimate(plain_graph, **options)
    assert own.forward_bytes - plain.forward_bytes == 6 * F * 4


# ------------------------------------------------------------------ work


def walked(graph: gf.AttentionGraph, side: str) -> tuple[int, int]:
    """Places that the loops visit on one side, and rows of the other side that they read, window by window."""
    layout, made = getattr(graph, f"by_{side}"), getattr(graph, f"tiles_by_{side}")
    places = rows = 0
    for window in range(made.ptr.numel() - 1):
        segments = made.segments[made.ptr[window] : made.ptr[window + 1]].tolist()
        if segments:
            rows += sum(count for _, count, _ in segments)
            places += 32 * sum(count for _, count, _ in segments)
        else:
            first, last = 32 * window, min(32 * window + 32, layout.ptr.numel() - 1)
            rows += int(layout.ptr[last] - layout.ptr[first])
            places += int(layout.ptr[last] - layout.ptr[first])
    return places, rows


@needs_library
def test_work_and_traffic_follow_the_loops() -> None:
    pattern, nodes = Full(), ([70, *[2] * 40], [50, *[1] * 40])
    graph = pattern.on(nodes)
    (by_query, rows), (by_key, _) = walked(graph, "query"), walked(graph, "key")
    assert 0 < graph.stats().num_tiled_windows < graph.stats().num_windows
    assert by_query != by_key
    told = gf.estimate(pattern, nodes, heads=H, width=D)
    assert told.forward_multiply_adds == by_query * 2 * H * D
    assert told.training_multiply_adds == (5 * by_query + 4 * by_key) * H * D
    assert told.moved_bytes == (rows + 90) * 2 * H * D * 4  # with 90 queries and results
    half = gf.estimate(pattern, nodes, heads=H, width=D, dtype=torch.float16)
    assert half.training_multiply_adds - told.training_multiply_adds == by_query * 2 * H * D
    assert half.moved_bytes == told.moved_bytes // 2
    rows_only = gf.estimate(pattern, nodes, heads=H, width=D, backend="reference")
    assert rows_only.training_multiply_adds == graph.num_edges * 7 * H * D


# ------------------------------------------------------------------ models


def test_a_model_is_the_sum_of_its_layers() -> None:
    nn = gf.nn
    model = torch.nn.ModuleList([nn.GraphAttention(-1, 24, heads=3), nn.TransformerBlock(10, heads=5)])
    told = gf.estimate(model, 90, pattern=Window(4))
    parts = [gf.estimate(Window(4), 90, heads=heads, width=width) for heads, width in ((3, 8), (5, 2))]
    for name in ("forward_multiply_adds", "training_multiply_adds", "node_bytes", "moved_bytes", "forward_bytes"):
        assert getattr(told, name) == sum(getattr(part, name) for part in parts), name
    for name in ("backward_bytes", "materialised_bytes", "graph_bytes"):
        assert getattr(told, name) == max(getattr(part, name) for part in parts), name
    assert told.num_calls == 2
    assert gf.estimate(model, Window(4).on(90)) == replace(told, case=told.case.replace(" over Window(radius=4)", ""))


def test_a_graph_transformer_brings_its_pattern_and_terms() -> None:
    config = GraphTransformerConfig(
        channels=24, heads=3, layers=5, pattern="Edges().as_relation(0) | Full().as_relation(1)"
    )
    model = GraphTransformer(config, Features(node_categories=(2,), edge_categories=(3, 4)), num_outputs=1)
    told = gf.estimate(model, MOLECULE)
    terms = ("relation_bias", "edge_key", "edge_value")
    alone = gf.estimate(gf.patterns.parse(config.pattern), MOLECULE, heads=3, width=8, terms=terms, edge_dim=7)
    assert told.training_multiply_adds == 5 * alone.training_multiply_adds
    assert told.backward_bytes == alone.backward_bytes
    assert told.num_edges == 70 * 70
    assert "5 calls, each: dot score, softmax, float32 on cpu: 70 queries" in told.case
    assert gf.estimate(model.double(), MOLECULE).node_bytes == 2 * told.node_bytes == 10 * 2 * alone.node_bytes // 2


def test_a_layer_keeps_its_backend() -> None:
    layer = gf.nn.GraphAttention(4, 8, heads=2, backend="reference")
    assert gf.estimate(layer, 20, pattern=Full()).backend == "reference"


# ------------------------------------------------------------------ words


@needs_library
def test_the_words() -> None:
    assert str(gf.estimate(Window(30), 512, heads=4, width=16)) == (
        "Window(radius=30)\n"
        "dot score, softmax, float32 on cpu: 512 queries, 512 keys, 30302 edges, 4 heads of width 16\n"
        "backend: native, the first that can; reference could too\n"
        "loops: tiles serve 16 of 16 windows of 32 queries (fill 67.1%)\n"
        "multiply-adds: 5.8 M forward, 26.0 M forward and backward\n"
        "memory: graph 54.5 KiB; queries, keys, values and results 512.0 KiB; beside these 8.0 KiB forward, "
        "24.0 KiB backward\n"
        "forward reads and writes 962.0 KiB; one materialised [E, H, D] would take 7.4 MiB"
    )
    assert "as asked for\nloops: pairs in chunks" in str(gf.estimate(Full(), 5, backend="reference"))


@needs_library
def test_why_rows() -> None:
    assert gf.estimate(Window(1), 40).why_loops == (
        "tiles serve 0 of 2 windows of 32 queries: none is filled to 20%, so all go row by row"
    )
    assert gf.estimate(Window(1), 0).why_loops.endswith("0 windows of 32 queries: there are no pairs")
    mixed = gf.estimate((Full() | Window(0)), [64, *[1] * 32])
    assert mixed.why_loops.endswith("(fill 100.0%), the others, filled below 20%, go row by row")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "LIBRARY", None)
    monkeypatch.setattr(tiles, "LIBRARY", None)
    monkeypatch.setattr("graphformer.kernels.api._warn_that_native_is_missing", lambda: None)
    told = gf.estimate(Full(), 40)
    assert (told.backend, told.num_tiled_windows) == ("reference", 0)
    assert "native cannot: its C++ library is not built" in told.why_backend
    assert "the C++ library, which makes them, is not built" in Full().on(40).explain()
    with pytest.raises(gf.GraphformerError, match=r"^estimate: backend must be able to run .*its C\+\+ library"):
        gf.estimate(Full(), 40, backend="native")


LAYER, RELATED = gf.nn.GraphAttention(1, 8), gf.nn.GraphAttention(1, 8, num_relations=2)
REFUSALS: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "what": (("Full()", 3), {}, "what must be a pattern, an attention graph or a model; got str. Read"),
    "no nodes": ((Full(),), {}, "nodes must be given with a pattern; got None."),
    "nodes of a graph": ((Full().on(3), 3), {}, "nodes must be left out for a graph, which has its own; got int"),
    "pattern": ((Full(), 3), {"pattern": Full()}, "pattern must be given only with a model; got Full()"),
    "heads": ((Full(), 3), {"heads": 0}, "heads must be at least 1; got 0"),
    "width": ((Full(), 3), {"width": 2.0}, "width must be an integer; got 2.0"),
    "score": ((Full(), 3), {"score": "dott"}, "score must be one of dot, additive; got 'dott'. Did you mean dot?"),
    "terms": ((Full(), 3), {"terms": ["bais"]}, "terms must be one of bias, relation_bias,"),
    "relations": ((Full(), 3), {"terms": ["relation_key"]}, "terms must name relations where pairs carry some"),
    "edge_dim": (
        (Full(), 3),
        {"edge_dim": 2},
        "edge_dim must come with edge_key or edge_value, and they with it; got 2",
    ),
    "no edge_dim": ((Full(), 3), {"terms": ["edge_key"]}, "edge_dim must come with edge_key or edge_value"),
    "dtype": ((Full(), 3), {"dtype": torch.int64}, "dtype must be a floating torch dtype; got torch.int64"),
    "backend": (
        (Full(), 3),
        {"backend": "nativ"},
        "backend must be one of auto, native, sdpa, triton, reference; got 'nativ'",
    ),
    "no layers": ((torch.nn.Linear(1, 1), 3), {"pattern": Full()}, "what must hold attention layers; got Linear"),
    "no pattern": ((LAYER, 3), {}, "pattern must be a pattern where GraphAttention names none; got NoneType"),
    "heads of a model": ((LAYER, 3), {"heads": 4}, "heads must be left out for a model, which has its own; got 4"),
    "relations of a model": ((RELATED, 3), {"pattern": Full()}, "pattern must carry 1 to 2 relations"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    arguments, named, message = REFUSALS[name]
    with pytest.raises(gf.GraphformerError, match=re.escape(f"estimate: {message}")):
        gf.estimate(*arguments, **named)


def test_nodes_are_refused_by_the_pattern() -> None:
    with pytest.raises(gf.GraphformerError, match=r"^Full\(\): nodes must be a count, a Grid, a list of these"):
        gf.estimate(Full(), "3")
