"""PyG's layers as they are, and ours of the same names: one module each, with the same weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.case import BOTH, Case, DropIn, Provider, Run, leaves_of


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


def _prepare_maps(case: Case, inputs: DropIn) -> Run:
    """Each linear map of the layer on the nodes, which no layer can do without."""
    whole = _prepare(case, inputs)
    nodes = whole.leaves["x"]
    names = [name.removesuffix(".weight") for name in whole.leaves if name.endswith(".weight")]
    used = {name: tensor for name, tensor in whole.leaves.items() if name == "x" or name.rpartition(".")[0] in names}

    def maps() -> list[Tensor]:
        return [linear(nodes, used[f"{name}.weight"], used.get(f"{name}.bias")) for name in names]

    grads = [torch.ones_like(out) for out in maps()]

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(maps(), list(used.values()), grads)

    return Run(whole.forward, actions={BOTH: both})


def _why_no_maps(case: Case, measure: str) -> str:
    return "" if measure == BOTH else "it is a bound for the time"


_ABOUT = "PyG's layer of the same name, with torch-scatter where it is installed"
_ABOUT_MAPS = "the layer's linear maps of the nodes, forward and backward, and nothing else: a bound"
PROVIDERS = (
    Provider("pyg-layer", _ABOUT, lambda case, measure: "", _prepare),
    Provider("linear-maps", _ABOUT_MAPS, _why_no_maps, _prepare_maps, leaves_out=True),
)
