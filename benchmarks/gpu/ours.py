"""graphformer on a GPU: our kernels by name, what "auto" takes, and the float oracle of the gate."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Attention, Case, Provider, Run, leaves_of
from benchmarks.gpu.full_graph import FullGraph, step_run
from benchmarks.providers import ours
from graphformer.kernels import explain

_BLOCK = 512  # queries
BACKEND = "triton"


def _prepare(case: Case, inputs: Any) -> Run:
    if isinstance(inputs, FullGraph):
        return step_run(lambda layer: ours.OurLayer(layer, BACKEND), inputs, lambda graph, edge_index: graph)
    run = ours.prepare(BACKEND, case, inputs)
    told = next(line for line in _explained(inputs) if line.startswith(f"{BACKEND}:"))
    run.note = told.partition("; ")[2]  # which loops run
    return run


def _explained(inputs: Attention) -> list[str]:
    edges = {"edge_attr": inputs.edge_attr, "edge_key": inputs.edge_map, "edge_value": inputs.edge_map}
    terms = {} if inputs.edge_map is None else edges
    return explain(inputs.query, inputs.key, inputs.value, inputs.graph, **terms).splitlines()


def _prepare_auto(case: Case, inputs: Attention) -> Run:
    chosen = next(line for line in _explained(inputs) if '(chosen by "auto")' in line).partition(":")[0]
    if inputs.is_full and case.device == "cuda" and chosen != "sdpa":
        raise RuntimeError(f'"auto" chose {chosen} for plain full attention, and not SDPA')
    run = ours.prepare("auto", case, inputs)
    run.note = f"it chose {chosen}"
    return run


def _widened(case: Case, inputs: Attention) -> Attention:
    """In float32 (float64 on the CPU)."""
    wide = torch.float32 if case.device == "cuda" else torch.float64
    named = {name: getattr(inputs, name) for name in ("query", "key", "value", "grad_out", "edge_attr", "edge_map")}
    return replace(inputs, **{name: tensor.to(wide) for name, tensor in named.items() if tensor is not None})


def _rounded(run: Run, dtype: torch.dtype) -> Run:
    run.common = lambda found: {name: tensor.to(dtype) for name, tensor in found.items()}
    return run


def _prepare_wide(case: Case, inputs: Attention) -> Run:
    return _rounded(ours.prepare("reference", case, _widened(case, inputs)), inputs.query.dtype)


def _prepare_blocks(case: Case, inputs: Attention) -> Run:
    """One sequence, some hundred queries at a time with the keys that they may see."""
    made = _widened(case, inputs)
    query, key, value = leaves = leaves_of(made.query, made.key, made.value)
    length = query.shape[0]
    radius = length if inputs.radius is None else inputs.radius
    place = torch.arange(length, device=query.device)

    def forward() -> Tensor:
        out = []
        for start in range(0, length, _BLOCK):
            rows = slice(start, min(length, start + _BLOCK))
            keys = slice(max(0, start - radius), min(length, rows.stop + radius))
            score = torch.einsum("nhd,mhd->hnm", query[rows], key[keys]) / math.sqrt(query.shape[2])
            far = (place[rows, None] - place[keys]).abs() > radius
            out.append(torch.einsum("hnm,mhd->nhd", score.masked_fill(far, -math.inf).softmax(-1), value[keys]))
        return torch.cat(out)

    named = dict(zip(("query", "key", "value"), leaves, strict=True))
    return _rounded(Run(forward, named, made.grad_out), inputs.query.dtype)


PROVIDERS = (
    Provider("triton", f"graphformer, backend {BACKEND}", partial(ours.why_not, BACKEND), _prepare),
    Provider("auto", 'graphformer, backend "auto"', partial(ours.why_not, "auto"), _prepare_auto),
    Provider("wide", "graphformer, backend reference, in float32: for the gate", lambda c, m: "", _prepare_wide),
    Provider("wide-blocks", "softmax of dense scores in float32: for the gate", lambda c, m: "", _prepare_blocks),
)
