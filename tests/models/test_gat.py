from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Data

from graphformer._errors import InputError
from graphformer.graphs import Features
from graphformer.models import GAT, GATConfig
from graphformer.testing import assert_close


@pytest.mark.parametrize("version", [1, 2])
def test_the_two_libraries_give_the_same_numbers(version):
    config, features = GATConfig(version=version, layers=3, out_heads=2), Features(node_channels=5, edge_channels=2)
    ours = GAT(config, features, num_outputs=4, level="node").eval()
    theirs = GAT(replace(config, library="pyg"), features, num_outputs=4, level="node").eval()
    theirs.load_state_dict(ours.state_dict())
    assert type(ours.convs[0]) is not type(theirs.convs[0])
    edges = torch.randint(0, 9, (2, 30))
    data = Data(x=torch.randn(9, 5), edge_index=edges, edge_attr=torch.randn(30, 2), target_index=torch.tensor([8, 0]))
    out = ours(data)
    assert out.shape == (2, 4)
    assert_close(out, theirs(data))


def test_cora_has_the_published_number_of_weights():
    model = GAT(GATConfig(), Features(node_channels=1433), num_outputs=7, level="node")
    assert sum(weight.numel() for weight in model.parameters()) == 92_373  # 1433*64 + 2*64 + 64, and 64*7 + 2*7 + 7


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="GAT: batch must carry edge_index"):
        GAT(GATConfig(), Features(node_channels=2), 1)(Data(x=torch.ones(3, 2)))
    with pytest.raises(InputError, match="GATConfig: version must be 1 or 2; got 3. 2 is GATv2"):
        GATConfig(version=3)
    with pytest.raises(InputError, match="GATConfig: library must be one of graphformer, pyg; got 'dgl'"):
        GATConfig(library="dgl")
