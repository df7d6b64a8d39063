import math

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import from_networkx

from graphformer import GraphformerError
from graphformer.nn import (
    AddLaplacianEigenvectors,
    AddRandomWalk,
    laplacian_eigenvectors,
    laplacian_spectrum,
    random_walk_probabilities,
    structure,
)

EMPTY = torch.empty(2, 0, dtype=torch.int64)


def edges_of(graph):
    return from_networkx(graph).edge_index


@pytest.mark.parametrize("dense_nodes", [512, 4], ids=["dense", "lanczos"])
def test_eigenvectors_solve_networkx_laplacian(dense_nodes, monkeypatch):
    monkeypatch.setattr(structure, "_DENSE_NODES", dense_nodes)
    graph = nx.lollipop_graph(5, 9)
    matrix = nx.normalized_laplacian_matrix(graph).toarray()
    vectors = laplacian_eigenvectors(edges_of(graph), 14, 4).double().numpy()
    values = np.linalg.eigvalsh(matrix)[1:5]
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=0), 1.0, atol=1e-5)


def test_eigenvectors_read_edges_as_undirected_and_once():
    path = torch.tensor([[0, 1, 2], [1, 2, 3]])
    messy = torch.cat((path, path.flip(0), path[:, :1], torch.tensor([[2], [2]])), dim=1)
    assert torch.equal(laplacian_eigenvectors(path, 4, 2), laplacian_eigenvectors(messy, 4, 2))


def test_eigenvectors_of_small_sets_are_padded_with_zeros():
    vectors = laplacian_eigenvectors(torch.tensor([[0], [1]]), 2, 3)
    assert torch.allclose(vectors[:, 0].abs(), torch.full((2,), 0.5**0.5))
    assert float(vectors[:, 1:].abs().sum()) == 0


@pytest.mark.parametrize("num_nodes", [0, 1, 5])
def test_sets_without_edges_are_finite(num_nodes):
    vectors = laplacian_eigenvectors(EMPTY, num_nodes, 2)
    walk = random_walk_probabilities(EMPTY, num_nodes, 3)
    assert vectors.shape == (num_nodes, 2)
    assert bool(vectors.isfinite().all())
    assert torch.equal(walk, torch.zeros(num_nodes, 3))


def test_an_isolated_node_beside_a_component_is_finite():
    edge_index = edges_of(nx.cycle_graph(4))
    assert bool(laplacian_eigenvectors(edge_index, 5, 4).isfinite().all())
    assert float(random_walk_probabilities(edge_index, 5, 4)[4].abs().sum()) == 0


@pytest.mark.parametrize("dense_nodes", [512, 0], ids=["dense", "sparse"])
def test_walks_return_as_powers_of_the_step_matrix_say(dense_nodes, monkeypatch):
    monkeypatch.setattr(structure, "_DENSE_NODES", dense_nodes)
    graph = nx.lollipop_graph(4, 3)
    adjacency = nx.to_numpy_array(graph)
    step = adjacency / adjacency.sum(1, keepdims=True)
    expected = np.stack([np.linalg.matrix_power(step, k).diagonal() for k in range(1, 7)], axis=1)
    out = random_walk_probabilities(edges_of(graph), 7, 6)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-6)


def test_walks_are_the_same_in_every_block_of_starting_nodes(monkeypatch):
    edge_index = edges_of(nx.lollipop_graph(5, 6))
    expected = random_walk_probabilities(edge_index, 11, 5)
    monkeypatch.setattr(structure, "_START_NODES", 4)
    torch.testing.assert_close(random_walk_probabilities(edge_index, 11, 5), expected)
    monkeypatch.setattr(structure, "_DENSE_NODES", 0)
    torch.testing.assert_close(random_walk_probabilities(edge_index, 11, 5), expected)


def test_walks_on_a_large_graph_hold_no_full_matrix(monkeypatch):
    num_nodes, widest = 2000, 0
    eye = np.eye

    def measured(rows, columns, **options):
        nonlocal widest
        widest = max(widest, columns)
        return eye(rows, columns, **options)

    monkeypatch.setattr(structure.np, "eye", measured)
    ring = torch.arange(num_nodes)
    edge_index = torch.stack((ring.repeat(2), torch.cat((ring.roll(1), ring.roll(-1)))))
    walk = random_walk_probabilities(edge_index, num_nodes, 4)
    torch.testing.assert_close(walk, torch.tensor([0, 1 / 2, 0, 3 / 8]).expand(num_nodes, -1))
    assert widest == 256


def test_walks_go_along_directed_edges_and_count_duplicates():
    edge_index = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 0]])  # two loops at 0, and 0 <-> 1
    walk = random_walk_probabilities(edge_index, 2, 2)
    torch.testing.assert_close(walk, torch.tensor([[2 / 3, 4 / 9 + 1 / 3], [0.0, 1 / 3]]))
    one_way = random_walk_probabilities(torch.tensor([[0], [1]]), 2, 3)
    assert float(one_way.abs().sum()) == 0


def test_permuting_nodes_permutes_the_walks():
    edge_index = edges_of(nx.lollipop_graph(4, 3))
    order = torch.randperm(7)
    out = random_walk_probabilities(order.argsort()[edge_index], 7, 5)
    torch.testing.assert_close(out, random_walk_probabilities(edge_index, 7, 5)[order])


def test_transforms_store_and_leave_the_sample_alone():
    data = Data(edge_index=edges_of(nx.path_graph(4)), num_nodes=4)
    out = AddRandomWalk(3)(AddLaplacianEigenvectors(2)(data))
    assert torch.equal(out.laplacian_eigenvectors, laplacian_eigenvectors(data.edge_index, 4, 2))
    assert torch.equal(out.random_walk, random_walk_probabilities(data.edge_index, 4, 3))
    assert "random_walk" not in data
    assert repr(AddRandomWalk(3)) == "AddRandomWalk(steps=3)"
    assert repr(AddLaplacianEigenvectors(2)) == "AddLaplacianEigenvectors(k=2)"
    assert "laplacian_eigenvalues" not in out
    more = AddLaplacianEigenvectors(5, eigenvalues=True)
    assert repr(more) == "AddLaplacianEigenvectors(k=5, eigenvalues=True)"
    values = more(data).laplacian_eigenvalues
    torch.testing.assert_close(values[2], torch.tensor([0.5, 1.5, 2.0, math.nan, math.nan]), equal_nan=True)
    assert bool((values[0, :3] == values[3, :3]).all())


@pytest.mark.parametrize("dense_nodes", [512, 0], ids=["dense", "lanczos"])
def test_eigenvalues_belong_to_their_eigenvectors(monkeypatch, dense_nodes):
    monkeypatch.setattr(structure, "_DENSE_NODES", dense_nodes)
    graph = nx.gnm_random_graph(14, 30, seed=1)
    values, vectors = laplacian_spectrum(edges_of(graph), 14, 4)
    laplacian = torch.tensor(nx.normalized_laplacian_matrix(graph).toarray()).float()
    torch.testing.assert_close(laplacian @ vectors, vectors * values, rtol=1e-4, atol=1e-5)
    assert bool((values.diff() >= 0).all())
    assert AddRandomWalk(3)(Data(x=torch.zeros(2, 1))).random_walk.shape == (2, 3)


def test_refuses_nothing_to_compute():
    with pytest.raises(GraphformerError, match="k must be at least 1; got 0"):
        laplacian_eigenvectors(EMPTY, 2, 0)
    with pytest.raises(GraphformerError, match="steps must be at least 1; got 0"):
        random_walk_probabilities(EMPTY, 2, 0)


@pytest.mark.parametrize("of", [laplacian_eigenvectors, random_walk_probabilities])
@pytest.mark.parametrize(
    ("edge_index", "num_nodes", "count", "message"),
    [
        (torch.tensor([[0], [3]]), 3, 2, r"edge_index must hold ids in \[0, 3\); got 3"),
        (torch.tensor([[-1], [0]]), 3, 2, r"edge_index must hold ids in \[0, 3\); got -1"),
        (torch.tensor([[0.0], [1.0]]), 3, 2, "edge_index must have an integer dtype; got torch.float32"),
        (torch.tensor([[0, 1]]), 3, 2, r"edge_index must have shape \[2, E\]; got \[1, 2\]"),
        ([[0], [1]], 3, 2, r"edge_index must be a tensor \[2, E\], .*; got list"),
        (EMPTY, None, 2, "num_nodes must be an integer; got None"),
        (EMPTY, -1, 2, "num_nodes must not be negative; got -1"),
        (EMPTY, 3, 2.0, "(k|steps) must be an integer; got 2.0"),
    ],
    ids=str,
)
def test_refuses_edges_that_do_not_fit(of, edge_index, num_nodes, count, message):
    with pytest.raises(GraphformerError, match=f"^{of.__name__}: {message}"):
        of(edge_index, num_nodes, count)
