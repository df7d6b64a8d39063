"""Graphs held as runs: the same bits as of their listed pairs, which are never made."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from graphformer import attend
from graphformer.graphs import AttentionGraph
from graphformer.graphs.layout import Layout
from graphformer.graphs.runs import KeyRuns
from graphformer.graphs.side import Side
from graphformer.kernels import Additive, native
from graphformer.patterns import (
    Axial,
    Between,
    BigBird,
    Blocks,
    Causal,
    Distance,
    Full,
    Global,
    Grid,
    Hops,
    Longformer,
    Offset2d,
    Pattern,
    Random,
    ShiftedWindows,
    Strided,
    Tree,
    VirtualNode,
    Window,
)

pytestmark = pytest.mark.skipif(native.LIBRARY is None, reason="the library is not built")


_NODE = torch.arange(65_536)
_PATH = Data(edge_index=torch.stack((_NODE[:-1], _NODE[1:])), parent=_NODE - 1, num_nodes=65_536)


def _refuse(self: Side) -> Layout:
    raise AssertionError("pairs were enumerated")


@st.composite
def masks(draw: st.DrawFn) -> torch.Tensor:
    """Rows of runs: some empty, some full, some of many runs, some long enough to span blocks."""
    queries, keys = draw(st.integers(1, 70)), draw(st.integers(1, 190))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    flips = torch.rand(queries, keys, generator=generator) < draw(st.sampled_from((0.02, 0.1, 0.5)))
    mask = flips.cumsum(1) % 2 == 1
    mask[torch.rand(queries, generator=generator) < 0.1] = False
    mask[torch.rand(queries, generator=generator) < 0.1] = True
    return mask


def _runs(mask: torch.Tensor) -> KeyRuns:
    query, key = mask.nonzero().unbind(1)
    return KeyRuns.from_pairs(query, key, *mask.shape)


@pytest.mark.parametrize("option", ["plain", "bias", "relation", "edge_attr", "dropout", "additive", "relu", "half"])
@settings(max_examples=20, deadline=None)
@given(mask=masks())
def test_runs_give_the_bits_of_their_pairs(option: str, mask: torch.Tensor) -> None:
    listed, runs = AttentionGraph.from_dense(mask), _runs(mask)
    num_edges, heads = listed.num_edges, 3
    torch.manual_seed(0)
    query = torch.randn(mask.shape[0], heads, 5)
    key, value = torch.randn(2, mask.shape[1], heads, 5)
    more: dict[str, object] = {}
    relation, num_relations = None, 0
    if option == "bias":
        more["bias"] = torch.randn(num_edges, heads).masked_fill(torch.rand(num_edges, heads) < 0.1, -torch.inf)
    elif option == "relation":
        relation, num_relations = torch.randint(4, (num_edges,), dtype=torch.int32), 4
        more = {"relation_bias": torch.randn(4, heads), "relation_key": torch.randn(4, heads, 5)}
    elif option == "edge_attr":
        more = {"edge_attr": torch.randn(num_edges, 2), "edge_key": torch.randn(2, heads, 5)}
        more["edge_value"] = torch.randn(2, heads, 5)
    elif option == "dropout":
        more = {"dropout": 0.4, "seed": 7}
    elif option == "additive":
        more["score"] = Additive(torch.randn(heads, 5))
    elif option == "relu":
        more["normalizer"] = "relu"
    elif option == "half":
        query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()

    results = []
    for by_query in (listed.by_query, runs):
        graph = AttentionGraph(by_query, mask.shape[1], relation=relation, num_relations=num_relations)
        inputs = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
        terms = {k: v.clone().requires_grad_() if isinstance(v, torch.Tensor) else v for k, v in more.items()}
        with pytest.MonkeyPatch.context() as patch:
            if by_query is runs:
                patch.setattr(Side, "layout", property(_refuse))
                patch.setattr(KeyRuns, "are_few", lambda self, num_pairs: True)
            out = attend(*inputs, graph, **terms, backend="native")
            leaves = [*inputs, *(t for t in terms.values() if isinstance(t, torch.Tensor))]
            results.append((out, *torch.autograd.grad(out.square().sum(), leaves, allow_unused=True)))
    for mine, other in zip(*results, strict=True):
        assert (mine is None) == (other is None)
        assert mine is None or torch.equal(mine, other)


def check_that_no_pairs_are_listed(pattern: Pattern, nodes: object, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = pattern.on(nodes)
    monkeypatch.setattr(Side, "layout", property(_refuse))
    query, key, value = (torch.randn(graph.num_queries, 1, 4, requires_grad=True) for _ in range(3))
    table = torch.randn(graph.num_relations, 1) if graph.num_relations else None
    out = attend(query, key, value, graph, relation_bias=table, backend="native")
    grads = torch.autograd.grad(out.sum(), (query, key, value))
    assert all(tensor.isfinite().all() for tensor in (out, *grads))
    # Weights of a row add up to one, so that the values' gradients add up to the rows that have keys.
    assert torch.isclose(grads[2].sum(), (graph.degree > 0).sum() * 4.0, rtol=1e-4)


@pytest.mark.parametrize(
    ("pattern", "nodes"),
    [
        (Window(64), 1_000_000),
        (Full(), [26] * 2500),
        (Full(), 8192),
        (Causal() & Window(100), 65_536),
        (Blocks(64), 65_536),
        (Global(3), 65_536),
        (Window(64) | Global(4) | Random(3, seed=0), 65_536),
        (~Blocks(65_000), 65_536),
        (Full() - Window(60), [100] * 650),
        (Window(2, border="shift"), Grid(256, 256)),
        (ShiftedWindows((16, 16)), Grid(256, 256)),
        (Longformer(64, 4), 65_536),
        (BigBird(64, 4, 3, seed=1), 65_536),
        (VirtualNode(8), 65_536),
        (Axial(1), Grid(256, 256)),
        (Window(2, border="wrap"), Grid(16, 64, 64)),
        (Hops(12), _PATH),
        (Tree(up=20, down=0), _PATH),
        (~Random(40), 12_000),
        (~Strided(64), 8192),
        (Full() - Axial(), Grid(128, 64)),
        (Window(64).as_relation(Distance(8)), 65_536),
        (Window(20).as_relation(0) | Global(4).as_relation(1) | Random(3).as_relation(2), 65_536),
        (ShiftedWindows((8, 8)).as_relation(Offset2d(7, 7)), Grid(256, 256)),
        (Blocks(64).as_relation(1) + (Window(9) - Blocks(64)).as_relation(Distance(9)), 65_536),
        (Between({("a", "a"): Causal() & Window(40), ("b", "a"): Global(2)}), {"a": 20_000, "b": 30_000}),
    ],
    ids=repr,
)
def test_structured_patterns_never_list_their_pairs(
    pattern: Pattern, nodes: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_that_no_pairs_are_listed(pattern, nodes, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [Full(), Causal(), Tree()], ids=repr)
def test_billions_of_pairs_are_not_listed(pattern: Pattern, loops: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if loops == "rows":
        pytest.skip("two to four billion pairs take minutes row by row")
    check_that_no_pairs_are_listed(pattern, _PATH, monkeypatch)


def test_compiled_calls_take_unprepared_runs() -> None:
    graph, again = Window(10).on(60), Window(10).on(60)
    x = torch.randn(60, 2, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(graph.num_edges, 2, dtype=torch.float64)
    compiled = torch.compile(lambda x, g: attend(x, x, x, g, bias=bias), backend="eager", fullgraph=True)
    outs = compiled(x, graph), attend(x, x, x, again, bias=bias)
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*(torch.autograd.grad(out.square().sum(), x)[0] for out in outs))


@pytest.mark.parametrize("runs_by_key", [True, False])
def test_one_side_may_be_listed(runs_by_key: bool) -> None:
    start = torch.arange(300) % 97 * 3 if not runs_by_key else torch.zeros(300, dtype=torch.int64)
    runs = KeyRuns.from_ranges(start, start + 6, 400)
    graph = AttentionGraph(runs, 400)
    assert (graph.key_side.runs is not None) == runs_by_key
    listed = AttentionGraph(graph.by_query, 400)
    torch.manual_seed(0)
    tensors = [torch.randn(size, 2, 3, requires_grad=True) for size in (300, 400, 400)]
    grads = []
    for made in (graph, listed):
        grads.append(torch.autograd.grad(attend(*tensors, made, dropout=0.3, seed=5).sum(), tensors))
    assert all(torch.equal(*pair) for pair in zip(*grads, strict=True))
