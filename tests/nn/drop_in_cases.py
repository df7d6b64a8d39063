"""What the tests of the drop-in layers share: layers with the same weights, inputs, a count of paths."""

from __future__ import annotations

import functools
from collections import Counter
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
import torch_geometric.nn as pyg

from graphformer import nn as ours
from graphformer.nn.conv import gat, transformer_conv
from graphformer.testing import assert_close

NAMES = ("TransformerConv", "GATConv", "GATv2Conv")
GATS = NAMES[1:]
N, E, C, D, F = 7, 19, 6, 4, 3
KERNEL, MESSAGES = {"kernel": 1}, {"messages": 1}

each_layer = pytest.mark.parametrize("name", NAMES)
each_gat = pytest.mark.parametrize("name", GATS)
sparse_warnings = pytest.mark.filterwarnings("ignore:Sparse :UserWarning")  # torch's own, about its sparse tensors


def some_edges(num_sources=N, num_targets=N, num_edges=E):
    """Random pairs, with duplicates and loops as chance has them; the last target has none."""
    return torch.stack((torch.randint(num_sources, (num_edges,)), torch.randint(num_targets - 1, (num_edges,))))


def distinct_edges(num_sources=N, num_targets=N, num_edges=E):
    """Pairs without repetition, by target and then by source, as a transposed matrix stores them."""
    code = torch.randperm(num_sources * (num_targets - 1))[:num_edges].sort().values
    return torch.stack((code % num_sources, code // num_sources))


def as_matrix(edge_index, values, layout, num_nodes=N):
    """A transposed adjacency of edges that come by target; its values are in the order of the edges."""
    source, target = edge_index
    size = (num_nodes, num_nodes, *values.shape[1:])
    if layout == "coo":
        return torch.sparse_coo_tensor(torch.stack((target, source)), values, size, is_coalesced=True)
    ptr = torch.zeros(num_nodes + 1, dtype=torch.int64)
    ptr[1:] = torch.bincount(target, minlength=num_nodes).cumsum(0)
    return torch.sparse_csr_tensor(ptr, source, values, size)


def hetero_graph():
    """Nodes of two kinds and edges of three."""
    x = {"paper": torch.randn(N, C), "author": torch.randn(5, 3)}
    edges = {
        ("paper", "cites", "paper"): some_edges(),
        ("author", "writes", "paper"): some_edges(5, N),
        ("paper", "rev_writes", "author"): some_edges(N, 5),
    }
    return x, edges


def twins(name, in_channels=C, out_channels=D, dtype=torch.float64, **options):
    """PyG's layer and ours with its weights."""
    options.setdefault("heads", 2)
    theirs = getattr(pyg, name)(in_channels, out_channels, **options).to(dtype)
    mine = getattr(ours, name)(in_channels, out_channels, **options).to(dtype)
    mine.load_state_dict(theirs.state_dict())
    return theirs, mine


def no_loops(name):
    """The options that leave the self loops out."""
    return {} if name == "TransformerConv" else {"add_self_loops": False}


def no_skip(name):
    """The options that leave the skip connection out."""
    return {"root_weight": False} if name == "TransformerConv" else {}


def values_of(layer, x):
    """What a layer with two heads weighs."""
    linear = {"TransformerConv": "lin_value", "GATConv": "lin", "GATv2Conv": "lin_l"}[type(layer).__name__]
    return getattr(layer, linear)(x).view(-1, 2, D)


class Net(torch.nn.Module):
    """Two layers, the second as wide as the first."""

    def __init__(self, module, name, **options):
        super().__init__()
        options = {**no_loops(name), **options}
        self.first = getattr(module, name)((-1, -1), D, heads=2, **options)
        self.second = getattr(module, name)((-1, -1), D, heads=2, **options)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


def tensors(result):
    """All tensors of a nested result, sparse ones as dense ones."""
    if isinstance(result, torch.Tensor):
        return [result if result.layout == torch.strided else result.to_dense()]
    if hasattr(result, "sizes"):  # a SparseTensor
        return [result.to_dense()]
    return [tensor for part in result for tensor in tensors(part)]


def assert_same(mine, theirs, dtype=torch.float64):
    found, expected = tensors(mine), tensors(theirs)
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert_close(one, other, dtype)


@contextmanager
def counted():
    """How often the kernel was called ("kernel") and messages were made ("messages") inside the block."""
    counts = Counter()

    def counting(kind, function):
        @functools.wraps(function)
        def call(*arguments, **keywords):
            counts[kind] += 1
            return function(*arguments, **keywords)

        return call

    with (
        mock.patch.object(transformer_conv, "attend", counting("kernel", transformer_conv.attend)),
        mock.patch.object(gat, "attend", counting("kernel", gat.attend)),
        mock.patch.object(pyg.TransformerConv, "message", counting("messages", pyg.TransformerConv.message)),
        mock.patch.object(pyg.GATConv, "message", counting("messages", pyg.GATConv.message)),
        mock.patch.object(pyg.GATv2Conv, "message", counting("messages", pyg.GATv2Conv.message)),
    ):
        yield counts
