"""Offsets beyond 2^31: tensors with more elements than an int32 counts. Zero pages keep the memory small."""

from __future__ import annotations

import pytest
import torch

import graphformer as gf
from graphformer.testing import assert_close

H, D = 8, 16
MANY = 2**31 // (H * D) + 40  # rows of [rows, H, D] whose last ones lie beyond 2^31 elements

pytestmark = pytest.mark.slow


def test_keys_beyond_int32_offsets() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.cat((torch.arange(20), torch.arange(MANY - 20, MANY)))
    key = torch.zeros(MANY, H, D, dtype=torch.bfloat16)
    key[rows] = torch.randn(40, H, D, generator=generator).bfloat16()
    near = torch.randint(40, (2, 300), generator=generator)
    query = torch.randn(40, H, D, generator=generator).bfloat16().requires_grad_()
    results = []
    for keys, source, size in ((key, rows[near[0]], MANY), (key[rows], near[0], 40)):
        graph = gf.AttentionGraph.from_edge_index(torch.stack((source, near[1])), size=(size, 40))
        out = gf.attend(query, keys, keys, graph, backend="native")
        results.append((out, *torch.autograd.grad(out.float().square().sum(), query)))
    for far, close in zip(*results, strict=True):
        assert_close(far, close)


def test_queries_beyond_int32_offsets() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.cat((torch.arange(20), torch.arange(MANY - 20, MANY)))
    query = torch.zeros(MANY, H, D, dtype=torch.bfloat16)
    query[rows] = torch.randn(40, H, D, generator=generator).bfloat16()
    near = torch.randint(40, (2, 300), generator=generator)
    key, value = torch.randn(40, H, D, generator=generator).bfloat16(), torch.randn(40, H, 1).bfloat16()
    far = gf.AttentionGraph.from_edge_index(torch.stack((near[0], rows[near[1]])), size=(40, MANY))
    close = gf.AttentionGraph.from_edge_index(near, num_nodes=40)
    expected = gf.attend(query[rows], key, value, close, backend="reference")
    assert_close(gf.attend(query, key, value, far, backend="native")[rows], expected)


def test_bias_beyond_int32_offsets(loops: str) -> None:
    """One row of 2^31 / H pairs; all of its weight lies on the last ones."""
    if loops == "tiles":
        pytest.skip("every duplicate is an entry of its own there")
    num_edges = 2**31 // H + 5
    key_index = torch.zeros(num_edges, dtype=torch.int32)
    key_index[-3:] = 1
    graph = gf.AttentionGraph.from_csr(torch.tensor([0, num_edges]), key_index, 2)
    bias = torch.zeros(num_edges, H)
    bias[-3:] = 60.0
    value = torch.tensor([1.0, 2.0]).view(2, 1, 1).expand(2, H, 1)
    zeros = torch.zeros(2, H, 1)
    out = gf.attend(zeros[:1], zeros, value, graph, bias=bias, backend="native")
    assert_close(out, torch.full((1, H, 1), 2.0))
