"""A training step over a whole graph, around anyone's attention layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import LayerNorm, Linear, Module, ModuleList
from torch.nn.functional import cross_entropy

from benchmarks.case import BUILD, STEP, Case, Layer, Provider, Run
from benchmarks.inputs import draw_rmat, layer
from graphformer.graphs import AttentionGraph

FEATURES, CLASSES = 100, 47  # as ogbn-products


@dataclass(frozen=True)
class FullGraph:
    """A graph with features and labels, and a small one of the same kind that the gate judges.

    Attributes:
        x: Shape `[N, FEATURES]`, float32.
        y: Labels of the nodes that are trained on, the first ones. Shape `[n]`, int64.
        edge_index: `[2, E]`.
        graph: Of these edges.
        weights: Of a layer, as :func:`benchmarks.inputs.layer` draws them.
        layers: How many.
        few: The small one, in float32.
    """

    x: Tensor
    y: Tensor
    edge_index: Tensor
    graph: AttentionGraph
    weights: Layer
    layers: int
    few: FullGraph | None = None


def full_graph(nodes: int, edges: int, levels: int, device: str, layers: int = 3, channels: int = 128) -> FullGraph:
    """An R-MAT graph of a size, its features and labels, drawn on the device."""
    few = None if nodes <= 300 else full_graph(300, 3000, 9, device, layers, channels)
    edge_index = draw_rmat(nodes, edges, levels, 0, device)
    generator = torch.Generator(device).manual_seed(6)
    x = torch.randn(nodes, FEATURES, generator=generator, device=device)
    y = torch.randint(CLASSES, (max(1, nodes // 12),), generator=generator, device=device)
    no_nodes = AttentionGraph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), num_nodes=0)
    weights = layer("dot", no_nodes, channels, 8)
    return FullGraph(x, y, edge_index, AttentionGraph.from_edge_index(edge_index, nodes), weights, layers, few)


class NodeModel(Module):
    """Layers with residuals and norms between two linear maps."""

    def __init__(self, inputs: FullGraph, make_layer: Callable[[Layer], Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        channels = inputs.weights.x.shape[1]
        self.read_in, self.read_out = Linear(FEATURES, channels), Linear(channels, CLASSES)
        self.norms = ModuleList(LayerNorm(channels) for _ in range(inputs.layers))
        made: list[Any] = [make_layer(inputs.weights) for _ in range(inputs.layers)]
        self.layers = ModuleList(made)
        self.named = {"read_in": self.read_in.weight, "read_out": self.read_out.weight}
        for index, one in enumerate(made):
            self.named |= {f"{index}.{name}": parameter for name, parameter in one.named.items()}

    def forward(self, x: Tensor, structure: Any) -> Tensor:
        """Class scores of every node."""
        x = self.read_in(x)
        for attention, norm in zip(self.layers, self.norms, strict=True):
            x = x + torch.relu(attention(norm(x), structure))
        return self.read_out(x)


def step_run(
    make_layer: Callable[[Layer], Module],
    inputs: FullGraph,
    structure_of: Callable[[AttentionGraph, Tensor], Any],
) -> Run:
    """A step in bfloat16 autocast; the gate sees the same model in float32 on the few nodes."""
    device = inputs.x.device.type
    model = NodeModel(inputs, make_layer).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    structure = structure_of(inputs.graph.prepare(), inputs.edge_index)
    few = inputs.few or inputs
    few_structure = structure_of(few.graph, few.edge_index)
    judged = NodeModel(few, make_layer).to(device)
    grad_out = torch.linspace(-1, 1, len(few.x) * CLASSES, device=device).view(-1, CLASSES)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            scores = model(inputs.x, structure)[: len(inputs.y)]
        cross_entropy(scores.float(), inputs.y).backward()
        optimizer.step()

    def build() -> AttentionGraph:
        return AttentionGraph.from_edge_index(inputs.edge_index, len(inputs.x)).prepare()

    return Run(lambda: judged(few.x, few_structure), judged.named, grad_out, actions={STEP: step, BUILD: build})


def _prepare_conv(case: Case, inputs: FullGraph) -> Run:
    from benchmarks.providers.pyg_layers import ConvAndLinear

    return step_run(ConvAndLinear, inputs, lambda graph, edge_index: edge_index)


def _prepare_oracle(case: Case, inputs: FullGraph) -> Run:
    from benchmarks.providers.ours import OurLayer

    return step_run(partial(OurLayer, backend="reference"), inputs, lambda graph, edge_index: graph)


def _why_not(case: Case, measure: str) -> str:
    return "its lists are not timed" if measure == BUILD else ""


PROVIDERS = (
    Provider("pyg-step", "the same model of PyG's TransformerConv", _why_not, _prepare_conv),
    Provider("wide-step", "the same model on backend reference: for the gate", _why_not, _prepare_oracle),
)
