"""FlexAttention through torch.compile, with a block mask."""

from __future__ import annotations

import os
import shutil
import time

import torch
from torch import Tensor

from benchmarks.case import FORWARD, Attention, Case, Provider, Run


def _why_not(case: Case, measure: str) -> str:
    if measure != FORWARD:
        return "FlexAttention has no backward on the CPU"
    return compiler_missing()


def compiler_missing() -> str:
    """Why torch.compile cannot run here; empty if it can."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        return "torch.compile finds no C++ compiler"
    return ""


def _prepare(case: Case, inputs: Attention) -> Run:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    length, radius = inputs.query.shape[0], inputs.radius or 0

    def near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key).abs() <= radius

    mask = create_block_mask(near, None, None, length, length, device="cpu")
    query, key, value = (t.transpose(0, 1).unsqueeze(0).contiguous() for t in (inputs.query, inputs.key, inputs.value))
    compiled = torch.compile(flex_attention)

    def forward() -> Tensor:
        return compiled(query, key, value, block_mask=mask)

    start = time.perf_counter()
    with torch.no_grad():
        forward()
    note = f"compiled in {time.perf_counter() - start:.1f} s, not counted"
    return Run(forward, {}, None, lambda named: {k: t[0].transpose(0, 1) for k, t in named.items()}, note=note)


PROVIDER = Provider("flex", "torch.compile(flex_attention) with a block mask", _why_not, _prepare)
