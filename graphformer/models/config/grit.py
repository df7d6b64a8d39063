"""The settings of GRIT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphformer._checks import require, require_choice, require_count, require_probability


@dataclass(frozen=True)
class GRITConfig:
    """The settings of :class:`~graphformer.models.GRIT`; the defaults are those published for ZINC.

    Args:
        channels: Width of nodes and pairs, a multiple of `heads`.
        layers: Number of layers.
        heads: Number of attention heads.
        feed_forward: Width of the hidden layers, in multiples of `channels`.
        dropout: On the output of attention and inside the feed-forward parts in training, in [0, 1).
        attention_dropout: On the attention weights in training, in [0, 1).
        norm: "batch" (each channel over the batch's nodes or pairs) or "layer" (each node or pair by itself).
        walk_steps: How many numbers of steps of a random walk a pair is told of, 0 steps included.
        pooling: "sum", "mean" or "max" of the nodes of a graph.

    Raises:
        InputError: A value is of the wrong kind or out of range, or a name is unknown.

    Example:
        >>> GRITConfig(layers=2).channels
        64
    """

    channels: int = 64
    layers: int = 10
    heads: int = 8
    feed_forward: int = 2
    dropout: float = 0.0
    attention_dropout: float = 0.2
    norm: Literal["batch", "layer"] = "batch"
    walk_steps: int = 21
    pooling: Literal["sum", "mean", "max"] = "sum"

    def __post_init__(self) -> None:
        where = "GRITConfig"
        for name in ("channels", "layers", "heads", "feed_forward", "walk_steps"):
            require_count(getattr(self, name), where, name)
        for name in ("dropout", "attention_dropout"):
            require_probability(getattr(self, name), where, name)
        divides = self.channels % self.heads == 0
        rule = f"be a multiple of heads = {self.heads}"
        require(divides, where, "channels", rule, self.channels, "It is the width of all heads together.")
        require_choice(self.norm, ("batch", "layer"), where, "norm")
        require_choice(self.pooling, ("sum", "mean", "max"), where, "pooling")
