"""What patterns hold while they are laid out and attended over, where their pairs are what they are."""

from __future__ import annotations

import pytest
import torch
from cost_measures import peak_bytes
from torch_geometric.data import Data

from graphformer import attend
from graphformer._library import LIBRARY
from graphformer.graphs import AttentionGraph
from graphformer.patterns import (
    Axial,
    Between,
    Blocks,
    Causal,
    Distance,
    Expander,
    Global,
    Grid,
    Offset2d,
    Pattern,
    Random,
    Strided,
    Tree,
    VirtualNode,
    Window,
)

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the bounds are those of the compiled library")

_NODE = torch.arange(65_536)
_HEAP = Data(parent=torch.where(_NODE == 0, -1, (_NODE - 1) // 2), num_nodes=65_536)
_LINKS = Between({("text", "image"): Random(8), ("image", "image"): Axial(), ("text", "text"): Window(20) & Causal()})
_LISTED = [
    (Axial(), Grid(256, 256)),
    (Axial(0) | Window(2), Grid(256, 256)),
    (Strided(256), 65_536),
    (Strided(128) & Causal() | Window(left=128) & Causal(), 65_536),
    (Window(32, dilation=4), 65_536),
    (Window(4, dilation=2), Grid(256, 256)),
    (Tree(), _HEAP),
]
_LABELLED = [
    (_LINKS, {"text": 32_768, "image": Grid(256, 128)}),
    (Axial().as_relation(0) + Window(3).as_relation(1), Grid(128, 128)),
]


@pytest.mark.parametrize(("pattern", "nodes"), [*_LISTED, *_LABELLED, (VirtualNode(), 65_536), (Expander(8), 65_536)])
def test_attention_holds_pairs_and_nodes_and_nothing_larger(pattern: Pattern, nodes: object) -> None:
    def run() -> AttentionGraph:
        graph = pattern.on(nodes)
        query, key, value = (torch.randn(graph.num_queries, 1, 4, requires_grad=True) for _ in range(3))
        torch.autograd.grad(attend(query, key, value, graph, backend="native").sum(), (query, key, value))
        return graph

    peak, graph = peak_bytes(run)
    # The layouts of both sides take 12 bytes a pair, labels 4.
    assert peak < (48 if graph.num_relations else 36) * graph.num_edges + 1000 * graph.num_queries


@pytest.mark.parametrize(("pattern", "nodes"), _LISTED[:1] + _LISTED[2:3] + _LISTED[4:6])
def test_listing_holds_the_runs_and_the_keys(pattern: Pattern, nodes: object) -> None:
    peak, graph = peak_bytes(lambda: pattern.on(nodes))
    assert graph.query_side.runs is None
    # 16 bytes a run, of which there is one a pair at most, 4 a key, and the lines that the runs come from.
    assert peak < 20 * graph.num_edges + 1500 * graph.num_queries


@pytest.mark.parametrize(
    ("pattern", "nodes"),
    [
        (Window(64).as_relation(Distance(8)), 65_536),
        (Window(64).as_relation(0) | Global(4).as_relation(1), 65_536),
        (Window(64).as_relation(Distance(8)) | Global(4).as_relation(17), 65_536),
        (Blocks((16, 16)).as_relation(Offset2d(7, 7)), Grid(256, 256)),
    ],
    ids=repr,
)
def test_labels_of_runs_are_all_that_is_held_of_a_pair(pattern: Pattern, nodes: object) -> None:
    peak, graph = peak_bytes(lambda: pattern.on(nodes))
    # 4 bytes a pair, what a piece of the pairs takes while a rule is asked, and the runs.
    assert 0 < graph.query_side.num_runs < graph.num_edges / 10
    assert peak < 4 * graph.num_edges + 2**25 + 50 * graph.query_side.num_runs + 200 * graph.num_queries
