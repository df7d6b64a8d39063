"""Attention over every pattern of the gallery is scaled dot-product attention with its mask, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import graphformer as gf
from docs.gallery import ENTRIES, ChosenEntry, Entry


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_entry_is_masked_attention(entry: Entry) -> None:
    chosen = isinstance(entry, ChosenEntry)
    graph = entry._choose(entry.node_set) if chosen else entry.pattern.on(entry.node_set)
    torch.manual_seed(0)
    query = torch.randn(graph.num_queries, 2, 4, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(graph.num_keys, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    grad_out = torch.randn_like(query)

    mine = gf.attend(query, key, value, graph)
    copies = graph.to_dense(counts=True).double()
    rows = copies.sum(1) > 0  # the rest attend to nothing, which dense attention cannot say
    dense = [tensor.transpose(0, 1) for tensor in (query[rows], key, value)]
    other = torch.zeros_like(mine)
    other[rows] = scaled_dot_product_attention(*dense, attn_mask=copies[rows].log()).transpose(
        0, 1
    )  # a copy counts again
    torch.testing.assert_close(mine, other)
    grads = [torch.autograd.grad(out, (query, key, value), grad_out) for out in (mine, other)]
    for one, same in zip(*grads, strict=True):
        torch.testing.assert_close(one, same)
