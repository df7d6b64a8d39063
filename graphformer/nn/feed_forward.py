"""The feed-forward part of a transformer block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Linear

from graphformer._checks import require_choice, require_count, require_probability
from graphformer.nn.dropout import Dropout

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.nn.functional.relu,
    "gelu": torch.nn.functional.gelu,
}


class FeedForward(torch.nn.Module):
    """Two linear maps with an activation between them, on each node alone.

    Args:
        channels: Width of input and output.
        hidden: Width between the two maps.
        activation: "relu" or "gelu".
        dropout: Probability with which a hidden unit is dropped in training, in [0, 1).

    Raises:
        InputError: The activation is unknown or a number is out of range.

    Example:
        >>> FeedForward(8, 16)(torch.randn(5, 8)).shape
        torch.Size([5, 8])
    """

    def __init__(self, channels: int, hidden: int, *, activation: str = "relu", dropout: float = 0.0) -> None:
        super().__init__()
        where = "FeedForward"
        require_count(channels, where, "channels")
        require_count(hidden, where, "hidden")
        require_choice(activation, _ACTIVATIONS, where, "activation")
        require_probability(dropout, where, "dropout")
        self.activation = activation
        self.lin_in = Linear(channels, hidden)
        self.lin_out = Linear(hidden, channels)
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        self.lin_in.reset_parameters()
        self.lin_out.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Map nodes `[N, C]` to `[N, C]`."""
        return self.lin_out(self.dropout(_ACTIVATIONS[self.activation](self.lin_in(x))))
