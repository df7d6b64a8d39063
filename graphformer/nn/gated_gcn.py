"""The gated graph convolution, whose edges have vectors that grow with the nodes'."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Linear
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.norm import BatchNorm

from graphformer._checks import require_count, require_probability
from graphformer.nn.dropout import Dropout

_EPSILON = 1e-6  # in the divisor, for nodes that hear nothing


class GatedGCN(MessagePassing):
    r"""Sums what the neighbours say, channel by channel through gates that edges open; nodes and edges are residual.

        e'[i,j] = C e[i,j] + D x[i] + E x[j],    gate = sigmoid(e'[i,j])
        x'[i]   = A x[i] + sum_j gate * B x[j] / (sum_j gate + 1e-6)
        returns   x + dropout(relu(norm(x'))),   e + dropout(relu(norm(e')))

    over the edges j -> i, with batch norms.

    Args:
        channels: Width of nodes and edges.
        dropout: Of nodes and edges in training, in [0, 1).
        last: Whether nobody reads the edges afterwards: they are returned as they came, and have no norm.

    Raises:
        InputError: A number is out of range.

    Example:
        >>> layer = GatedGCN(8)
        >>> x, edges = layer(torch.randn(3, 8), torch.tensor([[0, 1], [1, 2]]), torch.randn(2, 8))
        >>> x.shape, edges.shape
        (torch.Size([3, 8]), torch.Size([2, 8]))

    References:
        Bresson and Laurent, "Residual gated graph convnets", 2017; Dwivedi et al., "Benchmarking graph neural
        networks", 2020, whose formula this is.
    """

    def __init__(self, channels: int, dropout: float = 0.0, last: bool = False) -> None:
        super().__init__(aggr="add")
        require_count(channels, "GatedGCN", "channels")
        require_probability(dropout, "GatedGCN", "dropout")
        self.channels = channels
        self.lin_node = Linear(channels, 4 * channels)  # A, B, D and E in one product
        self.lin_edge = Linear(channels, channels)
        self.norm_node = BatchNorm(channels, allow_single_element=True)
        self.norm_edge = None if last else BatchNorm(channels, allow_single_element=True)
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        super().reset_parameters()
        for part in (self.lin_node, self.lin_edge, self.norm_node, self.norm_edge):
            if part is not None:
                part.reset_parameters()

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes `[N, C]` and edges `[E, C]`, both anew."""
        own, value, asked, asking = self.lin_node(x).split(self.channels, dim=1)
        edges = self.edge_updater(edge_index, asked=asked, asking=asking, edge_attr=self.lin_edge(edge_attr))
        weighted, gates = self.propagate(edge_index, value=value, gate=edges.sigmoid()).split(self.channels, dim=1)
        x = x + self.dropout(self.norm_node(own + weighted / (gates + _EPSILON)).relu())
        if self.norm_edge is None:
            return x, edge_attr
        return x, edge_attr + self.dropout(self.norm_edge(edges).relu())

    def edge_update(self, asked_i: Tensor, asking_j: Tensor, edge_attr: Tensor) -> Tensor:
        """What an edge becomes, before its norm. Shape `[E, C]`."""
        return asked_i + asking_j + edge_attr

    def message(self, value_j: Tensor, gate: Tensor) -> Tensor:
        """What an edge lets through, and how far it is open, side by side. Shape `[E, 2 C]`."""
        return torch.cat((gate * value_j, gate), dim=1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels})"
