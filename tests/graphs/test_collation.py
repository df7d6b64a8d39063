"""Graphs on PyG data: stored on samples, united in batches, moved, split and sent between processes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from graphformer import AttentionGraph
from graphformer.graphs import attach


class Molecule(Data):
    """A user's own data class."""


def samples(base: type[Data] = Data) -> list[Data]:
    out = []
    for num_nodes in (2, 3, 4, 5):
        edge_index = torch.stack((torch.arange(num_nodes), torch.arange(num_nodes).roll(1)))
        graph = AttentionGraph.from_edge_index(edge_index, num_nodes=num_nodes)
        out.append(attach(base(x=torch.zeros(num_nodes, 1), edge_index=edge_index), graph))
    return out


@pytest.mark.parametrize("base", [Data, Molecule])
@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loader_unites_the_graphs(base: type[Data], num_workers: int) -> None:
    loader = DataLoader(samples(base), batch_size=2, num_workers=num_workers)
    for batch in loader:
        assert isinstance(batch, base)
        assert torch.equal(batch.attention_graph.edge_index, batch.edge_index)
        assert batch.attention_graph.num_queries == batch.num_nodes


def test_the_union_is_made_once_and_follows_a_move() -> None:
    batch = Batch.from_data_list(samples())
    assert batch.attention_graph is batch.attention_graph
    assert batch.to("meta").attention_graph.device.type == "meta"


def test_a_batch_can_be_taken_apart() -> None:
    originals = samples()
    for original, again in zip(originals, Batch.from_data_list(originals).to_data_list(), strict=True):
        assert again.attention_graph == original.attention_graph


@pytest.mark.parametrize("base", [Data, Molecule])
def test_copies(base: type[Data]) -> None:
    sample = samples(base)[1]
    for other in (copy.copy(sample), copy.deepcopy(sample), pickle.loads(pickle.dumps(sample))):
        assert isinstance(other, base)
        assert other.attention_graph == sample.attention_graph
    batch = Batch.from_data_list(samples(base))
    assert pickle.loads(pickle.dumps(batch)).attention_graph == batch.attention_graph


def test_the_original_is_left_alone() -> None:
    data = Data(x=torch.zeros(2, 1))
    attach(data, AttentionGraph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), num_nodes=2))
    assert type(data) is Data
    assert "attention_graph" not in data


def test_a_graph_for_a_whole_batch() -> None:
    batch = Batch.from_data_list([Data(x=torch.zeros(2, 1)), Data(x=torch.zeros(3, 1))])
    graph = AttentionGraph.from_edge_index(torch.tensor([[0, 2], [1, 4]]), num_nodes=5)
    assert attach(batch, graph).attention_graph == graph
