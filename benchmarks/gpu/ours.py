"""graphformer on a GPU: our kernels by name, what "auto" takes, and the float oracle of the gate."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Attention, Case, Provider, Run
from benchmarks.gpu.full_graph import FullGraph, step_run
from benchmarks.providers import ours
from graphformer.kernels import explain
from graphformer.kernels.api import BACKENDS

BACKEND = "triton" if "triton" in BACKENDS else "reference"


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


def _prepare_oracle(case: Case, inputs: Attention) -> Run:
    """In float32 (float64 on the CPU), rounded to the inputs' dtype at the end."""
    dtype, wide = inputs.query.dtype, torch.float32 if case.device == "cuda" else torch.float64
    named = {name: getattr(inputs, name) for name in ("query", "key", "value", "grad_out", "edge_attr", "edge_map")}
    made = replace(inputs, **{name: tensor.to(wide) for name, tensor in named.items() if tensor is not None})
    run = ours.prepare("reference", case, made)

    def common(found: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(dtype) for name, tensor in found.items()}

    run.common = common
    return run


PROVIDERS = (
    Provider("triton", f"graphformer, backend {BACKEND}", partial(ours.why_not, BACKEND), _prepare),
    Provider("auto", 'graphformer, backend "auto"', partial(ours.why_not, "auto"), _prepare_auto),
    Provider("wide", "graphformer, backend reference, in float32: for the gate", lambda c, m: "", _prepare_oracle),
)
