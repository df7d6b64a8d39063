"""The settings of the gated transformer."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from graphformer._checks import require, require_choice, require_count, require_probability


@dataclass(frozen=True)
class GatedTransformerConfig:
    """The settings of :class:`~graphformer.models.GatedTransformer`; the defaults are chosen for molecules.

    Args:
        channels: Width of the nodes, a multiple of `heads`.
        layers: Number of transformer blocks.
        heads: Number of attention heads.
        feed_forward: Width of the hidden layers, in multiples of `channels`.
        dropout: On the output of every part in training, in [0, 1).
        edge_columns: Which categorical edge features together make the type of an edge; none: all edges are of one.
            Default: a bond's order and conjugation without its stereo configuration, 10 types. A relation of many types
            costs time in the kernel.
        edge_counts: Number of values of each of them.
        virtual_node: Whether each graph has a state that all its nodes read and write between the blocks.
        pooling: "sum" or "mean" of the nodes of a graph.
        norm: "batch" (each channel over the batch's nodes) or "layer" (each node by itself).

    Raises:
        InputError: A value is of the wrong kind or out of range.

    Example:
        >>> GatedTransformerConfig().num_types
        10
    """

    channels: int = 64
    layers: int = 2
    heads: int = 4
    feed_forward: int = 2
    dropout: float = 0.2
    edge_columns: tuple[int, ...] = (0, 2)
    edge_counts: tuple[int, ...] = (5, 2)
    virtual_node: bool = True
    pooling: Literal["sum", "mean"] = "mean"
    norm: Literal["batch", "layer"] = "batch"

    def __post_init__(self) -> None:
        where = "GatedTransformerConfig"
        for name in ("edge_columns", "edge_counts"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists come in from files
        for name in ("channels", "layers", "heads", "feed_forward"):
            require_count(getattr(self, name), where, name)
        require_probability(self.dropout, where, "dropout")
        rule, remedy = f"be a multiple of heads = {self.heads}", "It is the width of all heads together."
        require(self.channels % self.heads == 0, where, "channels", rule, self.channels, remedy)
        rule = f"hold a positive count for each of {len(self.edge_columns)} columns"
        fits = len(self.edge_counts) == len(self.edge_columns) and all(count > 0 for count in self.edge_counts)
        remedy = "Give each feature's number of values."
        require(fits, where, "edge_counts", rule, list(self.edge_counts), remedy)
        given = self.virtual_node
        require(isinstance(given, bool), where, "virtual_node", "be a bool", repr(given), "Pass True or False.")
        require_choice(self.pooling, ("sum", "mean"), where, "pooling")
        require_choice(self.norm, ("batch", "layer"), where, "norm")

    @property
    def num_types(self) -> int:
        """Number of edge types."""
        return prod(self.edge_counts)
