"""GT: the graph transformer of Dwivedi and Bresson, with a stream of edges beside that of the nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, ModuleList, Parameter
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from graphformer.graphs import AttentionGraph, Features
from graphformer.kernels import attend
from graphformer.models.config import GTConfig
from graphformer.models.heads import Head, Level, members, stored
from graphformer.nn.block import make_norm
from graphformer.nn.dropout import Dropout
from graphformer.nn.encodings import LaplacianEncoding
from graphformer.nn.features import EdgeEncoder, NodeEncoder
from graphformer.nn.feed_forward import FeedForward
from graphformer.nn.structure import AddLaplacianEigenvectors
from graphformer.patterns import Edges, Full

_WHERE = "GT"
_LARGEST_SCORE = 5.0


def transform(config: GTConfig) -> Callable[[Data], Data]:
    """What a sample passes once before training.

    Args:
        config: The model's settings; the same ones build the model.

    Returns:
        A PyG transform: takes a `Data` and returns a copy with `laplacian_eigenvectors` (where the settings ask for
        them) and `attention_graph`.

    Example:
        >>> data = Data(x=torch.zeros(2, 1).long(), edge_index=torch.tensor([[0, 1], [1, 0]]))
        >>> transform(GTConfig(laplacian=4))(data).laplacian_eigenvectors.shape
        torch.Size([2, 4])
    """
    pattern = Edges() | Full() if config.full_graph else Edges()
    return Compose([*([AddLaplacianEigenvectors(config.laplacian)] if config.laplacian else []), pattern])


class GT(torch.nn.Module):
    r"""Nodes attend to their neighbours, and each edge gates, channel by channel, what passes along it.

    With q, k and v split over the heads, and an edge's vector e_ij mapped by W_e, layer by layer

        s[e]   = q[i] * k[j] * W_e e[e] / sqrt(D)                            (channel by channel)
        h'[i]  = O_h (sum over edges e = (j -> i) of softmax(sum over a head's channels of s[e]) v[j])
        e'[e]  = O_e s[e]

    each followed by residual, norm, feed-forward part, residual and norm. The sums are clipped to [-5, 5], as in the
    published code. The edges' vectors, one of the model's width a pair, are the model's own; weights and sums are
    the kernel's. Where edges carry nothing there is no such stream, and the score is the kernel's dot product, not
    clipped. With `full_graph`, all pairs that are no edges start from one learned vector.

    Args:
        config: The settings.
        features: What nodes and edges carry.
        num_outputs: Number of outputs a graph, node or pair.
        level: What the outputs are of: "graph" (default), "node" or "link".

    Raises:
        InputError: The number of outputs is not positive.

    Example:
        >>> from torch_geometric.data import Batch
        >>> config = GTConfig(channels=16, layers=2)
        >>> data = Data(x=torch.zeros(2, 1).long(), edge_index=torch.tensor([[0, 1], [1, 0]]))
        >>> GT(config, Features((2,)), num_outputs=1)(Batch.from_data_list([transform(config)(data)] * 3)).shape
        torch.Size([3, 1])

    References:
        Dwivedi and Bresson, "A generalization of transformer networks to graphs", 2021.
    """

    def __init__(self, config: GTConfig, features: Features, num_outputs: int, level: Level = "graph") -> None:
        super().__init__()
        self.config, self.features = config, features
        channels = config.channels
        self.nodes = NodeEncoder(features, channels)
        self.edges = EdgeEncoder(features, channels) if features.edge_width else None
        self.no_edge = Parameter(torch.empty(1, channels)) if self.edges is not None and config.full_graph else None
        self.laplacian = LaplacianEncoding(config.laplacian, channels) if config.laplacian else None
        layers: list[Any] = []
        for number in range(config.layers):
            updates_edges = number < config.layers - 1 or config.update_last_edges
            layers.append(_Layer(config, self.edges is not None, updates_edges))
        if self.edges is not None and config.update_last_edges:
            layers[-1].edge_update.requires_grad_(False)  # read by nothing: DDP would wait for their gradients
        self.layers = ModuleList(layers)
        self.head = Head(
            level,
            channels,
            num_outputs,
            (channels // 2, channels // 4),
            pooling=config.pooling,
            graph_channels=features.graph_channels,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        part: Any
        for part in (self.nodes, self.edges, self.laplacian, *self.layers, self.head):
            if part is not None:
                part.reset_parameters()
        if self.no_edge is not None:
            torch.nn.init.normal_(self.no_edge)

    def forward(self, batch: Data) -> Tensor:
        """Read off the outputs.

        Args:
            batch: A PyG batch (or one `Data`) of samples that passed :func:`transform`, with what
                :class:`~graphformer.graphs.Features` and :class:`~graphformer.models.heads.Head` say.

        Returns:
            Shape `[B, num_outputs]` for graphs, `[T, num_outputs]` for nodes, `[P, num_outputs]` for pairs; floating.

        Raises:
            InputError: Something that the settings ask for is missing, or a category is out of range.
        """
        graph = stored(batch, "attention_graph", _WHERE)
        x = self.nodes(batch)
        if self.laplacian is not None:
            eigenvectors = stored(batch, "laplacian_eigenvectors", _WHERE)
            x = x + self.laplacian(eigenvectors, *members(batch))
        edges = None if self.edges is None else self._of_pairs(self.edges(batch), graph)
        for layer in self.layers:
            x, edges = layer(x, edges, graph)
        return self.head(x, batch)

    def _of_pairs(self, edges: Tensor, graph: AttentionGraph) -> Tensor:
        if self.no_edge is not None:
            edges = torch.cat((edges, self.no_edge))  # own_edge = -1, no edge, reads the last row
        return edges[graph.own_edge]


class _Layer(torch.nn.Module):
    """Attention and a feed-forward part over the nodes, and over the edges where they carry something."""

    def __init__(self, config: GTConfig, reads_edges: bool, updates_edges: bool) -> None:
        super().__init__()
        channels = config.channels
        self.heads = config.heads
        self.lin_node = Linear(channels, 3 * channels, bias=False)  # queries, keys and values
        self.lin_edge = Linear(channels, channels, bias=False) if reads_edges else None
        self.node_update = _Update(config)
        self.edge_update = _Update(config) if reads_edges and updates_edges else None

    def reset_parameters(self) -> None:
        part: Any
        for part in self.children():
            part.reset_parameters()

    def forward(self, x: Tensor, edges: Tensor | None, graph: AttentionGraph) -> tuple[Tensor, Tensor | None]:
        query, key, value = self.lin_node(x).chunk(3, dim=1)
        split = (-1, self.heads, x.shape[1] // self.heads)
        if self.lin_edge is None or edges is None:
            out = attend(query.view(split), key.view(split), value.view(split), graph)
            return self.node_update(x, out.flatten(1)), None
        source, target = graph.edge_index
        both = (query * split[2] ** -0.5).index_select(0, target) * key.index_select(0, source)
        score = both * self.lin_edge(edges)
        bias = score.view(split).sum(-1).clamp(-_LARGEST_SCORE, _LARGEST_SCORE)
        nothing = value.new_zeros(x.shape[0], self.heads, 1)  # the bias says all there is of the score
        x = self.node_update(x, attend(nothing, nothing, value.view(split), graph, bias=bias).flatten(1))
        return x, edges if self.edge_update is None else self.edge_update(edges, score)


class _Update(torch.nn.Module):
    """What attention found, and a feed-forward part, each added and normalised."""

    def __init__(self, config: GTConfig) -> None:
        super().__init__()
        channels = config.channels
        self.dropout = Dropout(config.dropout)
        self.lin = Linear(channels, channels)
        self.norm = make_norm(config.norm, channels)
        self.feed_forward = FeedForward(channels, config.feed_forward * channels, dropout=config.dropout)
        self.feed_forward_norm = make_norm(config.norm, channels)

    def reset_parameters(self) -> None:
        part: Any
        for part in (self.lin, self.norm, self.feed_forward, self.feed_forward_norm):
            part.reset_parameters()

    def forward(self, x: Tensor, found: Tensor) -> Tensor:
        x = self.norm(x + self.lin(self.dropout(found)))
        return self.feed_forward_norm(x + self.feed_forward(x))
