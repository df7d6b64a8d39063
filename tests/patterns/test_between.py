"""Node sets of named parts, and patterns between them."""

import pytest
import torch
from pattern_cases import edge_matrix, is_near, mask_mod, predicate
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.transforms import ToSparseTensor

from graphformer import GraphformerError
from graphformer.graphs import AttentionGraph
from graphformer.patterns import (
    Between,
    Causal,
    Edges,
    EdgeType,
    Full,
    Global,
    Grid,
    Hops,
    Random,
    ShortestPath,
    Where,
    Window,
)
from graphformer.patterns.node_sets import read_nodes


def molecule(num_nodes):
    forth = torch.arange(num_nodes - 1)
    return Data(x=torch.zeros(num_nodes, 3), edge_index=torch.stack((forth, forth + 1)), num_nodes=num_nodes)


def relations(pattern, nodes):
    """The matrix [N, M] of relations, -1 where there is no pair."""
    graph = pattern.on(nodes)
    out = torch.full((graph.num_queries, graph.num_keys), -1)
    out[graph.edge_index[1], graph.edge_index[0]] = graph.relation.long()
    assert torch.equal(out >= 0, predicate(pattern, nodes))
    return out


def test_parts_follow_one_another_in_each_set():
    nodes = {"text": [2, 0, 1], "image": [Grid(1, 2), Grid(2, 2), Grid(0, 3)], "tail": [1, 0, 2]}
    sets = read_nodes(nodes, "test")
    assert sets.key_ptr.tolist() == [0, 5, 9, 12]
    assert {name: ids.tolist() for name, ids in sets.part_keys.items()} == {
        "text": [0, 1, 9],
        "image": [2, 3, 5, 6, 7, 8],
        "tail": [4, 10, 11],
    }
    assert sets.key_parts["image"].key_shape.tolist() == [[1, 2], [2, 2], [0, 3]]


def test_links_by_hand():
    pattern = Between(
        {("text", "image"): Full(), ("text", "text"): Causal(), ("image", "image"): Window((0, 1)) - Window(0)}
    )
    expected = torch.tensor(
        [
            [1, -1, -1, -1, -1, -1],
            [1, 1, -1, -1, -1, -1],
            [0, 0, -1, 2, -1, -1],
            [0, 0, 2, -1, -1, -1],
            [0, 0, -1, -1, -1, 2],
            [0, 0, -1, -1, 2, -1],
        ]
    )
    assert torch.equal(relations(pattern, {"text": 2, "image": Grid(2, 2)}), expected)
    assert pattern.num_relations == 3


def test_a_batch_of_dicts_is_a_dict_of_batches():
    pattern = Between({("b", "a"): Full(), ("b", "b"): Window(1)})
    singles = [{"a": 3, "b": Grid(2, 2)}, {"a": 0, "b": Grid(1, 3)}, {"a": 2, "b": Grid(0, 1)}]
    batch = {"a": [3, 0, 2], "b": [Grid(2, 2), Grid(1, 3), Grid(0, 1)]}
    assert pattern.on(singles) == pattern.on(batch)
    assert pattern.on(singles) == AttentionGraph.union([pattern.on(single) for single in singles])


def test_relations_are_those_of_the_links():
    inner = Between({("a", "b"): (Window(0) | Full()).as_relation(7), ("b", "a"): Full()})
    assert inner.num_relations == 2
    assert inner.on({"a": 2, "b": 1}).relation.tolist() == [1, 1, 0, 0]
    assert inner.as_relation(4).on({"a": 2, "b": 1}).relation.unique().tolist() == [4]
    united = inner | Global(1).as_relation(5)
    assert united.on({"a": 2, "b": 1}).relation.tolist() == [5, 5, 1, 5, 1, 0, 0]


def test_copies_stay_copies():
    nodes = {"a": 2, "b": 3}
    doubled = Between({("b", "a"): Full() + Window(0)})
    assert edge_matrix(doubled, nodes)[:2, 2:].tolist() == [[2, 1, 1], [1, 2, 1]]


NESTED = {"a": [4, 0, 3], "b": [Grid(1, 2), Grid(2, 2), Grid(0, 3)], "c": [2, 3, 0]}


@pytest.mark.parametrize("nodes", [NESTED, (NESTED, {name: NESTED[name] for name in "cab"})], ids=["one", "two"])
def test_a_region_reaches_the_links(nodes):
    pattern = Between({("a", "b"): Full() + Causal(), ("b", "b"): Where(is_near), ("c", "a"): Where(mask_mod)})
    for region in (Window(3), ~Causal(), Random(4), Global(2)):
        runs = region.lower(nodes)[0].runs
        graph = pattern.on(nodes, within=runs)
        assert torch.equal(
            edge_matrix(pattern & region, nodes), edge_matrix(pattern, nodes) * edge_matrix(region, nodes)
        )
        assert graph == (pattern & region).on(nodes)
        assert torch.equal(relations(pattern & region, nodes) >= 0, edge_matrix(region & pattern, nodes) > 0)


def test_a_formula_between_parts_is_asked_about_the_rest_only():
    asked = []

    def rule(query, key):
        asked.append(query.numel())
        return query >= key

    nodes = {"a": [20, 7], "b": [15, 3]}
    pattern = Between({("a", "a"): Where(rule), ("b", "a"): Where(rule)})
    for composed in (pattern & Window(2), Window(2) & pattern, Window(2) - pattern):
        asked.clear()
        assert torch.equal(edge_matrix(composed, nodes) > 0, predicate(composed, nodes))
        asked.clear()
        composed.count(nodes)
        assert 0 < sum(asked) <= Window(2).count(nodes)


def test_two_sides_with_parts():
    pattern = Between({("text", "text"): Causal(), ("image", "text"): Full()})
    keys, queries = {"image": Grid(1, 2), "text": 3}, {"text": 2, "audio": 1}
    expected = [[1, 1, 0, -1, -1], [1, 1, 0, 0, -1], [-1, -1, -1, -1, -1]]
    assert relations(pattern, (keys, queries)).tolist() == expected


def test_other_patterns_see_one_set():
    nodes = {"text": [2, 1], "image": [Grid(2, 2), Grid(1, 3)]}
    for pattern in (Full(), Window(1), Causal() | Global(1), ~Causal()):
        assert pattern.on(nodes) == pattern.on([6, 4])


# ---------------------------------------------------------------- parts with edges


PAIRS = Between({("left", "left"): Edges(), ("right", "right"): Edges(self_loops=True), ("left", "right"): Full()})


def test_own_edges_are_set_by_set_and_part_by_part():
    nodes = {"left": Batch.from_data_list([molecule(3), molecule(2)]), "right": Batch.from_data_list([molecule(2)] * 2)}
    graph = PAIRS.on(nodes)
    assert graph.num_own_edges == 5
    #   set 0: left 0 1 2, right 3 4;   set 1: left 5 6, right 7 8
    assert read_nodes(nodes, "test").edge_index.tolist() == [[0, 1, 3, 5, 7], [1, 2, 4, 6, 8]]
    key, query = graph.edge_index
    kept = graph.own_edge >= 0
    assert graph.own_edge[kept].tolist() == [0, 1, 2, 3, 4]
    assert torch.stack((key, query))[:, kept].tolist() == [[0, 1, 3, 5, 7], [1, 2, 4, 6, 8]]
    assert graph.relation[kept].tolist() == [0, 0, 1, 0, 1]
    assert Edges().on(nodes).edge_index.tolist() == [[0, 1, 3, 5, 7], [1, 2, 4, 6, 8]]


def test_hops_inside_a_part():
    pattern = Between({("chain", "chain"): Hops(2), ("text", "chain"): Full()})
    expected = [[-1, -1, -1, -1], [1, 0, -1, -1], [1, 0, 0, -1], [1, 0, 0, 0]]
    assert relations(pattern, {"text": 1, "chain": molecule(3)}).tolist() == expected


def hetero(num_text, num_atoms):
    data = HeteroData()
    data["text"].x = torch.zeros(num_text, 2)
    data["atom"].x = torch.zeros(num_atoms, 3)
    data["atom", "bond", "atom"].edge_index = molecule(num_atoms).edge_index
    data["text", "names", "atom"].edge_index = torch.tensor([[0, num_text - 1], [1, 0]])
    data["atom", "ring", "atom"].edge_index = torch.tensor([[num_atoms - 1], [0]])
    data["atom", "in", "text"].edge_index = torch.tensor([[0, 1, 1], [0, 0, 0]])
    return data


SAMPLES = [hetero(2, 3), hetero(1, 4), hetero(3, 2)]


def test_hetero_data_is_a_set_of_parts():
    pattern = Between({("text", "text"): Full(), ("atom", "atom"): Edges()})
    graph = pattern.on(SAMPLES[0])
    joint = Data(num_nodes=3, edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]))
    same = pattern.on({"text": 2, "atom": joint})
    assert torch.equal(graph.edge_index, same.edge_index)
    assert torch.equal(graph.relation, same.relation)
    assert graph.own_edge.tolist() == [-1, -1, -1, -1, 4, 0, 1]  # of all edges, type by type


def test_a_link_has_the_edges_between_its_parts():
    pattern = Between({("text", "atom"): Edges(), ("atom", "text"): Edges() + Full()})
    graph = pattern.on(SAMPLES[0])
    assert graph.edge_index.tolist() == [[2, 2, 3, 3, 3, 4, 2, 3, 4, 1, 0], [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3]]
    assert graph.own_edge.tolist() == [5, -1, 6, 7, -1, -1, -1, -1, -1, 3, 2]
    assert graph.relation.tolist() == [1] * 9 + [0] * 2
    assert graph.num_own_edges == 8
    assert torch.equal(edge_matrix(pattern, SAMPLES[0]) > 0, predicate(pattern, SAMPLES[0]))


def test_edges_of_hetero_data_are_those_of_the_homogeneous_graph():
    data = SAMPLES[1]
    same = data.to_homogeneous()
    graph, expected = (Edges().as_relation(EdgeType(4)).on(nodes) for nodes in (data, same))
    assert graph == expected
    assert graph.num_edges == 3 + 2 + 1 + 3
    links = Between({("text", "atom"): Edges(), ("atom", "atom"): Edges(), ("atom", "text"): Edges()})
    assert links.as_relation(EdgeType(4)).on(data) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        Between({("text", "text"): Full(), ("text", "atom"): Edges(), ("atom", "atom"): Edges(self_loops=True)}),
        Edges().as_relation(EdgeType(4)),
        (Edges() | Full()).as_relation(ShortestPath(2)),
        Hops(2),
    ],
    ids=repr,
)
def test_a_batch_of_hetero_data_is_the_union_of_its_samples(pattern):
    batch = Batch.from_data_list(SAMPLES)
    assert pattern.on(batch) == AttentionGraph.union([pattern.on(sample) for sample in SAMPLES])


def test_edge_types_may_hold_types_of_their_own():
    data = hetero(2, 3)
    for number, kind in enumerate(data.edge_types):
        data[kind].edge_type = torch.arange(data[kind].num_edges) + number
    graph = Edges().as_relation(EdgeType(6)).on(data)
    assert graph.relation[graph.own_edge.argsort()].tolist() == [0, 1, 1, 2, 2, 3, 4, 5]
    parts = {name: Data(num_nodes=2, edge_index=torch.tensor([[0], [1]]), edge_type=torch.tensor([1])) for name in "ab"}
    assert (Edges() | Full()).as_relation(EdgeType(2)).on(parts).relation.tolist().count(1) == 2
    del data["atom", "ring", "atom"].edge_type
    with pytest.raises(GraphformerError, match=r"nodes\[\('atom', 'ring', 'atom'\)\].edge_type must be a tensor; got"):
        Edges().as_relation(EdgeType(6)).on(data)
    with pytest.raises(GraphformerError, match=r"bond', 'atom'\)\].edge_type must lie in \[0, 1\); got 1. Raise"):
        Edges().as_relation(EdgeType(1)).on(data)
    with pytest.raises(GraphformerError, match=r"nodes\[\('a', 'a'\)\].kind must be a tensor; got NoneType"):
        Edges().as_relation(EdgeType(2, "kind")).on(parts)


def test_edge_types_are_numbered_within_their_number():
    with pytest.raises(GraphformerError, match=r"in', 'text'\)\].edge_type must lie in \[0, 3\); got 3. Raise"):
        Edges().as_relation(EdgeType(3)).on(SAMPLES[0])


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_adjacencies_are_read(layout):
    to_sparse = ToSparseTensor(attr=None, layout=layout)
    batch = Batch.from_data_list([hetero(2, 3), hetero(1, 4)])
    batch["atom", "in", "text"].edge_index = batch["atom", "in", "text"].edge_index.unique(
        dim=1
    )  # as the transform does
    sparse = to_sparse(batch)
    assert "edge_index" not in sparse["atom", "bond", "atom"]
    for pattern in (Edges().as_relation(EdgeType(4)), Between({("atom", "text"): Edges()}), Hops(2)):
        assert torch.equal(pattern.on(sparse).edge_index, pattern.on(batch).edge_index)
    edge_index = torch.tensor([[3, 0, 2, 1], [0, 2, 0, 1]])
    data = to_sparse(Data(edge_index=edge_index, edge_attr=edge_index[0].clone(), num_nodes=4))
    graph = Edges().on(data)
    assert torch.equal(data.edge_attr[graph.own_edge], graph.edge_index[0])


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Between({}), r"Between: links must hold at least one link; got none. For example Between\("),
        (lambda: Between([]), "Between: links must hold at least one link; got list"),
        (lambda: Between({"text": Full()}), r"links must go from pairs \(source, target\) of names; got 'text'"),
        (lambda: Between({("a", "b", "c"): Full()}), r"of names; got \('a', 'b', 'c'\)"),
        (lambda: Between({("a", 1): Full()}), r"of names; got \('a', 1\)"),
        (lambda: Between({("a", "b"): 3}), r"links must give a pattern to \('a', 'b'\); got int"),
    ],
)
def test_links_are_refused(make, message):
    with pytest.raises(GraphformerError, match=message):
        make()


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (5, "nodes must be a dict of named parts; got nodes without parts. For example"),
        (({"text": 3}, 4), "nodes must be a dict of named parts; got nodes without parts"),
        ({"txt": 3}, "source must be one of txt; got 'text'. Did you mean txt"),
        (({"text": 3}, {"image": 3}), "target must be one of image; got 'text'"),
        ({}, "nodes must name at least one part, by strings; got no part"),
        ({1: 3}, r"nodes must name at least one part, by strings; got \[1\]"),
        ({"text": {"a": 3}}, r"nodes\['text'\] must be one kind of nodes; got dict. For example"),
        ({"text": (3, 4)}, r"nodes\['text'\] must be one kind of nodes; got tuple"),
        ({"text": [3, 2], "image": 4}, "hold as many sets in all parts; got {'text': 2, 'image': 1}. Give each part"),
        ([{"text": 3}, {"image": 3}], r"have the same parts in all sets, in one order: \['text'\]; got \['image'\]"),
        ([{"text": 3, "a": 1}, {"a": 1, "text": 3}], "in one order.* A part that is missing has 0 nodes"),
        ([{"text": 3}, 4], r"in one order: \['text'\]; got int"),
        ([4, {"text": 3}], "in one order: None; got int"),
        ({"text": -1}, "nodes must count nodes with integers, 0 or more; got -1"),
    ],
    ids=str,
)
def test_nodes_are_refused(nodes, message):
    with pytest.raises(GraphformerError, match=r"^Between\(\{\('text', 'text'\): Full\(\)\}\): " + ".*" + message):
        Between({("text", "text"): Full()}).on(nodes)


def test_edges_need_a_part_that_has_some():
    with pytest.raises(GraphformerError, match="nodes must have a part that holds edge_index; got no edges. Pass PyG"):
        Edges().on({"text": 3, "image": Grid(2, 2)})
    with pytest.raises(GraphformerError, match=r"nodes must hold edge_index; got no edges"):
        Between({("text", "text"): Edges()}).on({"text": 3, "atom": molecule(2)})
    with pytest.raises(GraphformerError, match=r"be one node set with edges; got a \(keys, queries\) tuple, or two"):
        Between({("text", "atom"): Edges()}).on({"text": 3, "atom": molecule(2)})


def test_edges_between_parts_are_checked_by_type():
    data = hetero(2, 3)
    data["text", "names", "atom"].edge_index = torch.tensor([[0], [3]])
    with pytest.raises(
        GraphformerError, match=r"edge_index of \('text', 'names', 'atom'\) must hold ids in \[0, 3\); got 3. Correct"
    ):
        Between({("text", "atom"): Edges()}).on(data)
    Between({("atom", "text"): Full()}).on(data)
    data = hetero(2, 3)
    data["atom", "of", "nothing"].edge_index = torch.tensor([[0], [0]])
    with pytest.raises(
        GraphformerError,
        match=r"edges \('atom', 'of', 'nothing'\) must join parts that the nodes hold; got .* of type 'nothing', or",
    ):
        Edges().on(data)


def test_what_walks_along_edges_needs_one_node_set():
    walks = [Edges(self_loops=True), Hops(1), Edges() & Hops(2)]
    for pattern in walks:
        with pytest.raises(GraphformerError, match="nodes must be one node set; got keys and queries of"):
            Between({("text", "atom"): pattern}).on(SAMPLES[0])
        with pytest.raises(GraphformerError, match="Between two node sets Edges"):
            predicate(Between({("text", "atom"): pattern}), SAMPLES[0])
