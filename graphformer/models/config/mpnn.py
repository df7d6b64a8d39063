"""The settings of the message-passing baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphformer._checks import require, require_choice, require_count, require_probability


@dataclass(frozen=True)
class MPNNConfig:
    """The settings of :class:`~graphformer.models.MPNN`; the defaults are those of OGB's molecule baselines.

    Args:
        conv: "gin" (with edge features, Hu et al. 2020) or "gcn" (with edge features, as in OGB's examples).
        channels: Width of the nodes.
        layers: Number of convolutions.
        dropout: After each layer in training, in [0, 1).
        virtual_node: Whether each graph has a state that all its nodes read and write between the layers.
        pooling: "mean" or "sum" of the nodes of a graph.

    Raises:
        InputError: A value is of the wrong kind or out of range, or a name is unknown.

    Example:
        >>> MPNNConfig(conv="gcn", virtual_node=True).channels
        300
    """

    conv: Literal["gin", "gcn"] = "gin"
    channels: int = 300
    layers: int = 5
    dropout: float = 0.5
    virtual_node: bool = False
    pooling: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        where = "MPNNConfig"
        require_choice(self.conv, ("gin", "gcn"), where, "conv")
        require_count(self.channels, where, "channels")
        require_count(self.layers, where, "layers")
        require_probability(self.dropout, where, "dropout")
        given = self.virtual_node
        require(isinstance(given, bool), where, "virtual_node", "be a bool", repr(given), "Pass True or False.")
        require_choice(self.pooling, ("mean", "sum"), where, "pooling")
