"""Attention composed from PyG's pieces: gather, softmax over [E, H], weighted gather, sum."""

from __future__ import annotations

import math
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import BOTH, Attention, Case, Provider, Run, leaves_of

_ABOUT = {
    "pyg": "gather, torch_geometric.utils.softmax by index, scatter_add; edges as they come",
    "pyg-scatter": "the same, sums by torch_scatter.scatter",
    "pyg-segment": "edges sorted before, softmax by ptr, sums by torch_scatter.segment_csr",
    "gather": "index_select of the same key and value rows, no attention: a bound",
}


def _why_not(name: str, case: Case, measure: str) -> str:
    if name == "gather" and measure == BOTH:
        return "it is a bound for the forward"
    if name in ("pyg-scatter", "pyg-segment") and find_spec("torch_scatter") is None:
        return "torch-scatter is not installed"
    return ""


def _prepare(name: str, case: Case, inputs: Attention) -> Run:
    leaves = leaves_of(inputs.query, inputs.key, inputs.value)
    query, key, value = leaves
    layout = inputs.graph.by_query
    source, target = inputs.graph.edge_index
    if name in ("pyg-segment", "gather"):
        source = layout.index.long()
        target = torch.repeat_interleave(layout.ptr.diff())
    source, target = source.contiguous(), target.contiguous()
    forward = partial(_FORWARD[name], query, key, value, source, target, layout.ptr)
    return Run(forward, dict(zip(("query", "key", "value"), leaves, strict=True)), inputs.grad_out)


def _score(query: Tensor, key: Tensor, source: Tensor, target: Tensor) -> Tensor:
    pairs = query.index_select(0, target) * key.index_select(0, source)
    return pairs.sum(-1) / math.sqrt(query.shape[-1])


def _plain(query: Tensor, key: Tensor, value: Tensor, source: Tensor, target: Tensor, ptr: Tensor) -> Tensor:
    from torch_geometric.utils import scatter, softmax

    alpha = softmax(_score(query, key, source, target), target, num_nodes=query.shape[0])
    return scatter(value.index_select(0, source) * alpha.unsqueeze(-1), target, 0, query.shape[0], "sum")


def _scatter(query: Tensor, key: Tensor, value: Tensor, source: Tensor, target: Tensor, ptr: Tensor) -> Tensor:
    import torch_scatter
    from torch_geometric.utils import softmax

    alpha = softmax(_score(query, key, source, target), target, num_nodes=query.shape[0])
    messages = value.index_select(0, source) * alpha.unsqueeze(-1)
    return torch_scatter.scatter(messages, target, 0, dim_size=query.shape[0], reduce="sum")


def _segment(query: Tensor, key: Tensor, value: Tensor, source: Tensor, target: Tensor, ptr: Tensor) -> Tensor:
    import torch_scatter
    from torch_geometric.utils import softmax

    alpha = softmax(_score(query, key, source, target), ptr=ptr)
    return torch_scatter.segment_csr(value.index_select(0, source) * alpha.unsqueeze(-1), ptr, reduce="sum")


def _gather(query: Tensor, key: Tensor, value: Tensor, source: Tensor, target: Tensor, ptr: Tensor) -> Any:
    return key.index_select(0, source), value.index_select(0, source)


_FORWARD = {"pyg": _plain, "pyg-scatter": _scatter, "pyg-segment": _segment, "gather": _gather}
PROVIDERS = tuple(
    Provider(name, about, partial(_why_not, name), partial(_prepare, name), leaves_out=name == "gather")
    for name, about in _ABOUT.items()
)
