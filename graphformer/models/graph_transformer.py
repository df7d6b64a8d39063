"""A small edge-aware graph transformer, made for molecules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Embedding, ModuleList
from torch_geometric.data import Data
from torch_geometric.nn.norm import BatchNorm
from torch_geometric.transforms import Compose
from torch_geometric.utils import scatter

from graphformer import patterns
from graphformer._checks import refuse
from graphformer.graphs import Features
from graphformer.models.config import GraphTransformerConfig
from graphformer.models.heads import Head, Level, members, require_edges
from graphformer.models.virtual_node import StateUpdate
from graphformer.nn.block import TransformerBlock
from graphformer.nn.encodings import LaplacianEncoding, RandomWalkEncoding
from graphformer.nn.features import NodeEncoder, edge_vectors
from graphformer.nn.structure import AddLaplacianEigenvectors, AddRandomWalk

_WHERE = "GraphTransformer"
_MAX_DEGREE = 16  # nodes with more edges share a centrality embedding


def transform(config: GraphTransformerConfig) -> Callable[[Data], Data]:
    """What a sample passes once before training: its encodings and its attention graph are stored on it.

    Args:
        config: The model's settings; the same ones build the model.

    Returns:
        A PyG transform: takes a `Data` and returns a copy with `random_walk`, `laplacian_eigenvectors` (where the
        settings ask for them) and `attention_graph`.

    Example:
        >>> from torch_geometric.data import Data
        >>> data = Data(x=torch.zeros(2, 1).long(), edge_index=torch.tensor([[0, 1], [1, 0]]))
        >>> transform(GraphTransformerConfig(walk_steps=4))(data).random_walk.shape
        torch.Size([2, 4])
    """
    steps: list[Any] = []
    if config.walk_steps:
        steps.append(AddRandomWalk(config.walk_steps))
    if config.laplacian:
        steps.append(AddLaplacianEigenvectors(config.laplacian))
    return Compose([*steps, patterns.parse(config.pattern)])


class GraphTransformer(torch.nn.Module):
    """Embeds nodes, lets them attend along a pattern block after block, and reads off the outputs.

    A node starts as the sum of its features' embeddings, of its degree's (centrality, as in Graphormer) and of its
    encodings. Every block is a pre-norm transformer block whose attention sees the edges' features in keys and
    values, and whose output is scaled by degree, since a softmax mean forgets how many neighbours there were. With
    `virtual_node`, each graph has a state besides, as in GIN-VN: added to its nodes before a block, and updated from
    their sum after it. The edge's features enter where the pattern holds the node set's own edges (`Edges`); a pair
    that is no such edge has none.

    Args:
        config: The settings.
        features: What nodes and edges carry.
        num_outputs: Number of outputs a graph, node or pair.
        level: What the outputs are of: "graph" (default), "node" or "link".

    Raises:
        InputError: The number of outputs is not positive, or the pattern cannot be read.

    Example:
        >>> from torch_geometric.data import Batch, Data
        >>> config = GraphTransformerConfig(channels=16, layers=2)
        >>> both_ways = torch.tensor([[0, 1], [1, 0]])
        >>> data = Data(x=torch.tensor([[0, 2], [1, 0]]), edge_index=both_ways, edge_attr=torch.tensor([[3], [3]]))
        >>> batch = Batch.from_data_list([transform(config)(data)] * 3)
        >>> features = Features(node_categories=(2, 3), edge_categories=(4,))
        >>> GraphTransformer(config, features, num_outputs=1)(batch).shape
        torch.Size([3, 1])

    References:
        Dwivedi and Bresson, "A generalization of transformer networks to graphs", 2021; Ying et al., "Do transformers
        really perform badly for graph representation?", 2021; Rampasek et al., "Recipe for a general, powerful,
        scalable graph transformer", 2022.
    """

    def __init__(
        self, config: GraphTransformerConfig, features: Features, num_outputs: int, level: Level = "graph"
    ) -> None:
        super().__init__()
        self.config, self.features = config, features
        channels = config.channels
        self.nodes = NodeEncoder(features, channels)
        self.degree_embedding = Embedding(_MAX_DEGREE + 1, channels)
        self.random_walk = RandomWalkEncoding(config.walk_steps, channels) if config.walk_steps else None
        self.laplacian = LaplacianEncoding(config.laplacian, channels) if config.laplacian else None
        has_own_edges, num_relations = _labels_of(config.pattern)
        self.reads_edges = has_own_edges and features.edge_width > 0
        self.blocks = ModuleList(
            TransformerBlock(
                channels,
                config.heads,
                feed_forward=config.feed_forward,
                norm=config.norm,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                degree_scaler=True,
                edge_dim=features.edge_width if self.reads_edges else None,
                num_relations=num_relations,
            )
            for _ in range(config.layers)
        )
        hidden = config.feed_forward * channels
        updates = config.layers - 1 if config.virtual_node else 0
        self.state_updates = ModuleList(StateUpdate(channels, hidden, config.dropout) for _ in range(updates))
        self.norm = (
            BatchNorm(channels, allow_single_element=True) if config.norm == "batch" else torch.nn.LayerNorm(channels)
        )
        self.head = Head(
            level,
            channels,
            num_outputs,
            dropout=config.dropout,
            pooling=config.pooling,
            graph_channels=features.graph_channels,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        part: Any
        for part in (*self.blocks, *self.state_updates, self.norm, self.random_walk, self.laplacian, self.head):
            if part is not None:
                part.reset_parameters()
        self.nodes.reset_parameters()
        torch.nn.init.normal_(self.degree_embedding.weight, std=0.3)  # a tenth of the variance of the features

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
        graph = _stored(batch, "attention_graph")
        require_edges(batch, _WHERE)
        member, num_graphs = members(batch)
        x = self._embed(batch, member, num_graphs)
        edge_attr = edge_vectors(batch, self.features, x.dtype) if self.reads_edges else None
        state = x.new_zeros(num_graphs, x.shape[1])
        for number, block in enumerate(self.blocks):
            if number > 0 and self.state_updates:
                state = self.state_updates[number - 1](state, x, member)
                x = x + state[member]
            x = block(x, graph, edge_attr)
        return self.head(self.norm(x), batch)

    def _embed(self, batch: Data, member: Tensor, num_graphs: int) -> Tensor:
        nodes = self.nodes(batch)
        degree = scatter(torch.ones_like(batch.edge_index[1]), batch.edge_index[1], dim_size=batch.num_nodes)
        out = nodes + self.degree_embedding(degree.clamp(max=_MAX_DEGREE))
        if self.random_walk is not None:
            out = out + self.random_walk(_stored(batch, "random_walk"))
        if self.laplacian is not None:
            out = out + self.laplacian(_stored(batch, "laplacian_eigenvectors"), member, num_graphs)
        return out


def _labels_of(pattern: str) -> tuple[bool, int | None]:
    """Whether a pattern's graphs know the node set's own edges, and how many relations they carry."""
    one_node = Data(edge_index=torch.empty(2, 0, dtype=torch.int64), num_nodes=1)
    graph = patterns.parse(pattern).on(one_node)
    return graph.own_edge is not None, graph.num_relations or None


def _stored(batch: Data, name: str) -> Any:
    if name not in batch:
        refuse(_WHERE, "batch", f"carry {name}", "none", "Pass each sample through transform(config) first.")
    return getattr(batch, name)
