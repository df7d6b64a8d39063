"""A small transformer of gated sums along bonds, made for molecules."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import ModuleList
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform, Compose

from graphformer._checks import refuse, require
from graphformer.graphs import Features
from graphformer.models.config import GatedTransformerConfig
from graphformer.models.heads import Head, Level, members
from graphformer.models.virtual_node import StateUpdate
from graphformer.nn.block import TransformerBlock, make_norm
from graphformer.nn.features import NodeEncoder
from graphformer.patterns import Edges, EdgeType

_WHERE = "GatedTransformer"
_REMEDY = "Change edge_columns and edge_counts; empty ones make all edges alike."


class _NumberEdgeTypes(BaseTransform):
    """Stores `data.edge_type` [E]: some categories of each edge, read as one number."""

    def __init__(self, columns: tuple[int, ...], counts: tuple[int, ...]) -> None:
        self.columns, self.counts = columns, counts

    def forward(self, data: Data) -> Data:
        edges = data.edge_index
        number = torch.zeros(0 if edges is None else edges.shape[1], dtype=torch.int64)
        categories = data.edge_category if "edge_category" in data else data.edge_attr
        for place, column in enumerate(self.columns):
            if categories is None or categories.is_floating_point() or column >= categories.shape[1]:
                found = None if categories is None else f"{categories.dtype} {list(categories.shape)}"
                refuse(_WHERE, "edge_attr", f"hold categories in columns {list(self.columns)}", found, _REMEDY)
            number = number + categories[:, column] * prod(self.counts[place + 1 :])
        data.edge_type = number
        return data


def transform(config: GatedTransformerConfig) -> Callable[[Data], Data]:
    """What a sample passes once before training: its edges' types and its attention graph are stored on it.

    The transform raises an InputError for edges without the categories that the settings name.

    Example:
        >>> data = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), edge_attr=torch.tensor([[4, 0, 1]] * 2), num_nodes=2)
        >>> transform(GatedTransformerConfig())(data).attention_graph.relation
        tensor([9, 9], dtype=torch.int32)
    """
    edges = Edges().as_relation(EdgeType(config.num_types))
    return Compose([_NumberEdgeTypes(config.edge_columns, config.edge_counts), edges])


class GatedTransformer(torch.nn.Module):
    """Lets every node take a gated sum of its neighbours, block after block, beside a state of the whole graph.

    A block is a pre-norm transformer block whose attention weighs each edge e = (j -> i) by itself: with r the edge's
    type and D the width of a head h,

        gate[e,h] = sigmoid(q[i,h] . (k[j,h] + s[r,h]) / sqrt(D) + t[r,h])
        y[i,h] = sum over e of gate[e,h] (v[j,h] + u[r,h])

    Gates, unlike the shares of a softmax, do not compete, so that y counts neighbours as sum aggregation does; and
    unlike in a plain sum, a node closes itself to neighbours that do not matter.

    Args:
        config: The settings.
        features: What nodes and edges carry.
        num_outputs: Number of outputs a graph, node or pair.
        level: What the outputs are of: "graph" (default), "node" or "link".

    Raises:
        InputError: The edges' categories are not those of `config.edge_columns` and `config.edge_counts`.

    Example:
        >>> from torch_geometric.data import Batch
        >>> config = GatedTransformerConfig(channels=16)
        >>> both_ways = torch.tensor([[0, 1], [1, 0]])
        >>> bond = torch.tensor([[3, 0, 1], [3, 0, 1]])
        >>> data = Data(x=torch.tensor([[0], [1]]), edge_index=both_ways, edge_attr=bond)
        >>> batch = Batch.from_data_list([transform(config)(data)] * 3)
        >>> GatedTransformer(config, Features((2,), 0, (5, 6, 2)), num_outputs=1)(batch).shape
        torch.Size([3, 1])

    References:
        Ramapuram et al., "Theory, analysis, and best practices for sigmoid self-attention", 2025; Bresson and
        Laurent, "Residual gated graph convnets", 2017; Shaw et al., "Self-attention with relative position
        representations", 2018; Gilmer et al., "Neural message passing for quantum chemistry", 2017.
    """

    def __init__(
        self, config: GatedTransformerConfig, features: Features, num_outputs: int, level: Level = "graph"
    ) -> None:
        super().__init__()
        found = features.edge_categories
        pairs = zip(config.edge_columns, config.edge_counts, strict=True)
        fits = all(column < len(found) and found[column] == count for column, count in pairs)
        rule = f"have {list(config.edge_counts)} values in columns {list(config.edge_columns)}"
        require(fits, _WHERE, "features.edge_categories", rule, list(found), _REMEDY)
        channels, dropout = config.channels, config.dropout
        self.config, self.features = config, features
        self.nodes = NodeEncoder(features, channels)
        self.blocks = ModuleList(
            TransformerBlock(
                channels,
                config.heads,
                feed_forward=config.feed_forward,
                norm=config.norm,
                dropout=dropout,
                num_relations=config.num_types + 1,
                relation_vectors=True,
                normalizer="sigmoid",
            )
            for _ in range(config.layers)
        )
        updates = config.layers - 1 if config.virtual_node else 0
        self.state_updates = ModuleList(StateUpdate(channels, channels, dropout) for _ in range(updates))
        self.norm = make_norm(config.norm, channels)
        self.head = Head(
            level,
            channels,
            num_outputs,
            dropout=dropout,
            pooling=config.pooling,
            graph_channels=features.graph_channels,
        )

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        part: Any
        for part in (self.nodes, *self.blocks, *self.state_updates, self.norm, self.head):
            part.reset_parameters()

    def forward(self, batch: Any) -> Tensor:
        """Read off the outputs.

        Args:
            batch: A PyG batch (or one `Data`) of samples that passed :func:`transform`, with what
                :class:`~graphformer.graphs.Features` and :class:`~graphformer.models.heads.Head` say.

        Returns:
            Shape `[B, num_outputs]` for graphs, `[T, num_outputs]` for nodes, `[P, num_outputs]` for pairs; floating.

        Raises:
            InputError: Something is missing, or a category is out of range.
        """
        if "attention_graph" not in batch:
            remedy = "Pass each sample through transform(config) first."
            refuse(_WHERE, "batch", "carry attention_graph", "none", remedy)
        graph = batch.attention_graph
        member, num_graphs = members(batch)
        x = self.nodes(batch)
        # The kernel's sigmoid divides by the degree; this takes the division back: a sum, not a mean.
        undo = graph.degree.to(x.dtype).log()[graph.edge_index[1]]
        state = x.new_zeros(num_graphs, x.shape[1])
        for number, block in enumerate(self.blocks):
            if number > 0 and self.state_updates:
                state = self.state_updates[number - 1](state, x, member)
                x = x + state[member]
            x = block(x, graph, edge_bias=undo)
        return self.head(self.norm(x), batch)
