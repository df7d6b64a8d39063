import itertools

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import from_networkx

from graphformer import GraphformerError
from graphformer.nn import AddRelativeRandomWalk, AddShortestPaths, relative_random_walk, shortest_paths

EMPTY = torch.empty(2, 0, dtype=torch.int64)
GRAPHS = {
    "one node": nx.empty_graph(1),
    "no edges": nx.empty_graph(4),
    "path": nx.path_graph(7),
    "rings": nx.circular_ladder_graph(4),
    "two components": nx.disjoint_union(nx.cycle_graph(5), nx.star_graph(3)),
    "directed": nx.gnp_random_graph(9, 0.2, seed=1, directed=True),
    "self loops": nx.Graph([(0, 0), (0, 1), (1, 2), (2, 2), (2, 3)]),
    "parallel": nx.MultiDiGraph([(0, 1), (0, 1), (1, 2), (2, 0), (0, 3), (3, 2)]),
}
GRAPH = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)


def edges_of(graph):
    """The edges [2, E], an undirected one both ways, and the number of nodes."""
    graph = nx.convert_node_labels_to_integers(graph)
    return torch.tensor(list(graph.to_directed().edges()), dtype=torch.int64).reshape(-1, 2).t(), len(graph)


def listed(edge_index, num_nodes, max_hops):
    """{(query, key): {(edge, place): share}} by following every shortest path."""
    graph = nx.MultiDiGraph()
    graph.add_nodes_from(range(num_nodes))
    for edge, (source, target) in enumerate(edge_index.t().tolist()):
        graph.add_edge(source, target, key=edge)
    out = {}
    for query, key in itertools.permutations(range(num_nodes), 2):
        if not nx.has_path(graph, key, query):
            continue
        paths = []
        for nodes in {tuple(path) for path in nx.all_shortest_paths(graph, key, query)}:
            choices = [list(graph[a][b]) for a, b in itertools.pairwise(nodes)]
            paths += [list(reversed(path)) for path in itertools.product(*choices)]
        shares = out.setdefault((query, key), {})
        for path in paths:
            for place, edge in enumerate(path[:max_hops]):
                share = 1 / len(paths) / min(len(path), max_hops)
                shares[edge, place] = shares.get((edge, place), 0) + share
    return out


@GRAPH
@pytest.mark.parametrize("max_hops", [0, 1, 2, 20])
def test_paths_are_networkx(graph, max_hops):
    edge_index, num_nodes = edges_of(graph)
    paths = shortest_paths(edge_index, num_nodes, max_hops)
    lengths = dict(nx.all_pairs_shortest_path_length(nx.DiGraph(edge_index.t().tolist())))
    hops = [lengths.get(key, {key: 0}).get(query, -1) for query in range(num_nodes) for key in range(num_nodes)]
    assert paths.hops.tolist() == hops
    expected = listed(edge_index, num_nodes, max_hops)
    entries = iter(zip(paths.step.tolist(), paths.share.tolist(), strict=True))
    for pair, count in enumerate(paths.num_steps.tolist()):
        found = {divmod(step, max_hops): share for step, share in itertools.islice(entries, count)}
        assert found == pytest.approx(expected.get(divmod(pair, num_nodes), {}))
    assert next(entries, None) is None


@GRAPH
@pytest.mark.parametrize("steps", [1, 4, 12])
def test_walks_are_powers_of_the_step_matrix(graph, steps):
    edge_index, num_nodes = edges_of(graph)
    adjacency = np.zeros((num_nodes, num_nodes))
    np.add.at(adjacency, tuple(edge_index.numpy()), 1.0)
    step = adjacency / np.maximum(adjacency.sum(1, keepdims=True), 1)
    walk = relative_random_walk(edge_index, num_nodes, steps).view(num_nodes, num_nodes, steps)
    for number in range(steps):
        power = np.linalg.matrix_power(step, number)  # [from, to]
        np.testing.assert_allclose(walk[:, :, number].numpy(), power.T, rtol=1e-5, atol=1e-6)


def test_pairs_of_a_batch_are_those_of_its_samples():
    samples = [from_networkx(nx.path_graph(n)) for n in (3, 1, 4)]
    samples.append(Data(edge_index=None, num_nodes=2))
    for sample in samples:
        sample.edge_index = EMPTY if sample.edge_index is None else sample.edge_index
    prepared = [AddShortestPaths(2)(AddRelativeRandomWalk(3)(sample)) for sample in samples]
    batch = Batch.from_data_list(prepared)
    assert batch.relative_random_walk.shape == (9 + 1 + 16 + 4, 3)
    for name in ("relative_random_walk", "hops", "path_num_steps", "path_step", "path_share"):
        assert torch.equal(batch[name], torch.cat([sample[name] for sample in prepared]))
        assert name not in samples[0]


def test_data_without_edges_has_no_paths():
    data = AddRelativeRandomWalk(2)(AddShortestPaths(2)(Data(num_nodes=2)))
    assert data.hops.tolist() == [0, -1, -1, 0]
    assert data.relative_random_walk[:, 1].tolist() == [0, 0, 0, 0]
    assert data.path_step.numel() == 0
    assert repr(AddShortestPaths(2)) == "AddShortestPaths(max_hops=2)"
    assert repr(AddRelativeRandomWalk(2)) == "AddRelativeRandomWalk(steps=2)"


def test_no_nodes_have_no_pairs():
    assert shortest_paths(EMPTY, 0, 3).hops.shape == (0,)
    assert relative_random_walk(EMPTY, 0, 3).shape == (0, 3)


def test_refuses_what_does_not_fit():
    edge_index = torch.tensor([[0], [3]])
    for function, name in ((shortest_paths, "shortest_paths"), (relative_random_walk, "relative_random_walk")):
        with pytest.raises(GraphformerError, match=rf"{name}: edge_index must hold ids in \[0, 3\); got 3"):
            function(edge_index, 3, 2)
    with pytest.raises(GraphformerError, match="max_hops must not be negative; got -1. Pass 0 to list no edges"):
        shortest_paths(EMPTY, 3, -1)
    with pytest.raises(GraphformerError, match="steps must be at least 1; got 0. Leave the encoding out"):
        relative_random_walk(EMPTY, 3, 0)
