"""The message-passing baselines of the Open Graph Benchmark: GIN and GCN, each with a virtual node or without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Dropout, Linear, ModuleList, Parameter, ReLU, Sequential
from torch_geometric.data import Data
from torch_geometric.nn.conv import GINEConv, MessagePassing
from torch_geometric.nn.norm import BatchNorm
from torch_geometric.transforms import Compose
from torch_geometric.utils import degree, scatter

from graphformer.graphs import Features
from graphformer.models.config import MPNNConfig
from graphformer.models.heads import Head, Level, members, require_edges
from graphformer.nn.features import EdgeEncoder, NodeEncoder


def transform(config: MPNNConfig) -> Callable[[Data], Data]:
    """What a sample passes once before training: nothing is added to it.

    Example:
        >>> transform(MPNNConfig())(Data(x=torch.zeros(2, 1).long()))
        Data(x=[2, 1])
    """
    return Compose([])


class MPNN(torch.nn.Module):
    """Message passing along the edges, layer after layer: the baselines that OGB publishes for molecules.

    A layer is norm(conv(x)), then, but for the last one, ReLU, then dropout. For an edge j -> i with vector e, of
    which every layer has an embedding of its own:

    * "gin": h((1 + eps) x[i] + sum relu(x[j] + e)), h a perceptron with a batch norm; PyG's `GINEConv`.
    * "gcn": with y = W x + b and d the number of a node's out-edges plus 1,
      sum relu(y[j] + e) / sqrt(d[j] d[i]) + relu(y[i] + root) / d[i].

    With `virtual_node`, each graph has a state s, which starts as one learned vector: before a layer it is added to the
    graph's nodes, and after it, but for the last one, s = dropout(perceptron(s + sum of the layer's input nodes)).

    Args:
        config: The settings.
        features: What nodes and edges carry; edges that carry nothing are one learned vector a layer.
        num_outputs: Number of outputs a graph, node or pair.
        level: What the outputs are of: "graph" (default), "node" or "link".

    Raises:
        InputError: The number of outputs is not positive.

    Example:
        >>> from torch_geometric.data import Batch
        >>> both_ways = torch.tensor([[0, 1], [1, 0]])
        >>> data = Data(x=torch.tensor([[0, 2], [1, 0]]), edge_index=both_ways, edge_attr=torch.tensor([[3], [3]]))
        >>> features = Features(node_categories=(2, 3), edge_categories=(4,))
        >>> MPNN(MPNNConfig(channels=8), features, num_outputs=1)(Batch.from_data_list([data] * 3)).shape
        torch.Size([3, 1])

    References:
        Hu et al., "Open graph benchmark: datasets for machine learning on graphs", 2020; Hu et al., "Strategies for
        pre-training graph neural networks", 2020; Kipf and Welling, "Semi-supervised classification with graph
        convolutional networks", 2017; Gilmer et al., "Neural message passing for quantum chemistry", 2017.
    """

    def __init__(self, config: MPNNConfig, features: Features, num_outputs: int, level: Level = "graph") -> None:
        super().__init__()
        self.config, self.features = config, features
        channels, layers = config.channels, config.layers
        make = _gin if config.conv == "gin" else _GCN
        self.nodes = NodeEncoder(features, channels)
        self.edges = EdgeEncoder(
            features, layers * channels
        )  # the layers' embeddings side by side: one look-up a table
        self.convs: Any = ModuleList(make(channels) for _ in range(layers))
        self.norms: Any = ModuleList(_norm(channels) for _ in range(layers))
        self.dropout = Dropout(config.dropout)
        self.state = Parameter(torch.empty(1, channels)) if config.virtual_node else None
        updates = layers - 1 if config.virtual_node else 0
        self.state_updates: Any = ModuleList(_state_update(channels) for _ in range(updates))
        self.head = Head(
            level, channels, num_outputs, hidden=(), pooling=config.pooling, graph_channels=features.graph_channels
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        for part in (self.nodes, self.edges, *self.convs, *self.norms, self.head):
            part.reset_parameters()
        for update in self.state_updates:
            for step in update:
                if not isinstance(step, ReLU):
                    step.reset_parameters()
        if self.state is not None:
            torch.nn.init.zeros_(self.state)

    def forward(self, batch: Data) -> Tensor:
        """Read off the outputs.

        Args:
            batch: A PyG batch (or one `Data`), with what :class:`~graphformer.graphs.Features` and
                :class:`~graphformer.models.heads.Head` say.

        Returns:
            Shape `[B, num_outputs]` for graphs, `[T, num_outputs]` for nodes, `[P, num_outputs]` for pairs; floating.

        Raises:
            InputError: Something is missing or of another shape or kind, or a category is out of range.
        """
        edge_index = require_edges(batch, "MPNN")
        x = self.nodes(batch)
        edges = self.edges(batch).split(self.config.channels, dim=1)
        member, num_graphs = members(batch)
        state = None if self.state is None else self.state.expand(num_graphs, -1)
        last = self.config.layers - 1
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if state is not None:
                x = x + state[member]
                if number < last:
                    gathered = scatter(x, member, dim_size=num_graphs) + state
                    state = self.dropout(self.state_updates[number](gathered))
            x = norm(conv(x, edge_index, edges[number]))
            x = self.dropout(x if number == last else x.relu())
        return self.head(x, batch)


class _GCN(MessagePassing):
    """The convolution "gcn" of :class:`MPNN`."""

    def __init__(self, channels: int) -> None:
        super().__init__(aggr="add")
        self.lin = Linear(channels, channels)
        self.root = Parameter(torch.empty(1, channels))

    def reset_parameters(self) -> None:
        self.lin.reset_parameters()
        torch.nn.init.normal_(self.root)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        x = self.lin(x)
        count = degree(edge_index[0], x.shape[0], dtype=x.dtype) + 1
        share = count.rsqrt()
        weight = (share[edge_index[0]] * share[edge_index[1]]).unsqueeze(-1)
        heard = self.propagate(edge_index, x=x, edge_attr=edge_attr, weight=weight)
        return heard + (x + self.root).relu() / count.unsqueeze(-1)

    def message(self, x_j: Tensor, edge_attr: Tensor, weight: Tensor) -> Tensor:
        return weight * (x_j + edge_attr).relu()


def _gin(channels: int) -> GINEConv:
    hidden = 2 * channels
    steps = Linear(channels, hidden), _norm(hidden), ReLU(), Linear(hidden, channels)
    return GINEConv(Sequential(*steps), train_eps=True)


def _state_update(channels: int) -> Sequential:
    hidden = 2 * channels
    first = Linear(channels, hidden), _norm(hidden), ReLU()
    return Sequential(*first, Linear(hidden, channels), _norm(channels), ReLU())


def _norm(channels: int) -> BatchNorm:
    return BatchNorm(channels, allow_single_element=True)  # a batch of one graph has no variance of its own
