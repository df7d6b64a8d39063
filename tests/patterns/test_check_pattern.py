"""The public contract of patterns: ours keep it, and each law sees a pattern that breaks it."""

from dataclasses import dataclass

import networkx
import pytest
import torch
from pattern_cases import corners, is_near, mask_mod
from torch_geometric.data import Batch, Data

from graphformer import GraphformerError
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns import (
    Axial,
    Between,
    BigBird,
    Bipartite,
    Blocks,
    Causal,
    Distance,
    Edges,
    EdgeType,
    Expander,
    Full,
    Global,
    Grid,
    Hops,
    Longformer,
    Nearest,
    NetworkX,
    Offset2d,
    Pairs,
    PairTerm,
    Pattern,
    Random,
    RunTerm,
    ShortestPath,
    Strided,
    Tree,
    VirtualNode,
    Where,
    Window,
    Within,
)
from graphformer.patterns.parse import MEMBERS, RELATIONS, UNWRITTEN
from graphformer.testing import check_pattern

ANYWHERE = [
    BigBird(1, 1, 2, seed=3),
    Blocks(3),
    Causal(),
    Full(),
    Global(2),
    Longformer(2, 1),
    Random(3, seed=1),
    VirtualNode(2),
    Where(is_near),
    Where(mask_mod),
    Pairs(corners),
    Window(1, dilation=2).as_relation(Distance(2)),
    Axial(),
    Strided(2),
]
ON_DATA = [
    Edges(),
    Edges(self_loops=True),
    (Edges() | Full()).as_relation(EdgeType(3)),
    Hops(2).as_relation(ShortestPath(2)),
    Nearest(3),
    Within(1.5).as_relation(Offset2d(1, 2)),
    Tree(up=1),
]


def sample(num_nodes, seed):
    generator = torch.Generator().manual_seed(seed)
    num_edges = 2 * num_nodes if num_nodes else 0
    return Data(
        edge_index=torch.randint(0, max(num_nodes, 1), (2, num_edges), generator=generator),
        edge_type=torch.randint(0, 3, (num_edges,), generator=generator),
        pos=torch.cartesian_prod(torch.arange(num_nodes // 3 or 1), torch.arange(min(num_nodes, 3))),
        parent=torch.arange(num_nodes) // 2 - 1,
        num_nodes=num_nodes,
    )


BATCH = Batch.from_data_list([sample(size, seed) for seed, size in enumerate((6, 1, 9))])


@pytest.mark.parametrize("pattern", [*ANYWHERE, Expander(2, seed=4)], ids=repr)
def test_ours_keep_the_laws(pattern):
    check_pattern(pattern)
    check_pattern(pattern, nodes=7)


@pytest.mark.parametrize("pattern", [*ANYWHERE, Bipartite()], ids=repr)
def test_ours_keep_the_laws_between_two_node_sets(pattern):
    check_pattern(pattern, nodes=([5, 0, 3, 9], [4, 2, 0, 7]))


@pytest.mark.parametrize("pattern", [*ANYWHERE, *ON_DATA, Expander(2)], ids=repr)
def test_ours_keep_the_laws_on_data(pattern):
    check_pattern(pattern, nodes=BATCH)


def test_a_pattern_of_two_sets_only_is_tried_on_these():
    check_pattern(Bipartite())
    with pytest.raises(GraphformerError, match="Nearest.*nodes must hold pos"):
        check_pattern(Nearest(2))


def test_a_networkx_graph_keeps_the_laws():
    check_pattern(NetworkX(networkx.path_graph(4)), nodes=[4, 4, 4])


def test_links_between_parts_keep_the_laws():
    pattern = Between({("text", "image"): Full(), ("text", "text"): Causal(), ("image", "image"): Window(1)})
    check_pattern(pattern, nodes=[{"text": 3, "image": Grid(2, 3)}, {"text": 0, "image": Grid(1, 4)}])


def test_no_member_is_left_out():
    tested = " ".join(map(repr, [*ANYWHERE, *ON_DATA, Bipartite(), Expander(2)]))
    for name in {*MEMBERS, *RELATIONS, *UNWRITTEN} - {"Between", "BigBird", "Longformer", "NetworkX", "ShiftedWindows"}:
        assert f"{name}(" in tested


@dataclass(frozen=True, repr=False)
class Broken(Pattern):
    """Full attention, but for one fault."""

    fault: str

    def _lower(self, sets):
        runs = sets.runs(0, sets.set_keys)
        if self.fault == "view":
            runs = sets.runs(1, sets.set_keys)
        if self.fault == "across":
            runs = KeyRuns.from_ranges(0 * sets.key_start, 0 * sets.key_start + sets.num_keys, sets.num_keys)
        if self.fault == "union" and sets.key_ptr.numel() > 2:
            runs = sets.runs(0, 1)
        kinds = 1 + (self.fault == "terms" and sets.num_queries > 3)
        empty = sets.runs(0, 0)
        return [RunTerm(runs), *[RunTerm(empty)] * (kinds - 1)]

    def _allows(self, sets, query, key):
        if self.fault == "union" and sets.key_ptr.numel() > 2:
            return sets.local_key[key] == 0
        return torch.ones_like(query, dtype=torch.bool)

    def __eq__(self, other):
        return self.fault != "equality" and type(other) is type(self)

    def __hash__(self):
        return 1


@dataclass(frozen=True, repr=False)
class Mirror(Pattern):
    """The key as far from the end as the query from the front; wrong where keys are not the queries."""

    def _lower(self, sets):
        key = sets.query_ptr[sets.query_set] + sets.set_queries - 1 - sets.local_query
        return [RunTerm(KeyRuns.from_ranges(key, key + 1, sets.num_keys))]

    def _allows(self, sets, query, key):
        return sets.local_key[key] == sets.set_queries[query] - 1 - sets.local_query[query]


def test_by_default_a_pattern_is_laid_between_two_sets_too():
    check_pattern(Mirror(), nodes=[0, 1, 2, 5, 12])
    with pytest.raises(AssertionError, match=r"Mirror\(\) breaks a law: pairs stay inside their sets; see query 4"):
        check_pattern(Mirror())


@dataclass(frozen=True, repr=False)
class Numbered(Edges):
    """The data's edges, with a fault in which edge each pair is."""

    shift: int = 0
    flipped: bool = False

    def _lower(self, sets):
        (term,) = super()._lower(sets)
        own_edge = term.own_edge.flip(0) if self.flipped else term.own_edge + self.shift
        return [PairTerm(term.query, term.key, own_edge)]


@pytest.mark.parametrize(
    ("pattern", "law"),
    [
        (Numbered(flipped=True), r"a pair that is an own edge has the ends of that edge; see key and query \[\d, \d\]"),
        (Numbered(shift=1), r"own edges are edges of the node set; see \(1, 12\)"),
        (Numbered(shift=-2), r"own edges are edges of the node set; see \(-2, 9\)"),
    ],
    ids=repr,
)
def test_a_pattern_that_confuses_edges_is_found_out(pattern, law):
    check_pattern(Numbered(), nodes=sample(6, 0))
    with pytest.raises(AssertionError, match=law):
        check_pattern(pattern, nodes=sample(6, 0))


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("view", "the predicate view is the edge view; see query"),
        ("across", "pairs stay inside their sets; see query 0, key 2"),
        ("union", "the graph of a batch is the union of the graphs of its sets"),
        ("terms", "the terms are of the same kinds over all node sets"),
        ("equality", "equal patterns have equal hashes"),
    ],
)
def test_a_broken_pattern_is_found_out(fault, law):
    check_pattern(Broken("none"), nodes=[2, 5])
    with pytest.raises(AssertionError, match=rf"Broken\(fault='{fault}'\) breaks a law: {law}"):
        check_pattern(Broken(fault), nodes=[2, 5])
