"""graphformer itself, one provider a backend."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import (
    BUILD,
    BUILD_MEMORY,
    HELD,
    ON,
    ON_MEMORY,
    Attention,
    Building,
    Case,
    DropIn,
    Layer,
    Laying,
    Provider,
    Run,
    Training,
    leaves_of,
    pair_counts,
    rows_in_order,
)
from benchmarks.providers.drop_in import run_of
from benchmarks.providers.training import TrainingModel, training_run
from graphformer import patterns
from graphformer.cost.pairs import pairs_of_graph
from graphformer.graphs import AttentionGraph
from graphformer.graphs.describe import num_bytes
from graphformer.kernels import attend, explain


def why_not(backend: str, case: Case, measure: str) -> str:
    """Why a backend cannot run on the case's device; empty if it can."""
    if backend == "auto":
        return ""
    one = torch.ones(1, 1, 1, device=case.device)
    lines = explain(one, one, one, AttentionGraph.from_dense(one[0].bool())).splitlines()
    return next(line for line in lines if line.startswith(f"{backend}:")).partition("cannot: ")[2]


def prepare(backend: str, case: Case, inputs: Any) -> Run:
    """Inputs of any kind on a backend."""
    if isinstance(inputs, Attention | Layer):
        _make_layouts(inputs.graph)
    if isinstance(inputs, Attention):
        return _attend(backend, inputs)
    if isinstance(inputs, Layer):
        return layer_run(OurLayer(inputs, backend), inputs, inputs.graph)
    if isinstance(inputs, Training):
        model = TrainingModel(inputs, lambda layer: OurLayer(layer, backend))
        return training_run(model, inputs, lambda batch: patterns.Edges().on(batch))
    if isinstance(inputs, DropIn):
        import graphformer.nn

        return run_of(graphformer.nn, inputs, backend)
    return _lay(inputs) if isinstance(inputs, Laying) else _build(inputs)


def _make_layouts(graph: AttentionGraph) -> None:
    """Ask a graph for what it makes when first asked: once a batch, and timed by the cases of `build`."""
    getattr(graph, "prepare", lambda: graph.by_key)()


def _attend(backend: str, inputs: Attention) -> Run:
    leaves = dict(zip(("query", "key", "value"), leaves_of(inputs.query, inputs.key, inputs.value), strict=True))
    nodes, terms, graph = tuple(leaves.values()), {"relation_bias": inputs.relation_bias}, inputs.graph
    if inputs.edge_map is not None:
        (leaves["edge_map"],) = (edge_map,) = leaves_of(inputs.edge_map)
        terms |= {"edge_attr": inputs.edge_attr, "edge_key": edge_map, "edge_value": edge_map}

    def forward() -> Tensor:
        return attend(*nodes, graph, **terms, backend=backend)

    build = inputs.build
    actions = {} if build is None else {BUILD: lambda: _make_layouts(build())}
    return Run(forward, leaves, inputs.grad_out, actions=actions)


class OurLayer(torch.nn.Module):
    """GraphAttention with the weights of a layer's inputs; for "gps", its residual and feed-forward behind it."""

    def __init__(self, inputs: Layer, backend: str) -> None:
        super().__init__()
        from graphformer.nn.attention import GraphAttention  # takes PyG along, seconds that bare attention spares

        channels = inputs.x.shape[1]
        edge = inputs.weights.get("edge")
        additive = inputs.kind == "additive"
        self.conv = GraphAttention(
            channels,
            channels,
            inputs.heads,
            edge_dim=None if edge is None else edge.shape[0],
            score="additive" if additive else "dot",
            bias=not additive,
            backend=backend,
        )
        if additive:  # GATv2 has one map for keys and values
            self.conv.lin_value.weight = self.conv.lin_key.weight
        if edge is not None:  # TransformerConv has one map of edge features for both
            self.conv.edge_value = self.conv.edge_key
        self.mlp = feed_forward(channels) if inputs.kind == "gps" else None
        self.named = {name: self._find(name) for name in inputs.weights}
        load_weights(self.named, inputs)

    def _find(self, name: str) -> torch.nn.Parameter:
        places = {"score": "conv.score_weight", "edge": "conv.edge_key"}
        if name.startswith("mlp."):
            return self.get_parameter(name)
        return self.get_parameter(places.get(name, f"conv.lin_{name}"))

    def forward(self, x: Tensor, graph: AttentionGraph, edge_attr: Tensor | None = None) -> Tensor:
        """One row a node."""
        out = self.conv(x, graph, edge_attr)
        if self.mlp is None:
            return out
        out = out + x
        return out + self.mlp(out)


class WithoutAttention(OurLayer):
    """The same layer's linear maps, and nothing where its attention was: what a faster attention cannot change."""

    def __init__(self, inputs: Layer) -> None:
        super().__init__(inputs, "auto")

    def forward(self, x: Tensor, graph: AttentionGraph, edge_attr: Tensor | None = None) -> Tensor:
        """One row a node."""
        conv = self.conv
        out = conv.lin_out(conv.lin_query(x) + conv.lin_key(x) + conv.lin_value(x))
        if self.mlp is None:
            return out
        out = out + x
        return out + self.mlp(out)


def feed_forward(channels: int) -> torch.nn.Sequential:
    """The feed-forward of GPSConv, with its numbering."""
    linear = torch.nn.Linear
    return torch.nn.Sequential(
        linear(channels, 2 * channels), torch.nn.ReLU(), torch.nn.Identity(), linear(2 * channels, channels)
    )


def load_weights(named: dict[str, torch.nn.Parameter], inputs: Layer) -> None:
    """Copy the inputs' weights into a provider's parameters of the same names."""
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(inputs.weights[name].reshape(parameter.shape))


def layer_run(module: Any, inputs: Layer, structure: Any) -> Run:
    """A layer on its nodes; gradients come back in the shapes of the inputs' weights."""
    (x,) = leaves_of(inputs.x)
    shapes = {"out": inputs.x.shape, "x": inputs.x.shape} | {name: w.shape for name, w in inputs.weights.items()}

    def common(named: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.reshape(shapes[name]) for name, tensor in named.items()}

    return Run(partial(module, x, structure), {"x": x, **module.named}, inputs.grad_out, common)


def _build(inputs: Building) -> Run:
    def build() -> AttentionGraph:
        if inputs.what == "edges":
            graph = AttentionGraph.from_edge_index(inputs.edge_index, inputs.num_nodes)
        elif inputs.what == "union":
            graph = AttentionGraph.union(inputs.members)
        else:
            pattern = patterns.Full() if inputs.what == "full" else patterns.Window(inputs.radius)
            graph = pattern.on(list(inputs.lengths))
        if inputs.what == "edges":
            _ = graph.by_key
        else:
            _make_layouts(graph)
        return graph

    def rows() -> Tensor:
        graph = build()
        return rows_in_order(graph.by_query[:2], graph.by_key[:2])

    return Run(rows, actions={BUILD: build})


def _lay(inputs: Laying) -> Run:
    def on() -> AttentionGraph:
        return inputs.pattern.on(inputs.nodes)

    def build() -> AttentionGraph:
        return on().prepare()

    def counts() -> Tensor:
        graph = build()
        return torch.tensor([graph.query_side.num_pairs, graph.key_side.num_pairs])

    def common(named: dict[str, Tensor]) -> dict[str, Tensor]:
        graph = inputs.pattern.on(inputs.few)
        (query_ptr, key, _), (key_ptr, query, _) = graph.by_query, graph.by_key
        size = graph.num_queries, graph.num_keys
        by_query = pair_counts(torch.repeat_interleave(query_ptr.diff()), key, *size)
        by_key = pair_counts(query, torch.repeat_interleave(key_ptr.diff()), *size)
        return {**named, "pairs": torch.stack((by_query, by_key))}

    graph = on()
    bytes_laid = num_bytes((*graph.query_side.tensors(), graph.relation, graph.own_edge))
    pairs = pairs_of_graph(graph)
    bytes_built = pairs.row_bytes + pairs.transposed_bytes + pairs.tile_bytes
    each = (f"{held / max(graph.num_edges, 1):.2g}" for held in (bytes_laid, bytes_built))
    note = "{:,} pairs, {} bytes each after `on` and {} prepared".format(graph.num_edges, *each)
    actions = {ON: on, BUILD: build, ON_MEMORY: on, BUILD_MEMORY: build, HELD: lambda: bytes_built}
    return Run(counts, common=common, actions=actions, note=note)


def _prepare_without(case: Case, inputs: Layer | Training) -> Run:
    if isinstance(inputs, Layer):
        return layer_run(WithoutAttention(inputs), inputs, inputs.graph)
    return training_run(TrainingModel(inputs, WithoutAttention), inputs, lambda batch: None)


PROVIDERS = (
    *(
        Provider(name, f"graphformer, backend {name}", partial(why_not, name), partial(prepare, name))
        for name in ("native", "reference")
    ),
    Provider(
        "no-attention",
        "the same layers with nothing where the attention was: their linear maps, a bound",
        lambda case, measure: "",
        _prepare_without,
        leaves_out=True,
    ),
)
