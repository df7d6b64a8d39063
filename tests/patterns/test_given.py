"""Pairs that are given: by a function, by a networkx graph."""

import pickle

import networkx
import pytest
import torch
from pattern_cases import corners, edge_matrix, predicate

from graphformer import GraphformerError
from graphformer.patterns import Full, NetworkX, Pairs, Window


def star(num_nodes):
    return torch.stack((torch.zeros(num_nodes), torch.arange(num_nodes))).to(torch.int32)


def test_a_function_is_called_once_a_size():
    calls = []

    def reversed_pairs(num_nodes):
        calls.append(num_nodes)
        return torch.stack((torch.arange(num_nodes), torch.arange(num_nodes).flip(0)))

    sizes = [4, 2, 4, 0, 4]
    expected = torch.block_diag(*(torch.eye(size).flip(0) for size in sizes)).long()
    assert torch.equal(edge_matrix(Pairs(reversed_pairs), sizes), expected)
    assert sorted(calls) == [0, 2, 4]
    assert torch.equal(predicate(Pairs(reversed_pairs), sizes), expected == 1)


def test_row_0_holds_keys_and_a_repeated_pair_counts_once():
    assert Pairs(star).on(3).edge_index.tolist() == [[0, 0, 0], [0, 1, 2]]
    assert Pairs(corners).on((5, 3)).edge_index.tolist() == [[4, 0], [0, 2]]
    nodes = ([5, 1, 5], [3, 4, 2])
    assert torch.equal(predicate(Pairs(corners), nodes), edge_matrix(Pairs(corners), nodes) == 1)
    assert Pairs(star).on(3).own_edge is None


def test_pairs_compare_by_their_function():
    assert Pairs(star) == Pairs(star) != Pairs(corners)
    assert repr(Pairs(star)) == "Pairs(star)"
    assert pickle.loads(pickle.dumps(Pairs(star))) == Pairs(star)


def directed():
    return networkx.DiGraph([("b", "a"), ("a", "c"), ("c", "c")])


def test_an_edge_lets_its_target_attend_to_its_source():
    graph = NetworkX(directed()).on([3, 3])
    assert graph.edge_index[:, :3].tolist() == [[0, 1, 2], [1, 2, 2]]  # places: b, a, c
    assert graph.edge_index[:, 3:].tolist() == [[3, 4, 5], [4, 5, 5]]
    assert torch.equal(predicate(NetworkX(directed()), [3, 3]), edge_matrix(NetworkX(directed()), [3, 3]) == 1)


def test_undirected_edges_go_both_ways():
    assert NetworkX(networkx.path_graph(5)).on(5) == (Window(1) - Window(0)).on(5)
    assert NetworkX(networkx.MultiGraph([(0, 1), (0, 1)])).count(2) == 2
    assert NetworkX(networkx.empty_graph(4)).count(4) == 0
    assert NetworkX(networkx.Graph()).on([0, 0]).size == (0, 0)


def test_networkx_patterns_compare_by_their_edges():
    path = networkx.path_graph(4)
    pattern = NetworkX(path)
    assert pattern == NetworkX(networkx.path_graph(4))
    assert hash(pattern) == hash(NetworkX(networkx.path_graph(4)))
    assert pattern != NetworkX(networkx.cycle_graph(4))
    assert repr(pattern | Full()) == "NetworkX(num_nodes=4, num_edges=6) | Full()"
    path.add_edge(0, 3)
    assert pattern.count(4) == 6  # what is done to the graph later does not reach the pattern
    assert pickle.loads(pickle.dumps(pattern)) == pattern


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pairs(3), r"Pairs: fn must be a function of \(num_nodes\) or \(num_keys, num_queries\); got int"),
        (lambda: Pairs(lambda a, b, c: a), r"got anonymous\(a, b, c\). Write def fn\(num_nodes\)"),
        (lambda: Pairs(star).on((3, 3)), r"Pairs\(star\): nodes must be one node set; got a .* Write fn\(num_keys"),
        (
            lambda: Pairs(lambda n: torch.zeros(2, 1)).on(3),
            r"an integer tensor of shape \[2, E\]; got torch.float",
        ),
        (
            lambda: Pairs(lambda n: [0][n]).on([3]),
            r"Pairs\(anonymous\): fn must list the pairs of a set of 3 nodes; got IndexError.*0 too",
        ),
        (lambda: Pairs(lambda n, m: n / 0).on((3, 2)), "pairs of a set of 3 and 2 nodes; got ZeroDivisionError"),
        (lambda: Pairs(lambda n: torch.zeros(3, 2).long()).on(3), r"shape \[2, E\]; got torch.int64 \[3, 2\]. Row 0"),
        (lambda: Pairs(lambda n: [(0, 0)]).on(3), r"shape \[2, E\]; got \[\(0, 0\)\]"),
        (lambda: Pairs(lambda n: torch.tensor([[3], [0]])).on(3), r"fn must give keys in \[0, 3\); got 3. Row 0"),
        (lambda: Pairs(lambda n: torch.tensor([[0], [-1]])).on(3), r"fn must give queries in \[0, 3\); got -1"),
        (lambda: NetworkX([(0, 1)]), "NetworkX: graph must be a networkx graph; got list"),
        (
            lambda: NetworkX(directed()).on([3, 4]),
            "nodes must be sets of 3 nodes, as many as the netw.*; got 4",
        ),
        (lambda: NetworkX(directed()).on((3, 4)), "got 3 keys and 4 queries"),
    ],
    ids=str,
)
def test_refusals(make, message):
    with pytest.raises(GraphformerError, match=message):
        make()
