"""One model for molecules around anyone's attention layer, and its epoch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import BatchNorm1d, Embedding, Linear, Module, ModuleList
from torch.nn.functional import one_hot

from benchmarks.case import EPOCH, Run, Training
from benchmarks.inputs import layer
from graphformer.graphs import AttentionGraph


class TrainingModel(Module):
    """Embeds atoms, passes the layers with residuals and batch norm, and reads the mean of each molecule off.

    Args:
        inputs: The sizes.
        make_layer: Makes a layer from its inputs (:class:`benchmarks.case.Layer`).
    """

    def __init__(self, inputs: Training, make_layer: Callable[[Any], Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        channels = inputs.channels
        self.edge_categories = inputs.edge_categories if inputs.reads_edges else ()
        self.embeddings = ModuleList(Embedding(count, channels) for count in inputs.categories)
        self.read_out = Linear(channels, 1)
        self.norms = ModuleList(BatchNorm1d(channels) for _ in range(inputs.layers))
        no_nodes = AttentionGraph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), num_nodes=0)
        weights = layer("dot", no_nodes, channels, inputs.heads, edge_dim=sum(self.edge_categories))
        made: list[Any] = [make_layer(weights) for _ in range(inputs.layers)]
        self.layers = ModuleList(made)
        self.named: dict[str, Any] = {"atoms": self.embeddings[0].weight, "read_out": self.read_out.weight}
        for index, one in enumerate(made):
            self.named |= {f"{index}.{name}": parameter for name, parameter in one.named.items()}

    def forward(self, batch: Any, structure: Any) -> Tensor:
        """One logit a molecule."""
        x = sum(table(column) for table, column in zip(self.embeddings, batch.x.unbind(1), strict=True))
        edge_attr = None
        if self.edge_categories:
            columns = zip(batch.edge_attr.unbind(1), self.edge_categories, strict=True)
            edge_attr = torch.cat([one_hot(column, count) for column, count in columns], 1).to(x.dtype)
        for attention, norm in zip(self.layers, self.norms, strict=True):
            x = x + torch.relu(norm(attention(x, structure, edge_attr)))
        sums = x.new_zeros(batch.num_graphs, x.shape[1]).index_add(0, batch.batch, x)
        return self.read_out(sums / batch.ptr.diff().unsqueeze(1)).squeeze(1)


def training_run(model: TrainingModel, inputs: Training, structure_of: Callable[[Any], Any]) -> Run:
    """An epoch over the batches.

    The gate sees the first batch's logits, and the gradients of every layer, of a copy in float64: what float32 rounds
    away grows from batch norm to batch norm, and says nothing about a layer.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    first = inputs.loader[0]
    judged = copy.deepcopy(model).double()
    grad_out = torch.linspace(-1, 2, first.num_graphs, dtype=torch.float64)

    def common(named: dict[str, Tensor]) -> dict[str, Tensor]:
        out = dict(named)
        for name in named:
            if name.endswith(".edge"):  # [F, H, D] here, transposed [C, F] there
                tensor = named[name]
                out[name] = tensor.flatten(1) if tensor.dim() == 3 else tensor.T
        return out

    def epoch() -> None:
        for batch in inputs.loader:
            optimizer.zero_grad()
            loss_of(model(batch, structure_of(batch)), batch.y[:, 0]).backward()
            optimizer.step()

    note = f"{sum(p.numel() for p in model.parameters()):,} parameters"
    return Run(lambda: judged(first, structure_of(first)), judged.named, grad_out, common, {EPOCH: epoch}, note)
