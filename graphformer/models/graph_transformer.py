"""A graph transformer for properties of whole graphs, such as molecules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Dropout, Embedding, Linear, ModuleList, ReLU, Sequential
from torch_geometric.data import Data
from torch_geometric.nn.norm import BatchNorm
from torch_geometric.transforms import Compose
from torch_geometric.utils import scatter

from graphformer import patterns
from graphformer._checks import refuse, require, require_count
from graphformer.models.config import GraphTransformerConfig
from graphformer.nn.block import TransformerBlock
from graphformer.nn.encodings import LaplacianEncoding, RandomWalkEncoding
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
    """Embeds nodes, lets them attend along a pattern block after block, pools each graph and reads off its outputs.

    A node starts as the sum of its categories' embeddings, of its degree's (centrality, as in Graphormer) and of its
    encodings. Every block is a pre-norm transformer block whose attention sees the edges' categories in keys and
    values, and whose output is scaled by degree, since a softmax mean forgets how many neighbours there were. With
    `virtual_node`, each graph has a state besides, as in GIN-VN: added to its nodes before a block, and updated from
    their sum after it. The edge's categories enter where the pattern holds the node set's own edges (`Edges`); a pair
    that is no such edge has none.

    Args:
        config: The settings.
        node_categories: Number of values of each categorical node feature.
        edge_categories: Number of values of each categorical edge feature; empty: edges have none.
        num_outputs: Number of outputs a graph.

    Raises:
        InputError: A number of values or outputs is not positive, or the pattern cannot be read.

    Example:
        >>> from torch_geometric.data import Batch, Data
        >>> config = GraphTransformerConfig(channels=16, layers=2)
        >>> both_ways = torch.tensor([[0, 1], [1, 0]])
        >>> data = Data(x=torch.tensor([[0, 2], [1, 0]]), edge_index=both_ways, edge_attr=torch.tensor([[3], [3]]))
        >>> batch = Batch.from_data_list([transform(config)(data)] * 3)
        >>> GraphTransformer(config, node_categories=[2, 3], edge_categories=[4], num_outputs=1)(batch).shape
        torch.Size([3, 1])

    References:
        Dwivedi and Bresson, "A generalization of transformer networks to graphs", 2021; Ying et al., "Do transformers
        really perform badly for graph representation?", 2021; Rampasek et al., "Recipe for a general, powerful,
        scalable graph transformer", 2022.
    """

    def __init__(
        self,
        config: GraphTransformerConfig,
        node_categories: Sequence[int],
        edge_categories: Sequence[int],
        num_outputs: int,
    ) -> None:
        super().__init__()
        for name, counts in (("node_categories", node_categories), ("edge_categories", edge_categories)):
            positive = all(count > 0 for count in counts)
            require(
                positive, _WHERE, name, "hold positive counts", list(counts), "Give each feature's number of values."
            )
        require_count(num_outputs, _WHERE, "num_outputs", "Give the number of tasks.")
        self.config = config
        self.node_categories = tuple(node_categories)
        self.edge_categories = tuple(edge_categories)
        channels = config.channels
        self.node_embeddings = ModuleList(Embedding(count, channels) for count in node_categories)
        self.degree_embedding = Embedding(_MAX_DEGREE + 1, channels)
        self.random_walk = RandomWalkEncoding(config.walk_steps, channels) if config.walk_steps else None
        self.laplacian = LaplacianEncoding(config.laplacian, channels) if config.laplacian else None
        has_own_edges, num_relations = _labels_of(config.pattern)
        self.reads_edges = has_own_edges and len(self.edge_categories) > 0
        self.blocks = ModuleList(
            TransformerBlock(
                channels,
                config.heads,
                feed_forward=config.feed_forward,
                norm=config.norm,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                degree_scaler=True,
                edge_dim=sum(self.edge_categories) if self.reads_edges else None,
                num_relations=num_relations,
            )
            for _ in range(config.layers)
        )
        hidden = config.feed_forward * channels
        updates = config.layers - 1 if config.virtual_node else 0
        self.state_updates = ModuleList(_StateUpdate(channels, hidden, config.dropout) for _ in range(updates))
        self.norm = (
            BatchNorm(channels, allow_single_element=True) if config.norm == "batch" else torch.nn.LayerNorm(channels)
        )
        self.head = Sequential(
            Linear(channels, channels), ReLU(), Dropout(config.dropout), Linear(channels, num_outputs)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        part: Any
        for part in (*self.blocks, *self.state_updates, self.norm, self.random_walk, self.laplacian):
            if part is not None:
                part.reset_parameters()
        for part in self.head:
            if isinstance(part, Linear):
                part.reset_parameters()
        for table in (*self.node_embeddings, self.degree_embedding):
            torch.nn.init.normal_(table.weight, std=(len(self.node_embeddings) + 1) ** -0.5)  # the sum has variance 1

    def forward(self, batch: Data) -> Tensor:
        """Read off the outputs of each graph.

        Args:
            batch: A PyG batch (or one `Data`) of samples that passed :func:`transform`, with `x`
                `[N, len(node_categories)]` and `edge_attr` `[E, len(edge_categories)]`, both int64 categories.

        Returns:
            Shape `[B, num_outputs]`, floating.

        Raises:
            InputError: Something that the settings ask for is missing, or a category is out of range.
        """
        graph = _stored(batch, "attention_graph")
        if getattr(batch, "edge_index", None) is None:
            refuse(
                _WHERE, "batch", "carry edge_index", None, "Give edges; torch.empty(2, 0).long() where there are none."
            )
        num_graphs = batch.num_graphs if batch.batch is not None else 1
        member = batch.batch if batch.batch is not None else batch.edge_index.new_zeros(batch.num_nodes)
        x = self._embed(batch, member, num_graphs)
        edge_attr = self._edge_features(batch, x.dtype) if self.reads_edges else None
        state = x.new_zeros(num_graphs, x.shape[1])
        for number, block in enumerate(self.blocks):
            if number > 0 and self.state_updates:
                state = self.state_updates[number - 1](state, x, member)
                x = x + state[member]
            x = block(x, graph, edge_attr)
        pooled = scatter(self.norm(x), member, dim_size=num_graphs, reduce=self.config.pooling)
        return self.head(pooled)

    def _embed(self, batch: Data, member: Tensor, num_graphs: int) -> Tensor:
        _check_categories("x", batch.x, self.node_categories)
        degree = scatter(torch.ones_like(batch.edge_index[1]), batch.edge_index[1], dim_size=batch.num_nodes)
        out = self.degree_embedding(degree.clamp(max=_MAX_DEGREE))
        for embedding, column in zip(self.node_embeddings, batch.x.unbind(1), strict=True):
            out = out + embedding(column)
        if self.random_walk is not None:
            out = out + self.random_walk(_stored(batch, "random_walk"))
        if self.laplacian is not None:
            out = out + self.laplacian(_stored(batch, "laplacian_eigenvectors"), member, num_graphs)
        return out

    def _edge_features(self, batch: Data, dtype: torch.dtype) -> Tensor:
        _check_categories("edge_attr", batch.edge_attr, self.edge_categories)
        columns = zip(batch.edge_attr.unbind(1), self.edge_categories, strict=True)
        return torch.cat([torch.nn.functional.one_hot(*column) for column in columns], dim=1).to(dtype)


class _StateUpdate(torch.nn.Module):
    """The virtual node: a state a graph, changed by the sum of its nodes."""

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = BatchNorm(channels, allow_single_element=True)
        self.lin_in = Linear(channels, hidden)
        self.lin_out = Linear(hidden, channels)
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        for part in (self.norm, self.lin_in, self.lin_out):
            part.reset_parameters()

    def forward(self, state: Tensor, x: Tensor, member: Tensor) -> Tensor:
        gathered = self.norm(state + scatter(x, member, dim_size=state.shape[0]))
        return state + self.dropout(self.lin_out(self.lin_in(gathered).relu()))


def _labels_of(pattern: str) -> tuple[bool, int | None]:
    """Whether a pattern's graphs know the node set's own edges, and how many relations they carry."""
    one_node = Data(edge_index=torch.empty(2, 0, dtype=torch.int64), num_nodes=1)
    graph = patterns.parse(pattern).on(one_node)
    return graph.own_edge is not None, graph.num_relations or None


def _stored(batch: Data, name: str) -> Any:
    if name not in batch:
        refuse(_WHERE, "batch", f"carry {name}", "none", "Pass each sample through transform(config) first.")
    return getattr(batch, name)


def _check_categories(name: str, values: Tensor | None, categories: tuple[int, ...]) -> None:
    if values is None or values.dim() != 2 or values.shape[1] != len(categories):
        found = None if values is None else list(values.shape)
        refuse(_WHERE, name, f"have shape [*, {len(categories)}]", found, "Give one column a categorical feature.")
    if values.dtype != torch.int64:
        refuse(_WHERE, name, "hold int64 categories", values.dtype, "Convert it with .long().")
    # A GPU reports a bad id by its own assertion; looking here would make it wait.
    if values.device.type != "cpu" or torch.compiler.is_compiling() or values.shape[0] == 0:
        return
    for column, (low, high, count) in enumerate(zip(values.amin(0), values.amax(0), categories, strict=True)):
        rule = f"lie in [0, {count}) in column {column}"
        require(low >= 0 and high < count, _WHERE, name, rule, f"{low} to {high}", "Correct the number of categories.")
