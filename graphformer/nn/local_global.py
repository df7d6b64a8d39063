"""The layer of hybrid graph transformers: a convolution along the edges beside attention, then a feed-forward part."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch_geometric.nn
from torch import Tensor
from torch.nn import Linear, ReLU, Sequential
from torch_geometric.nn.conv import GCNConv, GINConv, GINEConv, MessagePassing
from torch_geometric.nn.norm import BatchNorm

from graphformer._checks import refuse
from graphformer.nn.conv.gat_conv import GATConv
from graphformer.nn.dropout import Dropout
from graphformer.nn.feed_forward import FeedForward
from graphformer.nn.gated_gcn import GatedGCN

_WHERE = "LocalConv"


class LocalConv(torch.nn.Module):
    """A convolution chosen by name, residual: x + dropout(conv(x)).

    Args:
        name: "gine", "gin" (both with a perceptron of one hidden layer), "gcn", "gat", "gatedgcn" (:class:`GatedGCN`,
            which also changes the edges), or the name of a class of `torch_geometric.nn` that needs no arguments but
            the widths `in_channels` and `out_channels`, such as "SAGEConv" or "GENConv".
        channels: Width of nodes and edges.
        heads: Heads of "gat".
        dropout: Of the result in training, in [0, 1).
        last: As in :class:`GatedGCN`.

    Raises:
        InputError: No such convolution, or one that needs further arguments.

    Example:
        >>> local = LocalConv("gcn", 8)
        >>> x, edges = local(torch.randn(3, 8), torch.tensor([[0, 1], [1, 2]]), None)
        >>> x.shape, local.reads_edges
        (torch.Size([3, 8]), False)
    """

    def __init__(self, name: str, channels: int, heads: int = 1, dropout: float = 0.0, last: bool = False) -> None:
        super().__init__()
        self.conv = _make(name, channels, heads, dropout, last)
        self.reads_edges = name in ("gine", "gat", "gatedgcn") or _takes_edges(type(self.conv))
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        self.conv.reset_parameters()

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Nodes `[N, C]` anew, and the edges `[E, C]`, which only "gatedgcn" changes."""
        if isinstance(self.conv, GatedGCN):
            return self.conv(x, edge_index, edge_attr)
        heard = self.conv(x, edge_index, edge_attr) if self.reads_edges else self.conv(x, edge_index)
        return x + self.dropout(heard), edge_attr


class LocalGlobalLayer(torch.nn.Module):
    """norm(h + feed_forward(h)) of h = norm(local(x)) + norm(x + attention(x)), with batch norms.

    Rampasek et al., "Recipe for a general, powerful, scalable graph transformer", 2022. What attention gives is an
    argument of forward, so that any attention can stand there.

    Args:
        channels: Width C of the nodes.
        local: The convolution; None: attention alone.
        dropout: Of what attention gives, and in the feed-forward part, in training; in [0, 1).

    Example:
        >>> layer = LocalGlobalLayer(8, LocalConv("gcn", 8))
        >>> x = torch.randn(3, 8)
        >>> layer(x, torch.tensor([[0, 1], [1, 2]]), None, heard=torch.zeros(3, 8))[0].shape
        torch.Size([3, 8])
    """

    def __init__(self, channels: int, local: LocalConv | None, dropout: float = 0.0) -> None:
        super().__init__()
        self.local = local
        self.local_norm = None if local is None else _norm(channels)
        self.attention_norm = _norm(channels)
        self.feed_forward = FeedForward(channels, 2 * channels, dropout=dropout)
        self.norm = _norm(channels)
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        part: Any
        for part in (self.local, self.local_norm, self.attention_norm, self.feed_forward, self.norm):
            if part is not None:
                part.reset_parameters()

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None, heard: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Nodes and edges anew.

        Args:
            x: Nodes. Shape `[N, C]`.
            edge_index: Edges. Shape `[2, E]`, int64.
            edge_attr: Vectors of the edges, where the convolution reads them. Shape `[E, C]`.
            heard: What attention gives each node. Shape `[N, C]`.
        """
        out = self.attention_norm(x + self.dropout(heard))
        if self.local is not None and self.local_norm is not None:
            near, edge_attr = self.local(x, edge_index, edge_attr)
            out = out + self.local_norm(near)
        return self.norm(out + self.dropout(self.feed_forward(out))), edge_attr


def _make(name: str, channels: int, heads: int, dropout: float, last: bool) -> Any:
    if name == "gatedgcn":
        return GatedGCN(channels, dropout, last)
    if name in ("gine", "gin"):
        kind = GINEConv if name == "gine" else GINConv
        return kind(Sequential(Linear(channels, channels), ReLU(), Linear(channels, channels)))
    if name == "gcn":
        return GCNConv(channels, channels)
    if name == "gat":
        return GATConv(channels, channels // heads, heads=heads, edge_dim=channels)
    known: Any = getattr(torch_geometric.nn, name, None)
    if not (isinstance(known, type) and issubclass(known, MessagePassing)):
        remedy = "Write gine, gin, gcn, gat, gatedgcn, or a class of torch_geometric.nn such as SAGEConv."
        refuse(_WHERE, "name", "be a convolution", repr(name), remedy)
    parameters = inspect.signature(known).parameters.values()
    needed = {
        part.name for part in parameters if part.default is part.empty and part.kind is part.POSITIONAL_OR_KEYWORD
    }
    if needed != {"in_channels", "out_channels"}:
        remedy = "Take another, or write a model of your own around it."
        refuse(_WHERE, "name", "need no arguments but in_channels and out_channels", sorted(needed), remedy)
    return known(channels, channels, **({"edge_dim": channels} if _takes_edges(known) else {}))


def _takes_edges(kind: type) -> bool:
    """Whether a PyG layer reads edge vectors of a width that it is told."""
    told = "edge_dim" in inspect.signature(kind).parameters
    return told and "edge_attr" in inspect.signature(kind.forward).parameters  # type: ignore[attr-defined]


def _norm(channels: int) -> BatchNorm:
    return BatchNorm(channels, allow_single_element=True)  # a batch of one node has no variance of its own
