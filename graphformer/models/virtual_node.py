"""The virtual node: a state a graph, which all its nodes read and write between the blocks of a model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Linear
from torch_geometric.nn.norm import BatchNorm
from torch_geometric.utils import scatter

from graphformer.nn.dropout import Dropout


class StateUpdate(torch.nn.Module):
    """Changes the state of each graph by the sum of its nodes; a model adds the state to the nodes.

    Args:
        channels: Width of state and nodes.
        hidden: Width of the hidden layer.
        dropout: On the change in training, in [0, 1).

    Example:
        >>> update = StateUpdate(4, hidden=8, dropout=0.0)
        >>> update(torch.zeros(2, 4), torch.randn(3, 4), torch.tensor([0, 0, 1])).shape
        torch.Size([2, 4])

    References:
        Gilmer et al., "Neural message passing for quantum chemistry", 2017.
    """

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = BatchNorm(channels, allow_single_element=True)
        self.lin_in = Linear(channels, hidden)
        self.lin_out = Linear(hidden, channels)
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        for part in (self.norm, self.lin_in, self.lin_out):
            part.reset_parameters()

    def forward(self, state: Tensor, x: Tensor, member: Tensor) -> Tensor:
        """The new states.

        Args:
            state: Shape `[B, channels]`.
            x: The nodes. Shape `[N, channels]`.
            member: The graph of each node. Shape `[N]`, int64.

        Returns:
            Shape `[B, channels]`.
        """
        gathered = self.norm(state + scatter(x, member, dim_size=state.shape[0]))
        return state + self.dropout(self.lin_out(self.lin_in(gathered).relu()))
