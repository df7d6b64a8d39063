"""Patterns as PyG transforms: on one sample, in batches, in worker processes."""

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose

from graphformer.graphs import AttentionGraph
from graphformer.patterns import Edges, Global, Random, Window

PATTERN = Edges().as_relation(0) + (Window(1) | Global(1) | Random(2)).as_relation(1)


def sample(num_nodes):
    edge_index = torch.randint(0, num_nodes, (2, num_nodes + 2), generator=torch.Generator().manual_seed(num_nodes))
    return Data(x=torch.full((num_nodes, 2), float(num_nodes)), edge_index=edge_index)


def test_a_transform_leaves_the_sample_as_it_was():
    data = sample(5)
    out = Compose([PATTERN])(data)
    assert out.attention_graph == PATTERN.on(data)
    assert "attention_graph" not in data
    assert out.x is data.x


def test_transform_then_batch_is_batch_then_transform():
    samples = [sample(5), sample(3), sample(7)]
    batch = Batch.from_data_list(samples)
    assert Batch.from_data_list([PATTERN(data) for data in samples]).attention_graph == PATTERN(batch).attention_graph


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_unites_the_graphs(num_workers):
    samples = [PATTERN(sample(size)) for size in (5, 3, 7, 4, 6)]
    batches = list(DataLoader(samples, batch_size=2, num_workers=num_workers))
    assert len(batches) == 3
    for batch, members in zip(batches, (samples[:2], samples[2:4], samples[4:]), strict=True):
        assert isinstance(batch.attention_graph, AttentionGraph)
        assert batch.attention_graph == PATTERN.on(Batch.from_data_list([Data.from_dict(m.to_dict()) for m in members]))
        assert batch.attention_graph == AttentionGraph.union([member.attention_graph for member in members])
