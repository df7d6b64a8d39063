"""PyG's layers as they are, and ours of the same names: one module each, with the same weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Case, DropIn, Provider, Run, leaves_of


def run_of(namespace: Any, inputs: DropIn, backend: str | None = None) -> Run:
    """A layer of a namespace, drawn from a fixed seed, on the inputs."""
    torch.manual_seed(0)
    module = getattr(namespace, inputs.layer)(*inputs.arguments, **inputs.options)
    if backend is not None:
        module.backend = backend
    (x,) = leaves_of(inputs.x)

    def forward(given: DropIn = inputs, nodes: Tensor = x) -> Tensor:
        taken = {word: getattr(given, field) for word, field in given.takes.items()}
        if given.is_fresh:
            taken = {word: t if t.is_floating_point() else t.clone() for word, t in taken.items()}
        return module(nodes, **taken)

    few = forward(inputs.few, inputs.few.x)
    parameters = dict(module.named_parameters())
    grads = torch.autograd.grad(few.sum(), list(parameters.values()), allow_unused=True)
    used = {
        name: parameter for (name, parameter), grad in zip(parameters.items(), grads, strict=True) if grad is not None
    }
    rows = len(inputs.x) if len(few) == len(inputs.few.x) else int(inputs.batch[-1]) + 1
    grad_out = torch.randn(rows, *few.shape[1:], generator=torch.Generator().manual_seed(8))
    return Run(forward, {"x": x, **used}, grad_out)


def _prepare(case: Case, inputs: DropIn) -> Run:
    import torch_geometric.nn

    return run_of(torch_geometric.nn, inputs)


_ABOUT = "PyG's layer of the same name, with torch-scatter where it is installed"
PROVIDERS = (Provider("pyg-layer", _ABOUT, lambda case, measure: "", _prepare),)
