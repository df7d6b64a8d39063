"""The transformer encoder block over an attention graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.norm import BatchNorm

from graphformer._checks import refuse, require_choice, require_count, require_probability
from graphformer.graphs import AttentionGraph
from graphformer.nn.attention import GraphAttention
from graphformer.nn.degree import DegreeScaler
from graphformer.nn.dropout import Dropout
from graphformer.nn.feed_forward import FeedForward


class TransformerBlock(torch.nn.Module):
    """Attention, then a feed-forward part, each with a residual and a norm (Vaswani et al. 2017).

    Pre-norm: x + attention(norm(x)), then x + feed_forward(norm(x)). Post-norm: norm(x + attention(x)), then
    norm(x + feed_forward(x)). With `norm="layer"` and a full pattern this is `torch.nn.TransformerEncoderLayer`.

    Args:
        channels: Width C of the nodes, a multiple of `heads`.
        heads: Number of heads.
        feed_forward: Width of the hidden layer, in multiples of `channels`. Default 4, as in Vaswani et al.
        norm: "layer" (each node by itself) or "batch" (each channel over the batch's nodes).
        norm_first: Pre-norm, which trains without warm-up (Xiong et al. 2020), or post-norm.
        dropout: On the output of both parts and on the hidden layer, in training; in [0, 1).
        attention_dropout: On the attention weights, in training; in [0, 1).
        activation: "relu" or "gelu".
        degree_scaler: Whether the attention's output passes a :class:`DegreeScaler` over the number of a query's keys.
        edge_dim: As in :class:`GraphAttention`.
        num_relations: As in :class:`GraphAttention`.
        relation_vectors: As in :class:`GraphAttention`.
        score: As in :class:`GraphAttention`.
        normalizer: As in :class:`GraphAttention`.
        backend: As in :class:`GraphAttention`.

    Raises:
        InputError: A name is unknown or a number is out of range.

    Example:
        >>> graph = AttentionGraph.from_dense(torch.ones(5, 5).bool())
        >>> TransformerBlock(16, heads=4)(torch.randn(5, 16), graph).shape
        torch.Size([5, 16])
    """

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        *,
        feed_forward: int = 4,
        norm: str = "layer",
        norm_first: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        activation: str = "relu",
        degree_scaler: bool = False,
        edge_dim: int | None = None,
        num_relations: int | None = None,
        relation_vectors: bool = False,
        score: str = "dot",
        normalizer: str = "softmax",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        where = "TransformerBlock"
        require_count(channels, where, "channels")
        require_count(feed_forward, where, "feed_forward", "It multiplies channels.")
        require_probability(dropout, where, "dropout")
        require_probability(attention_dropout, where, "attention_dropout")
        require_choice(norm, ("layer", "batch"), where, "norm")
        self.norm_first = norm_first
        self.attention = GraphAttention(
            channels,
            channels,
            heads,
            edge_dim=edge_dim,
            num_relations=num_relations,
            relation_vectors=relation_vectors,
            score=score,
            normalizer=normalizer,
            dropout=attention_dropout,
            backend=backend,
        )
        self.degree_scaler = DegreeScaler(channels) if degree_scaler else None
        self.feed_forward = FeedForward(channels, feed_forward * channels, activation=activation, dropout=dropout)
        self.attention_norm = make_norm(norm, channels)
        self.feed_forward_norm = make_norm(norm, channels)
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        part: Any
        for part in self.children():
            if not isinstance(part, torch.nn.Dropout):
                part.reset_parameters()

    def forward(
        self, x: Tensor, graph: AttentionGraph, edge_attr: Tensor | None = None, *, edge_bias: Tensor | None = None
    ) -> Tensor:
        """Map nodes `[N, C]` to `[N, C]`; graph, edge features and bias as in :meth:`GraphAttention.forward`.

        Raises:
            InputError: x has another shape, or as in :meth:`GraphAttention.forward`.
        """
        channels = self.attention.out_channels
        if not (isinstance(x, Tensor) and x.dim() == 2 and x.shape[1] == channels):
            got = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
            refuse("TransformerBlock", "x", f"have shape [N, {channels}]", got, "Its width is channels.")
        if self.norm_first:
            x = x + self._attend(self.attention_norm(x), graph, edge_attr, edge_bias)
            return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        x = self.attention_norm(x + self._attend(x, graph, edge_attr, edge_bias))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))

    def _attend(self, x: Tensor, graph: AttentionGraph, edge_attr: Tensor | None, edge_bias: Tensor | None) -> Tensor:
        x = self.attention(x, graph, edge_attr, edge_bias=edge_bias)
        if self.degree_scaler is not None:
            x = self.degree_scaler(x, graph.degree)
        return self.dropout(x)


def make_norm(norm: str, channels: int) -> torch.nn.Module:
    """The norm of that name over `channels`: "layer" or "batch".

    Example:
        >>> make_norm("layer", 8)(torch.randn(3, 8)).shape
        torch.Size([3, 8])
    """
    if norm == "layer":
        return torch.nn.LayerNorm(channels)
    return BatchNorm(channels, allow_single_element=True)  # a batch of one node has no variance of its own
