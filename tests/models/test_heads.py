from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

from graphformer._errors import InputError
from graphformer.graphs import Features
from graphformer.models import GATConfig, build, heads
from graphformer.models.heads import Head
from graphformer.testing import assert_close


def test_many_pairs_are_judged_part_by_part(monkeypatch):
    monkeypatch.setattr(heads, "_PAIRS_AT_ONCE", 3)
    head, x = Head("link", 4, 1), torch.randn(5, 4)
    data = Data(pair_index=torch.randint(0, 5, (2, 10)))
    whole = head(x, data)
    with torch.no_grad():
        assert_close(head(x, data), whole.detach())
        assert head(x, Data(pair_index=torch.empty(2, 0).long())).shape == (0, 1)


def test_nodes_that_are_asked_for_are_read_off():
    head, x = Head("node", 4, 3), torch.randn(5, 4)
    assert_close(head(x, Data(target_index=torch.tensor([4, 0]))), head(x, Data())[[4, 0]])


@pytest.mark.parametrize("pooling", ["sum", "mean", "max"])
def test_graphs_are_pooled_apart(pooling):
    head, x = Head("graph", 4, 2, pooling=pooling), torch.randn(5, 4)
    parts = [Data(num_nodes=n, edge_index=torch.empty(2, 0).long()) for n in (2, 3)]
    out = head(x, Batch.from_data_list(parts))
    assert_close(out, torch.cat([head(x[:2], parts[0]), head(x[2:], parts[1])]))


def test_gat_reads_numbers_of_whole_graphs_for_whole_graphs_only():
    with pytest.raises(InputError, match="GAT: features.graph_channels must be 0 at level 'node'; got 2. Give them to"):
        build(GATConfig(), Features(node_channels=3, graph_channels=2), 1, "node")


@pytest.mark.parametrize("level", ["node", "link"])
def test_numbers_of_whole_graphs_are_read_for_whole_graphs_only(level):
    with pytest.raises(InputError, match=f"Head: graph_channels must be 0 at level '{level}'; got 2. Give them to the"):
        Head(level, 4, 1, graph_channels=2)


def test_a_link_head_needs_pairs():
    with pytest.raises(InputError, match="Head: batch must carry pair_index at level 'link'; got None"):
        Head("link", 4, 1)(torch.zeros(2, 4), Data())
    with pytest.raises(InputError, match="Head: level must be one of graph, node, link; got 'edge'"):
        Head("edge", 4, 1)


def test_a_pair_is_judged_by_the_product_of_its_nodes():
    head, x = Head("link", 3, 1, hidden=()), torch.randn(4, 3)
    linear = head.lin[-1]
    out = head(x, Data(pair_index=torch.tensor([[0, 3], [2, 3]])))
    expected = [(x[0] * x[2]) @ linear.weight[0] + linear.bias[0], (x[3] * x[3]) @ linear.weight[0] + linear.bias[0]]
    assert_close(out[:, 0], torch.stack(expected))
