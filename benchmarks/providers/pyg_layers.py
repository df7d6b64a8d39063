"""PyG's own layers with the weights of ours; a linear map behind each stands for our output map."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear

from benchmarks.case import Case, Layer, Provider, Run, Training
from benchmarks.providers.ours import layer_run, load_weights
from benchmarks.providers.training import TrainingModel, training_run

_ABOUT = {
    "transformer-conv": "PyG TransformerConv without its skip map, then Linear",
    "gatv2-conv": "PyG GATv2Conv without added loops, then Linear",
    "gps-conv": "PyG GPSConv without local layer and norm: to_dense_batch, MultiheadAttention, residual, feed-forward",
    "mha": "to_dense_batch, nn.MultiheadAttention, back",
}


class ConvAndLinear(torch.nn.Module):
    """TransformerConv or GATv2Conv, and the output map."""

    def __init__(self, inputs: Layer) -> None:
        super().__init__()
        from torch_geometric.nn import GATv2Conv, TransformerConv

        channels, heads, edge = inputs.x.shape[1], inputs.heads, inputs.weights.get("edge")
        additive = inputs.kind == "additive"
        self.lin_out = Linear(channels, channels, bias=not additive)
        if additive:
            self.conv: Any = GATv2Conv(channels, channels // heads, heads, add_self_loops=False, bias=False)
            self.conv.lin_l = Linear(channels, channels, bias=False)
            self.conv.lin_r = Linear(channels, channels, bias=False)
            places = {"key.weight": self.conv.lin_l.weight, "query.weight": self.conv.lin_r.weight}
            self.named: dict[str, Any] = {**places, "score": self.conv.att, "out.weight": self.lin_out.weight}
        else:
            edge_dim = None if edge is None else edge.shape[0]
            self.conv = TransformerConv(channels, channels // heads, heads, root_weight=False, edge_dim=edge_dim)
            del self.conv.lin_skip  # made and never used without root_weight
            self.named = {
                f"{name}.{part}": getattr(linear, part)
                for name in ("query", "key", "value", "out")
                for part in ("weight", "bias")
                for linear in [self.lin_out if name == "out" else getattr(self.conv, f"lin_{name}")]
            }
        load_weights(self.named, inputs)
        if edge is not None:
            with torch.no_grad():
                self.conv.lin_edge.weight.copy_(edge.T)
            self.named["edge"] = self.conv.lin_edge.weight

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        """One row a node."""
        return self.lin_out(self.conv(x, edge_index, edge_attr))


class DenseBatch(torch.nn.Module):
    """nn.MultiheadAttention over a padded batch, alone or inside of GPSConv."""

    def __init__(self, inputs: Layer) -> None:
        super().__init__()
        from torch_geometric.nn import GPSConv

        channels = inputs.x.shape[1]
        self.gps = GPSConv(channels, None, inputs.heads, norm=None) if inputs.kind == "gps" else None
        made = torch.nn.MultiheadAttention(channels, inputs.heads, batch_first=True)
        self.attention = made if self.gps is None else self.gps.attn
        weights, attention = inputs.weights, self.attention
        with torch.no_grad():
            for part in ("weight", "bias"):
                packed = torch.cat([weights[f"{name}.{part}"] for name in ("query", "key", "value")])
                getattr(attention, f"in_proj_{part}").copy_(packed)
                getattr(attention.out_proj, part).copy_(weights[f"out.{part}"])
        self.named = {
            "packed.weight": attention.in_proj_weight,
            "packed.bias": attention.in_proj_bias,
            "out.weight": attention.out_proj.weight,
            "out.bias": attention.out_proj.bias,
        }
        if self.gps is not None:
            places = {name: self.gps.get_parameter(name) for name in weights if name.startswith("mlp.")}
            load_weights(places, inputs)
            self.named.update(places)
        sizes = torch.tensor(inputs.lengths)
        self.batch = torch.repeat_interleave(torch.arange(len(sizes)), sizes)

    def forward(self, x: Tensor, structure: None) -> Tensor:
        """One row a node."""
        from torch_geometric.utils import to_dense_batch

        if self.gps is not None:
            return self.gps(x, None, self.batch)
        dense, mask = to_dense_batch(x, self.batch)
        out, _ = self.attention(dense, dense, dense, key_padding_mask=~mask, need_weights=False)
        return out[mask]

    @staticmethod
    def unpack(named: dict[str, Tensor]) -> dict[str, Tensor]:
        """The packed map's gradients by name."""
        out = {name: tensor for name, tensor in named.items() if not name.startswith("packed.")}
        for part in ("weight", "bias"):
            if f"packed.{part}" in named:
                chunks = named[f"packed.{part}"].chunk(3)
                out |= {f"{name}.{part}": t for name, t in zip(("query", "key", "value"), chunks, strict=True)}
        return out


def _prepare(name: str, case: Case, inputs: Layer | Training) -> Run:
    if isinstance(inputs, Training):
        return training_run(TrainingModel(inputs, ConvAndLinear), inputs, lambda batch: batch.edge_index)
    if name in ("transformer-conv", "gatv2-conv"):
        return layer_run(ConvAndLinear(inputs), inputs, inputs.graph.edge_index)
    module = DenseBatch(inputs)
    run = layer_run(module, inputs, None)
    run.common = module.unpack
    return run


PROVIDERS = tuple(
    Provider(name, about, lambda case, measure: "", partial(_prepare, name)) for name, about in _ABOUT.items()
)
