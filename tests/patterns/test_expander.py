"""Expanders: regular, symmetric, connected, well mixing, and the same wherever they are made."""

import time

import pytest
import torch
from pattern_cases import edge_matrix, predicate

from graphformer import GraphformerError
from graphformer.graphs import AttentionGraph
from graphformer.patterns import BigBird, Expander, Full, Global, Longformer, Random, VirtualNode, Window, expander


@pytest.mark.parametrize("degree", [2, 4, 6, 10])
@pytest.mark.parametrize("beyond", [1, 2, 3, 30, 101])
@pytest.mark.parametrize("seed", [0, -5])
def test_regular_symmetric_and_connected(degree, beyond, seed):
    num_nodes = 2 * degree + beyond
    copies = edge_matrix(Expander(degree, seed), num_nodes)
    assert copies.sum(0).tolist() == [degree] * num_nodes
    assert torch.equal(copies, copies.t())
    assert int(copies.max()) == 1
    assert not bool(copies.diagonal().any())
    reached = torch.zeros(num_nodes)
    reached[0] = 1
    for _ in range(num_nodes):
        reached = ((copies + torch.eye(num_nodes)) @ reached).clamp(max=1)
    assert bool(reached.all())


@pytest.mark.parametrize("num_nodes", [0, 1, 2, 5, 8])
def test_a_small_set_is_complete(num_nodes):
    expected = torch.ones(num_nodes, num_nodes, dtype=torch.int64) - torch.eye(num_nodes, dtype=torch.int64)
    assert torch.equal(edge_matrix(Expander(4), num_nodes), expected)


@pytest.mark.parametrize("degree", [4, 6, 8])
def test_the_spectral_gap_is_near_the_best(degree):
    for seed in range(3):
        values = torch.linalg.eigvalsh(edge_matrix(Expander(degree, seed), 400).double()).abs().sort().values
        assert float(values[-1]) == pytest.approx(degree)
        assert float(values[-2]) < 2 * (degree - 1) ** 0.5 + 0.4  # Friedman's bound, for this size
    ring = edge_matrix(Window(degree // 2) - Window(0), 400).double()
    assert float(torch.linalg.eigvalsh(ring)[-2]) > degree - 0.1  # a window is none


def test_a_set_has_one_graph_wherever_it_is():
    pattern = Expander(4, seed=3)
    batch = [23, 12, 0, 23, 7]
    assert pattern.on(batch) == AttentionGraph.union([pattern.on(size) for size in batch])
    assert torch.equal(predicate(pattern, batch), edge_matrix(pattern, batch) > 0)
    assert pattern.on(40) != Expander(4, seed=4).on(40)


def test_the_draw_never_changes():
    """A saved model expects the graph that it was trained on."""
    assert Expander(2, seed=1).on(7).edge_index[0].tolist() == [3, 6, 2, 6, 1, 5, 0, 4, 3, 5, 2, 4, 0, 1]
    mended = [2, 3, 6, 8, 5, 6, 9, 10, 0, 3, 7, 9, 0, 2, 4, 10, 3, 5, 9, 10, 1, 4]
    assert Expander(4, seed=1).on(11).edge_index[0, :22].tolist() == mended


def test_a_kept_draw_is_the_one_that_is_drawn_anew(monkeypatch):
    kept = [Expander(4, seed=9).on([30, 14]) for _ in range(2)]
    assert expander._kept_graph.cache_info().hits > 0
    monkeypatch.setattr(expander, "_KEPT_NODES", 0)
    assert kept[0] == kept[1] == Expander(4, seed=9).on([30, 14])


def test_large_sets_are_quick():
    start = time.perf_counter()
    assert Expander(6).count(65_536) == 6 * 65_536
    assert Expander(4).count([9 + size % 30 for size in range(5000)]) == 4 * sum(9 + size % 30 for size in range(5000))
    assert time.perf_counter() - start < 5  # a tenth of a second; generous for a busy machine


def test_refusals():
    with pytest.raises(GraphformerError, match="Expander: degree must be even; got 3. Each random cycle gives"):
        Expander(3)
    with pytest.raises(GraphformerError, match="Expander: degree must be an integer, 2 or more and below"):
        Expander(0)
    with pytest.raises(GraphformerError, match="Expander: seed must be a 64-bit integer; got 2.5"):
        Expander(4, seed=2.5)
    for use in (lambda: Expander(4).on((3, 3)), lambda: predicate(Expander(4), (3, 3))):
        with pytest.raises(GraphformerError, match=r"Expander\(degree=4\): nodes must be one node set; got a \(keys"):
            use()


# ---------------------------------------------------------------- hubs at the end, and definitions


@pytest.mark.parametrize("nodes", [6, [3, 1, 0], (5, 3), (2, 7)], ids=str)
def test_a_virtual_node_is_a_global_one_at_the_end(nodes):
    sizes = [nodes] if isinstance(nodes, (int, tuple)) else nodes
    for size in sizes:
        assert torch.equal(edge_matrix(VirtualNode(2), size), edge_matrix(Global(2), size).flip(0, 1))
        assert torch.equal(predicate(VirtualNode(2), size), predicate(Global(2), size).flip(0, 1))
    assert torch.equal(predicate(VirtualNode(2), nodes), edge_matrix(VirtualNode(2), nodes) > 0)


def test_the_virtual_node_is_where_pyg_puts_it():
    from torch_geometric.data import Batch, Data
    from torch_geometric.transforms import VirtualNode as AddVirtualNode

    edge_index = torch.tensor([[0, 1], [1, 0]])
    samples = [Data(edge_index=edge_index, num_nodes=n, x=torch.zeros(n, 1)) for n in (2, 4)]
    batch = Batch.from_data_list([AddVirtualNode()(sample) for sample in samples])
    hubs = {(key, query) for key, query in batch.edge_index.t().tolist() if 2 in (key, query) or 7 in (key, query)}
    found = {tuple(pair) for pair in (VirtualNode() - Window(0)).on(batch).edge_index.t().tolist()}
    assert found == hubs


def test_definitions():
    assert Longformer(3, 2) == Window(3) | Global(2)
    assert BigBird(3, 2, 4, seed=5) == Window(3) | Global(2) | Random(4, seed=5)
    assert Longformer(1, 0).on(5) == Window(1).on(5)
    assert (BigBird(0, 0, 9) | Full()).count(4) == 16
    with pytest.raises(GraphformerError, match="Window: radius must be an integer"):
        Longformer(-1, 2)
    with pytest.raises(GraphformerError, match="VirtualNode: num_nodes must be an integer, 0 or more"):
        VirtualNode(-1)
