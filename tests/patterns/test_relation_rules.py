"""Rules that give each pair its relation, against plain formulas."""

from dataclasses import dataclass

import networkx
import pytest
import torch
from pattern_cases import edge_matrix
from torch_geometric.data import Batch, Data

from graphformer import GraphformerError
from graphformer.graphs import runs
from graphformer.patterns import (
    Blocks,
    Causal,
    Distance,
    Edges,
    EdgeType,
    Full,
    Global,
    Grid,
    Offset2d,
    Relation,
    ShortestPath,
    Where,
    Window,
)


def table(pattern, nodes, fill=-1):
    """The relation of each pair as a matrix [N, M]."""
    graph = pattern.on(nodes)
    out = torch.full((graph.num_queries, graph.num_keys), fill)
    out[graph.edge_index[1], graph.edge_index[0]] = graph.relation.long()
    return out


# ---------------------------------------------------------------- distance


@pytest.mark.parametrize("clip", [0, 1, 3, 99])
@pytest.mark.parametrize("nodes", [7, (5, 9), (9, 4)], ids=str)
def test_distance(clip, nodes):
    num_keys, num_queries = nodes if isinstance(nodes, tuple) else (nodes, nodes)
    expected = (torch.arange(num_keys) - torch.arange(num_queries)[:, None]).clamp(-clip, clip) + clip
    pattern = Full().as_relation(Distance(clip))
    assert pattern.num_relations == 2 * clip + 1
    assert torch.equal(table(pattern, nodes), expected)


def test_distance_counts_from_the_start_of_each_set():
    single = table(Full().as_relation(Distance(2)), 4)
    expected = torch.block_diag(single + 1, single + 1) - 1
    assert torch.equal(table(Full().as_relation(Distance(2)), [4, 4]), expected)


def test_rules_and_numbers_share_a_table():
    pattern = Global(1).as_relation(7) | Window(1).as_relation(Distance(1))
    assert pattern.num_relations == 8
    assert table(pattern, 4).tolist() == [[7, 7, 7, 7], [7, 1, 2, -1], [7, 0, 1, 2], [7, -1, 0, 1]]
    same = Window(1).as_relation(Distance(1)) | Causal().as_relation(Distance(1))
    assert len(same.lower(4)) == 1  # one rule: the terms are one
    assert torch.equal(table(same, 4), table((Window(1) | Causal()).as_relation(Distance(1)), 4))


def test_copies_have_the_relation_of_their_own_term():
    graph = (Window(0).as_relation(Distance(2)) + Window(0).as_relation(0)).on(2)
    assert graph.relation.tolist() == [2, 0, 2, 0]


@pytest.mark.parametrize("piece", [1, 7, 2**18])
def test_rules_over_runs_are_asked_piece_by_piece(piece, monkeypatch):
    """Three kinds of labels on pairs that alternate within a row, against one question about all pairs."""
    monkeypatch.setattr(runs, "_PIECE", piece)
    kinds = [Blocks(2).as_relation(Distance(1)), Window(4).as_relation(5), Full().as_relation(Distance(9))]
    pattern = kinds[0] | kinds[1] | kinds[2]
    nodes = [11, 0, 14]
    graph = pattern.on(nodes)
    assert graph.query_side.runs is not None
    local = torch.cat([torch.arange(length) for length in nodes])
    apart = local - local[:, None]
    expected = (apart.clamp(-9, 9) + 9).masked_fill(apart.abs() <= 4, 5)
    expected = torch.where(local // 2 == local[:, None] // 2, apart + 1, expected)
    key, query = graph.edge_index
    assert graph.num_edges == 11**2 + 14**2
    assert torch.equal(graph.relation, expected[query, key].int())
    assert graph.num_relations == 19


def test_a_rule_over_a_formula():
    pattern = Where(lambda query, key: query > key).as_relation(Distance(1)) & Window(2)
    assert table(pattern, 3).tolist() == [[-1, -1, -1], [0, -1, -1], [0, 0, -1]]


# ---------------------------------------------------------------- grids


def grid(height, width):
    pos = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    return Data(pos=pos, num_nodes=height * width)


def test_offsets_on_a_grid_that_is_no_square():
    height, width, ry, rx = 3, 5, 1, 3
    found = table(Full().as_relation(Offset2d(ry, rx)), grid(height, width)).view(height, width, height, width)
    for y, x, y2, x2 in [(0, 0, 2, 4), (2, 4, 0, 0), (1, 1, 1, 3), (0, 2, 1, 0), (2, 0, 2, 0)]:
        dy, dx = max(-ry, min(ry, y2 - y)), max(-rx, min(rx, x2 - x))
        assert int(found[y, x, y2, x2]) == (dy + ry) * (2 * rx + 1) + dx + rx
    assert Full().as_relation(Offset2d(ry, rx)).num_relations == 21
    assert found.unique().numel() == 21


def test_offsets_between_two_grids():
    found = table(Full().as_relation(Offset2d(1, 2)), (grid(2, 3), grid(1, 2)))
    assert found.tolist() == [[7, 8, 9, 12, 13, 14], [6, 7, 8, 11, 12, 13]]


# ---------------------------------------------------------------- shortest paths


def graph_data(edges, num_nodes):
    return Data(edge_index=torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).t(), num_nodes=num_nodes)


def hops(data, most):
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(data.num_nodes))
    graph.add_edges_from(data.edge_index.t().tolist())
    out = torch.full((data.num_nodes, data.num_nodes), most + 1)
    for key, reached in networkx.all_pairs_shortest_path_length(graph):
        for query, distance in reached.items():
            out[query, key] = min(distance, most)
    return out


@pytest.mark.parametrize("most", [0, 1, 2, 5, 100])
@pytest.mark.parametrize("undirected", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_shortest_paths(most, undirected, seed):
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(0, 25, (2, 30), generator=generator)
    data = Data(edge_index=torch.cat((edge_index, edge_index.flip(0)), 1) if undirected else edge_index, num_nodes=25)
    pattern = Full().as_relation(ShortestPath(most))
    assert pattern.num_relations == most + 2
    expected = hops(data, most)
    assert torch.equal(table(pattern, data), expected)
    some = table(Window(3).as_relation(ShortestPath(most)), data)
    assert torch.equal(some[some >= 0], expected[edge_matrix(Window(3), data) == 1])


def test_far_and_unreachable_are_told_apart_on_a_one_way_path():
    path = graph_data([(0, 1), (1, 2), (2, 3), (3, 4)], 6)
    found = table(Full().as_relation(ShortestPath(2)), path)
    assert found[4].tolist() == [2, 2, 2, 1, 0, 3]
    assert found[0].tolist() == [0, 3, 3, 3, 3, 3]


def test_shortest_paths_in_chunks(monkeypatch):
    path = graph_data([(i, i + 1) for i in range(30)] + [(i + 1, i) for i in range(30)], 31)
    whole = table(Full().as_relation(ShortestPath(40)), path)
    monkeypatch.setattr("graphformer.patterns.hops._CHUNK", 70)
    assert torch.equal(table(Full().as_relation(ShortestPath(40)), path), whole)
    assert torch.equal(whole, (torch.arange(31) - torch.arange(31)[:, None]).abs())


def test_shortest_paths_of_a_batch_without_and_with_edges():
    samples = [graph_data([(0, 1)], 2), graph_data([], 1), graph_data([(1, 0), (0, 1)], 3)]
    found = table(Full().as_relation(ShortestPath(3)), Batch.from_data_list(samples))
    assert found[:2, :2].tolist() == [[0, 4], [1, 0]]
    assert found[2:3, 2:3].tolist() == [[0]]
    assert found[3:, 3:].tolist() == [[0, 1, 4], [1, 0, 4], [4, 4, 0]]


# ---------------------------------------------------------------- types of edges


def typed(**other):
    data = graph_data([(0, 1), (1, 0), (2, 1), (0, 1)], 3)
    return data.update(other)


def test_edge_types_and_the_rest():
    data = typed(edge_type=torch.tensor([2, 0, 1, 1], dtype=torch.int16))
    pattern = (Edges() | Full()).as_relation(EdgeType(3))
    assert pattern.num_relations == 4
    graph = pattern.on(data)
    assert graph.edge_index.tolist() == [[0, 1, 2, 0, 0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]]
    assert graph.relation.tolist() == [3, 0, 3, 2, 1, 3, 1, 3, 3, 3]
    assert (Edges() & Causal()).as_relation(EdgeType(3)).on(data).relation.tolist() == [2, 1]


def test_edge_types_by_another_name_and_in_a_batch():
    sample = typed(bond=torch.tensor([2, 0, 1, 1]))
    pattern = Edges().as_relation(EdgeType(3, attribute="bond"))
    batch = Batch.from_data_list([sample, sample])
    assert pattern.on(batch).relation.tolist() == pattern.on(sample).relation.tolist() * 2


# ---------------------------------------------------------------- a rule of one's own, pictures, refusals


@dataclass(frozen=True)
class Parity(Relation):
    shift: int = 0
    num_relations = 2

    def of(self, sets, query, key, own_edge):
        return (sets.local_query[query] + sets.local_key[key]) % 2 + self.shift


@dataclass(frozen=True)
class Short(Parity):
    def of(self, sets, query, key, own_edge):
        return super().of(sets, query, key, own_edge)[1:]


def test_a_rule_of_ones_own():
    pattern = Full().as_relation(Parity())
    assert table(pattern, 2).tolist() == [[0, 1], [1, 0]]
    assert repr(pattern) == "Full().as_relation(Parity(shift=0))"
    assert pattern == Full().as_relation(Parity())
    assert pattern != Full().as_relation(Parity(1))


def test_a_picture_is_coloured_by_the_rule():
    pattern = Window(1).as_relation(Distance(1)) | Full().as_relation(4)
    axes = pattern.draw(5).axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["relation 0", "relation 1", "relation 2", "relation 4"]
    value = axes.images[0].get_array()
    assert value[1].tolist() == [1, 2, 3, 5, 5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Distance(-1), "Distance: clip must not be negative; got -1"),
        (lambda: Distance(1.5), "Distance: clip must be an integer; got 1.5"),
        (lambda: Offset2d(-1, 2), "Offset2d: radius_y must not be negative"),
        (lambda: Offset2d(1, None), "Offset2d: radius_x must be an integer"),
        (lambda: ShortestPath(-2), "ShortestPath: max must not be negative"),
        (lambda: EdgeType(2.0), "EdgeType: num_types must be an integer"),
        (lambda: EdgeType(2, attribute=3), "EdgeType: attribute must be a name; got 3"),
        (lambda: Full().as_relation(Offset2d(1, 1)).on(3), "have coordinates in two dimensions; got 1"),
        (
            lambda: Full().as_relation(Offset2d(1, 1)).on(Data(pos=torch.zeros(3, 2), num_nodes=3)),
            "nodes.pos must hold integers; got torch.float32. Pass places on the grid",
        ),
        (
            lambda: Full().as_relation(Offset2d(1, 1)).on(Data(pos=torch.zeros(3, 3).long(), num_nodes=3)),
            "have coordinates in two dimensions; got 3",
        ),
        (lambda: Full().as_relation(ShortestPath(1)).on(3), "nodes must hold edge_index"),
        (
            lambda: Edges().as_relation(EdgeType(3)).on(typed()),
            "nodes.edge_type must be a tensor; got NoneType. Set",
        ),
        (
            lambda: Edges().as_relation(EdgeType(3)).on(typed(edge_type=torch.zeros(3).long())),
            r"nodes.edge_type must have shape \[E\] = \[4\]; got \[3\]",
        ),
        (
            lambda: Edges().as_relation(EdgeType(3)).on(typed(edge_type=torch.zeros(4))),
            "nodes.edge_type must hold integers; got torch.float32",
        ),
        (
            lambda: Edges().as_relation(EdgeType(3)).on(typed(edge_type=torch.tensor([0, 3, 1, 1]))),
            r"nodes.edge_type must lie in \[0, 3\); got 3. Raise num_types",
        ),
        (
            lambda: Full().as_relation(Parity(1)).on(3),
            r"Parity\(shift=1\): relation must lie in \[0, 2\); got 2. Correct its method `of`",
        ),
        (lambda: Full().as_relation(Short()).on(3), r"int64 tensor of shape \[E\] = \[9\]; got torch.int64 \[8\]"),
    ],
    ids=str,
)
def test_refusals(make, message):
    with pytest.raises(GraphformerError, match=message):
        make()


def test_offsets_of_a_grid_are_those_of_its_places():
    rule, data = Full().as_relation(Offset2d(1, 2)), Data(pos=torch.cartesian_prod(torch.arange(3), torch.arange(4)))
    assert torch.equal(rule.on(Grid(3, 4)).relation, rule.on(data).relation)
