"""Graphormer: full attention, biased by shortest paths and the edges along them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Embedding, LayerNorm, Linear, ModuleList, Parameter
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform, Compose

from graphformer.graphs import AttentionGraph, Features, attach
from graphformer.kernels import attend
from graphformer.models.config import GraphormerConfig
from graphformer.models.heads import Head, Level, members, starts_of, stored
from graphformer.nn.dropout import Dropout
from graphformer.nn.features import EdgeEncoder, NodeEncoder
from graphformer.nn.feed_forward import FeedForward
from graphformer.nn.paths import AddShortestPaths
from graphformer.patterns import Full

_WHERE = "Graphormer"
_SPREAD = 0.02  # standard deviation of what is drawn anew, as in the published code


def transform(config: GraphormerConfig) -> Callable[[Data], Data]:
    """What a sample passes once before training.

    The node that stands for the graph becomes the last node of `data`, with no edges and with zeros for features, so
    that the attention graph has a row for it.

    Args:
        config: The model's settings; the same ones build the model.

    Returns:
        A PyG transform: takes a `Data` and returns a copy with one node more, with `path_num_steps`, `path_step` and
        `path_share` (see :func:`~graphformer.nn.shortest_paths`) and `attention_graph`.

    Example:
        >>> data = Data(x=torch.zeros(2, 1).long(), edge_index=torch.tensor([[0, 1], [1, 0]]))
        >>> transform(GraphormerConfig(max_distance=2))(data).attention_graph.relation.view(3, 3)
        tensor([[0, 1, 4],
                [1, 0, 4],
                [4, 4, 4]], dtype=torch.int32)
    """
    return Compose([_AddGraphNode(), AddShortestPaths(config.max_hops), _AttendToAll(config.max_distance)])


class Graphormer(torch.nn.Module):
    r"""A transformer over all pairs of nodes of a graph that is told the graph by embeddings and biases.

    A node starts as the sum of its features' embeddings and of those of its in-degree and out-degree (centrality).
    With the path of edges e_1, ..., e_n from query i to key j, n at most `max_hops`, every layer adds to its scores

        b[hops(i, j)] + 1/n (w_1 e_1 + ... + w_n e_n),

    where e_p is the edge's embedding, one number a head, w_p a matrix [H, H], and all of b, e and w are shared by the
    layers. hops(i, j) has values of its own for pairs without a path and for pairs with the node that stands for the
    graph, which attends to all nodes as all do to it, and from which a graph's outputs are read. Layers are pre-norm.

    Where several paths are shortest, the published code takes one by the numbering of the nodes; here it is their
    mean, so that numbering does not matter. The first term travels as an integer a pair; the second, which differs
    from pair to pair, is made once for all layers, and not at all where edges carry nothing.

    Args:
        config: The settings.
        features: What nodes and edges carry.
        num_outputs: Number of outputs a graph, node or pair.
        level: What the outputs are of: "graph" (default), "node" or "link".

    Raises:
        InputError: The number of outputs is not positive.

    Example:
        >>> from torch_geometric.data import Batch
        >>> config = GraphormerConfig(channels=16, layers=2)
        >>> data = Data(x=torch.zeros(2, 1).long(), edge_index=torch.tensor([[0, 1], [1, 0]]))
        >>> model = Graphormer(config, Features((2,)), num_outputs=1)
        >>> model(Batch.from_data_list([transform(config)(data)] * 3)).shape
        torch.Size([3, 1])

    References:
        Ying et al., "Do transformers really perform badly for graph representation?", 2021.
    """

    def __init__(self, config: GraphormerConfig, features: Features, num_outputs: int, level: Level = "graph") -> None:
        super().__init__()
        self.config, self.features = config, features
        channels, heads = config.channels, config.heads
        self.nodes = NodeEncoder(features, channels)
        self.in_degree = Embedding(config.max_degree + 1, channels)
        self.out_degree = Embedding(config.max_degree + 1, channels)
        self.graph_node = Parameter(torch.empty(1, channels))
        self.relation_bias = Parameter(torch.empty(config.max_distance + 3, heads))
        reads_paths = features.edge_width > 0 and config.max_hops > 0
        self.edges = EdgeEncoder(features, heads) if reads_paths else None
        self.path_weight = Parameter(torch.empty(config.max_hops, heads, heads)) if reads_paths else None
        self.dropout = Dropout(config.dropout)
        self.layers = ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = LayerNorm(channels)
        self.head = Head(level, channels, num_outputs, hidden=(), graph_channels=features.graph_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew: normal, linear maps narrower by the root of the number of layers, no biases."""
        drawn = (self.graph_node, self.relation_bias, self.path_weight)
        tables = (module.weight for module in self.modules() if isinstance(module, Embedding))
        for weight in (*drawn, *tables):
            if weight is not None:
                torch.nn.init.normal_(weight, std=_SPREAD)
        for module in self.modules():
            if isinstance(module, Linear):
                torch.nn.init.normal_(module.weight, std=_SPREAD * self.config.layers**-0.5)
                torch.nn.init.zeros_(module.bias)
            elif isinstance(module, LayerNorm):
                module.reset_parameters()

    def forward(self, batch: Data) -> Tensor:
        """Read off the outputs.

        Args:
            batch: A PyG batch (or one `Data`) of samples that passed :func:`transform`, with what
                :class:`~graphformer.graphs.Features` and :class:`~graphformer.models.heads.Head` say.

        Returns:
            Shape `[B, num_outputs]` for graphs, `[T, num_outputs]` for nodes, `[P, num_outputs]` for pairs; floating.
            Nodes are those that the samples had before :func:`transform`.

        Raises:
            InputError: Something that the settings ask for is missing, or a category is out of range.
        """
        graph = stored(batch, "attention_graph", _WHERE)
        member, num_graphs = members(batch)
        start = starts_of(member, num_graphs)
        graph_nodes = start[1:] - 1
        x = self._embed(batch, graph_nodes)
        bias = None if self.edges is None else self._path_bias(batch, graph, start, member)
        for layer in self.layers:
            x = layer(x, graph, bias, self.relation_bias)
        x = self.norm(x)
        if self.head.level == "graph":
            return self.head.read_graphs(x[graph_nodes], batch)
        if self.head.level == "node" and getattr(batch, "target_index", None) is None:
            is_node = torch.ones_like(member, dtype=torch.bool).index_fill(0, graph_nodes, False)
            x = x[is_node]
        return self.head(x, batch)

    def _embed(self, batch: Data, graph_nodes: Tensor) -> Tensor:
        source, target = batch.edge_index
        x = self.nodes(batch)
        for ends, table in ((target, self.in_degree), (source, self.out_degree)):
            degree = torch.bincount(ends, minlength=x.shape[0])
            x = x + table(degree.clamp(max=self.config.max_degree))
        x = x.index_copy(0, graph_nodes, self.graph_node.to(x.dtype).expand(graph_nodes.shape[0], -1))
        return self.dropout(x)

    def _path_bias(self, batch: Data, graph: AttentionGraph, start: Tensor, member: Tensor) -> Tensor:
        """The edges' term of each pair. Shape `[P, H]`."""
        assert self.edges is not None
        count, step = stored(batch, "path_num_steps", _WHERE).long(), batch.path_step
        num_features = len(self.features.edge_categories) + (self.features.edge_channels > 0)
        edges = self.edges(batch) / num_features
        terms = torch.einsum("eh,pho->epo", edges, self.path_weight).flatten(0, 1)
        ends = count.cumsum(0)
        # Steps name edges by their place in their sample: add the edges of the samples before.
        edges_before = starts_of(member[batch.edge_index[0]], start.shape[0] - 1)[:-1]
        entry = torch.nn.functional.pad(ends, (1, 0))[graph.query_side.ptr[start]]
        step = step + torch.repeat_interleave(edges_before * self.config.max_hops, entry.diff())
        share = batch.path_share.to(terms.dtype)
        return torch.nn.functional.embedding_bag(step, terms, ends - count, mode="sum", per_sample_weights=share)


class _Layer(torch.nn.Module):
    """Pre-norm attention and feed-forward part, with biases that come from outside."""

    def __init__(self, config: GraphormerConfig) -> None:
        super().__init__()
        channels = config.channels
        self.heads, self.attention_dropout = config.heads, config.attention_dropout
        self.norm = LayerNorm(channels)
        self.lin_in = Linear(channels, 3 * channels)  # queries, keys and values
        self.lin_out = Linear(channels, channels)
        self.feed_forward_norm = LayerNorm(channels)
        self.feed_forward = FeedForward(channels, config.feed_forward * channels, activation="gelu")
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, graph: AttentionGraph, bias: Tensor | None, relation_bias: Tensor) -> Tensor:
        query, key, value = self.lin_in(self.norm(x)).view(x.shape[0], 3, self.heads, -1).unbind(1)
        dropout = self.attention_dropout if self.training else 0.0
        out = attend(query, key, value, graph, bias=bias, relation_bias=relation_bias, dropout=dropout)
        x = x + self.dropout(self.lin_out(out.flatten(1)))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class _AddGraphNode(BaseTransform):
    """Adds a node that stands for the graph: the last one, without edges, its features zero."""

    def forward(self, data: Data) -> Data:
        num_nodes: Any = data.num_nodes
        for name in ("x", "x_category"):
            if data.get(name) is not None:
                data[name] = torch.nn.functional.pad(data[name], (0, 0, 0, 1))
        data.num_nodes = num_nodes + 1
        return data


class _AttendToAll(BaseTransform):
    """Full attention whose relations are the distances; the last node has one of its own."""

    def __init__(self, max_distance: int) -> None:
        self.max_distance = max_distance

    def forward(self, data: Data) -> Data:
        num_nodes: Any = data.num_nodes
        hops = data.hops.view(num_nodes, num_nodes)
        del data.hops
        relation = hops.clamp(max=self.max_distance).masked_fill(hops < 0, self.max_distance + 1)
        relation[-1, :] = relation[:, -1] = self.max_distance + 2
        side = Full().on(num_nodes).query_side
        graph = AttentionGraph(
            side.layout if side.runs is None else side.runs,
            num_nodes,
            relation=relation.flatten(),
            num_relations=self.max_distance + 3,
        )
        return attach(data, graph)
