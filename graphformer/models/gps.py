"""GraphGPS: a convolution beside attention, layer after layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import ModuleList
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from graphformer import patterns
from graphformer.graphs import Features
from graphformer.models.config import GPSConfig
from graphformer.models.config.shared import head_widths
from graphformer.models.embedding import JoinedEmbedding, encodings_of
from graphformer.models.heads import Head, Level, stored
from graphformer.nn.attention import GraphAttention
from graphformer.nn.features import EdgeEncoder
from graphformer.nn.local_global import LocalConv, LocalGlobalLayer

_WHERE = "GPS"


def transform(config: GPSConfig) -> Callable[[Data], Data]:
    """What a sample passes once before training: its encodings and its attention graph are stored on it.

    Args:
        config: The model's settings; the same ones build the model.

    Returns:
        A PyG transform: takes a `Data` and returns a copy with `random_walk`, `laplacian_eigenvectors` and
        `laplacian_eigenvalues` (where the settings ask for them) and `attention_graph`.

    Example:
        >>> data = Data(x=torch.zeros(2, 1).long(), edge_index=torch.tensor([[0, 1], [1, 0]]))
        >>> transform(GPSConfig(walk_steps=4))(data).random_walk.shape
        torch.Size([2, 4])
    """
    return Compose([*encodings_of(config), patterns.parse(config.pattern)])


class GPS(torch.nn.Module):
    """GraphGPS: any convolution beside attention along any pattern.

    A node starts as its features' embedding and its encodings side by side. Every layer adds what the convolution and
    what attention give, each residual and with a batch norm, and passes the sum through a feed-forward part with one
    more (:class:`~graphformer.nn.local_global.LocalGlobalLayer`). At the published settings it has the published
    number of parameters, but for three things. The last "gatedgcn" has no norm of edges, which nobody would read. The
    Performer of ogbg-ppa and ogbg-code2 (8 and 4 heads of 64) has no biases in queries, keys and values; here attention
    is exact and has them. Laplacian eigenvectors are those of the normalised Laplacian, without the first, constant
    one; the published are of the unnormalised one.

    Args:
        config: The settings.
        features: What nodes and edges carry; edges that carry nothing are one learned vector.
        num_outputs: Number of outputs a graph, node or pair.
        level: What the outputs are of: "graph" (default), "node" or "link".

    Raises:
        InputError: The number of outputs is not positive, the pattern cannot be read, or there is no such convolution.

    Example:
        >>> from torch_geometric.data import Batch
        >>> config = GPSConfig(channels=32, layers=2, conv="gine")
        >>> both_ways = torch.tensor([[0, 1], [1, 0]])
        >>> data = Data(x=torch.tensor([[0, 2], [1, 0]]), edge_index=both_ways, edge_attr=torch.tensor([[3], [3]]))
        >>> batch = Batch.from_data_list([transform(config)(data)] * 3)
        >>> GPS(config, Features(node_categories=(2, 3), edge_categories=(4,)), num_outputs=1)(batch).shape
        torch.Size([3, 1])

    References:
        Rampasek et al., "Recipe for a general, powerful, scalable graph transformer", 2022.
    """

    def __init__(self, config: GPSConfig, features: Features, num_outputs: int, level: Level = "graph") -> None:
        super().__init__()
        self.config, self.features = config, features
        channels, heads = config.channels, config.heads
        self.nodes = JoinedEmbedding(config, features, _WHERE)
        num_relations = patterns.parse(config.pattern).num_relations or None
        self.attentions: Any = ModuleList(
            GraphAttention(
                channels,
                channels,
                heads,
                head_channels=config.head_channels or None,
                num_relations=num_relations,
                dropout=config.attention_dropout,
            )
            for _ in range(config.layers)
        )
        locals_ = [local_conv(config, number) for number in range(config.layers)]
        self.layers: Any = ModuleList(LocalGlobalLayer(channels, local, config.dropout) for local in locals_)
        self.edges = EdgeEncoder(features, channels) if locals_[0] is not None and locals_[0].reads_edges else None
        self.head = Head(
            level,
            channels,
            num_outputs,
            hidden=head_widths(config),
            pooling=config.pooling,
            graph_channels=features.graph_channels,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        for part in (self.nodes, self.edges, *self.attentions, *self.layers, self.head):
            if part is not None:
                part.reset_parameters()

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
        edge_index: Any = batch.edge_index
        x = self.nodes(batch)
        edges = None if self.edges is None else self.edges(batch)
        for attention, layer in zip(self.attentions, self.layers, strict=True):
            x, edges = layer(x, edge_index, edges, heard=attention(x, graph))
        return self.head(x, batch)


def local_conv(config: Any, number: int) -> LocalConv | None:
    """The convolution of a model's layer of this number, or None.

    Example:
        >>> local_conv(GPSConfig(conv="none"), 0) is None
        True
    """
    if config.conv == "none":
        return None
    last = number == config.layers - 1
    return LocalConv(config.conv, config.channels, config.heads, config.dropout, last)
