"""What the tests of GPSConv share: small batches, PyG's layer and ours, and their comparison."""

import torch
import torch_geometric.nn as pyg
from torch_geometric.data import Batch, Data

from graphformer.nn import GPSConv
from graphformer.testing import assert_close

C, F = 8, 3
SIZES = [5, 1, 7]


def molecules(sizes=SIZES, dtype=torch.float64):
    graphs = []
    for size in sizes:
        edge_index = torch.randint(size, (2, 2 * size))
        attr = torch.randn(2 * size, F, dtype=dtype)
        graphs.append(Data(x=torch.randn(size, C, dtype=dtype), edge_index=edge_index, edge_attr=attr))
    return Batch.from_data_list(graphs)


def gine():
    return pyg.GINEConv(torch.nn.Linear(C, C), edge_dim=F)


def gatv2():
    return pyg.GATv2Conv(C, C, edge_dim=F)


def nothing():
    return None


def pair(conv=nothing, dtype=torch.float64, **options):
    options.setdefault("heads", 2)
    theirs = pyg.GPSConv(C, conv(), **options).to(dtype)
    ours = GPSConv(C, conv(), **options).to(dtype)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def check(ours, theirs, x, edge_index, batch, **arguments):
    """Results, all gradients and all running statistics."""
    x = x.clone().requires_grad_()
    outs = [layer(x, edge_index, batch, **arguments) for layer in (ours, theirs)]
    assert_close(*outs)
    grad = torch.randn_like(outs[0])
    leaves = [[x, *layer.parameters()] for layer in (ours, theirs)]
    pairs = [torch.autograd.grad(out, of, grad, allow_unused=True) for out, of in zip(outs, leaves, strict=True)]
    for one, other in zip(*pairs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(one, other)
    for one, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert_close(one.to(x.dtype), other.to(x.dtype))
