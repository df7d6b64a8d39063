"""Dropout whose mask is a function of (seed, edge id, head): DESIGN.md section 6."""

from __future__ import annotations

import torch
from torch import Tensor

from graphformer._philox import philox


def keep_scale(
    edge_id: Tensor, num_heads: int, dropout: float, seed: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """m / (1 - p) for each pair and head: 0 where it is dropped. Shape `[e, H]`.

    Args:
        edge_id: Shape `[e]`, int64.
        num_heads: H.
        dropout: p in [0, 1).
        seed: Shape `[]`, int64.
        dtype: Of the result.

    Example:
        >>> keep_scale(torch.arange(2), 3, 0.5, torch.tensor(0))
        tensor([[0., 2., 2.],
                [2., 0., 2.]])
    """
    edge_id = edge_id.unsqueeze(1)
    groups = torch.arange((num_heads + 3) // 4, device=edge_id.device)
    words = philox(seed, (edge_id & 0xFFFFFFFF, edge_id >> 32, groups, torch.zeros_like(groups)))
    draws = torch.stack(words, dim=-1).flatten(1)[:, :num_heads]
    return (draws >= int(dropout * 2**32)).to(dtype) / (1.0 - dropout)
