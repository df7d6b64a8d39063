"""Graph attention networks for nodes, graphs and links."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import ModuleList
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from graphformer._checks import require
from graphformer.graphs import Features
from graphformer.models.config import GATConfig
from graphformer.models.heads import Head, Level, asked_nodes, require_edges
from graphformer.nn.dropout import Dropout
from graphformer.nn.features import NodeEncoder


def transform(config: GATConfig) -> Callable[[Data], Data]:
    """What a sample passes once before training: nothing is added to it.

    Example:
        >>> transform(GATConfig())(Data(x=torch.zeros(2, 3)))
        Data(x=[2, 3])
    """
    return Compose([])


class GAT(torch.nn.Module):
    """Attention along the edges, layer after layer, with dropout before each and ELU after all but the last.

    At level "node" the last layer gives the outputs, as published. At the others it gives `heads * channels` numbers a
    node, which a :class:`~graphformer.models.heads.Head` reads. Edge features enter where the data carry numbers.

    Args:
        config: The settings.
        features: What nodes and edges carry. Nodes with numbers alone enter as they are; categories are embedded.
        num_outputs: Number of outputs a graph, node or pair.
        level: What the outputs are of: "graph" (default), "node" or "link".

    Example:
        >>> data = Data(x=torch.ones(2, 3), edge_index=torch.tensor([[0], [1]]), target_index=torch.tensor([1]))
        >>> GAT(GATConfig(), Features(node_channels=3), num_outputs=7, level="node")(data).shape
        torch.Size([1, 7])

    References:
        Velickovic et al., "Graph attention networks", 2018; Brody et al., "How attentive are graph attention
        networks?", 2022.
    """

    def __init__(self, config: GATConfig, features: Features, num_outputs: int, level: Level = "graph") -> None:
        super().__init__()
        self.config, self.level = config, level
        width = config.heads * config.channels
        self.nodes = None if features.node_channels and not features.node_categories else NodeEncoder(features, width)
        self.edge_channels = features.edge_channels
        home = import_module("torch_geometric.nn" if config.library == "pyg" else "graphformer.nn")
        kind = home.GATConv if config.version == 1 else home.GATv2Conv
        last = num_outputs if level == "node" else width
        widths = [width if self.nodes is not None else features.node_channels] + [width] * (config.layers - 1)
        self.convs: Any = ModuleList(
            kind(
                before,
                last if number == config.layers else config.channels,
                heads=config.out_heads if number == config.layers else config.heads,
                concat=number < config.layers,
                dropout=config.attention_dropout,
                edge_dim=self.edge_channels or None,
            )
            for number, before in enumerate(widths, start=1)
        )
        self.dropout = Dropout(config.dropout)
        unread, remedy = features.graph_channels, "Give them to the nodes, as more columns of x."
        fits = level == "graph" or not unread
        require(fits, "GAT", "features.graph_channels", f"be 0 at level {level!r}", unread, remedy)
        self.head = (
            None
            if level == "node"
            else Head(level, width, num_outputs, dropout=config.dropout, graph_channels=features.graph_channels)
        )

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        for part in (self.nodes, *self.convs, self.head):
            if part is not None:
                part.reset_parameters()

    def forward(self, batch: Any) -> Tensor:
        """Read off the outputs.

        Args:
            batch: A PyG batch (or one `Data`), with what :class:`~graphformer.graphs.Features` and
                :class:`~graphformer.models.heads.Head` say.

        Returns:
            Shape `[B, num_outputs]` for graphs, `[T, num_outputs]` for nodes, `[P, num_outputs]` for pairs; floating.

        Raises:
            InputError: Something is missing, or a category is out of range.
        """
        edge_index = require_edges(batch, "GAT")
        x = batch.x if self.nodes is None else self.nodes(batch)
        edge_attr = batch.edge_attr if self.edge_channels else None
        for number, conv in enumerate(self.convs, start=1):
            x = conv(self.dropout(x), edge_index, edge_attr)
            if number < len(self.convs):
                x = torch.nn.functional.elu(x)
        return asked_nodes(x, batch) if self.head is None else self.head(x, batch)
