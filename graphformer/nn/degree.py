"""Giving attention back what its normalizer removes: how many keys a query has."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter


class DegreeScaler(torch.nn.Module):
    """Scales each channel by a learned affine function of the logarithm of the degree.

    out[n, c] = x[n, c] (a[c] + b[c] log(1 + degree[n])). Attention weights that sum to one make a mean, which cannot
    tell two equal neighbours from three; with this factor a model can. It starts as the identity (a = 1, b = 0).

    Args:
        channels: Width C.

    Example:
        >>> scaler = DegreeScaler(2)
        >>> torch.nn.init.ones_(scaler.slope).shape
        torch.Size([2])
        >>> scaler(torch.ones(2, 2), torch.tensor([0, 3])).detach()
        tensor([[1.0000, 1.0000],
                [2.3863, 2.3863]])

    References:
        Ma et al., "Graph inductive biases in transformers without message passing", 2023.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.offset = Parameter(torch.ones(channels))
        self.slope = Parameter(torch.zeros(channels))

    def reset_parameters(self) -> None:
        """Make it the identity again."""
        torch.nn.init.ones_(self.offset)
        torch.nn.init.zeros_(self.slope)

    def forward(self, x: Tensor, degree: Tensor) -> Tensor:
        """Scale nodes `[N, C]` by their degrees `[N]`."""
        return x * (self.offset + self.slope * degree.to(x.dtype).log1p().unsqueeze(-1))
