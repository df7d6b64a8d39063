"""What the tests of the drop-in layers share: PyG's layer and ours from one set of weights, and a count of paths."""

from __future__ import annotations

import functools
from collections import Counter
from contextlib import contextmanager
from unittest import mock

import torch
import torch_geometric.nn as pyg

from graphformer import nn as ours
from graphformer.nn.conv import gat, transformer_conv
from graphformer.testing import assert_close

NAMES = ("TransformerConv", "GATConv", "GATv2Conv")
GATS = NAMES[1:]
N, E, C, D, F = 7, 19, 6, 4, 3


def some_edges(num_sources=N, num_targets=N, num_edges=E):
    """Random pairs, with duplicates and loops as chance has them; the last target has none."""
    return torch.stack((torch.randint(num_sources, (num_edges,)), torch.randint(num_targets - 1, (num_edges,))))


def distinct_edges(num_sources=N, num_targets=N, num_edges=E):
    """Pairs without repetition, by target and then by source, as a transposed matrix stores them."""
    code = torch.randperm(num_sources * (num_targets - 1))[:num_edges].sort().values
    return torch.stack((code % num_sources, code // num_sources))


def twins(name, in_channels=C, out_channels=D, dtype=torch.float64, **options):
    """PyG's layer and ours with its weights."""
    options.setdefault("heads", 2)
    theirs = getattr(pyg, name)(in_channels, out_channels, **options).to(dtype)
    mine = getattr(ours, name)(in_channels, out_channels, **options).to(dtype)
    mine.load_state_dict(theirs.state_dict())
    return theirs, mine


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
