"""The settings of GT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphformer._checks import require, require_choice, require_count, require_probability


@dataclass(frozen=True)
class GTConfig:
    """The settings of :class:`~graphformer.models.GT`; the defaults are those published for ZINC.

    Args:
        channels: Width of nodes and edges, a multiple of `heads`.
        layers: Number of layers.
        heads: Number of attention heads.
        feed_forward: Width of the hidden layers, in multiples of `channels`.
        dropout: On the output of attention and inside the feed-forward parts in training, in [0, 1).
        norm: "batch" (each channel over the batch's nodes) or "layer" (each node by itself).
        laplacian: Eigenvectors of the Laplacian encoding; 0: none.
        full_graph: Whether every node attends to its whole graph, not to its neighbours only.
        update_last_edges: Whether the last layer updates its edges as well, as the published code does although
            nothing reads them. Its parameters count and never train.
        pooling: "sum", "mean" or "max" of the nodes of a graph.

    Raises:
        InputError: A value is of the wrong kind or out of range, or a name is unknown.

    Example:
        >>> GTConfig(layers=2).channels
        64
    """

    channels: int = 64
    layers: int = 10
    heads: int = 8
    feed_forward: int = 2
    dropout: float = 0.0
    norm: Literal["batch", "layer"] = "batch"
    laplacian: int = 8
    full_graph: bool = False
    update_last_edges: bool = False
    pooling: Literal["sum", "mean", "max"] = "mean"

    def __post_init__(self) -> None:
        where = "GTConfig"
        for name in ("channels", "layers", "heads", "feed_forward"):
            require_count(getattr(self, name), where, name)
        require_count(self.laplacian, where, "laplacian", "Pass 0 to do without.", minimum=0)
        require_probability(self.dropout, where, "dropout")
        divides = self.channels % self.heads == 0
        rule = f"be a multiple of heads = {self.heads}"
        require(divides, where, "channels", rule, self.channels, "It is the width of all heads together.")
        for name in ("full_graph", "update_last_edges"):
            value = getattr(self, name)
            require(isinstance(value, bool), where, name, "be a bool", repr(value), "Pass True or False.")
        require_choice(self.norm, ("batch", "layer"), where, "norm")
        require_choice(self.pooling, ("sum", "mean", "max"), where, "pooling")
