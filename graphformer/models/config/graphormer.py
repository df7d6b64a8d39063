"""The settings of Graphormer."""

from __future__ import annotations

from dataclasses import dataclass

from graphformer._checks import require, require_count, require_probability


@dataclass(frozen=True)
class GraphormerConfig:
    """The settings of :class:`~graphformer.models.Graphormer`; the defaults are those of Graphormer-slim on ZINC.

    Args:
        channels: Width of the nodes, a multiple of `heads`.
        layers: Number of layers.
        heads: Number of attention heads.
        feed_forward: Width of the hidden layers, in multiples of `channels`.
        dropout: On the embedding and on the output of every part in training, in [0, 1).
        attention_dropout: On the attention weights in training, in [0, 1).
        max_degree: Degrees from here on share an embedding.
        max_distance: Distances from here on share a bias.
        max_hops: How many edges of a shortest path are read, those next to the query; 0: none.

    Raises:
        InputError: A value is of the wrong kind or out of range.

    Example:
        >>> GraphormerConfig(layers=2).channels
        80
    """

    channels: int = 80
    layers: int = 12
    heads: int = 8
    feed_forward: int = 1
    dropout: float = 0.1
    attention_dropout: float = 0.1
    max_degree: int = 63
    max_distance: int = 20
    max_hops: int = 5

    def __post_init__(self) -> None:
        where = "GraphormerConfig"
        for name in ("channels", "layers", "heads", "feed_forward", "max_degree", "max_distance"):
            require_count(getattr(self, name), where, name)
        require_count(self.max_hops, where, "max_hops", "Pass 0 to do without.", minimum=0)
        for name in ("dropout", "attention_dropout"):
            require_probability(getattr(self, name), where, name)
        divides = self.channels % self.heads == 0
        rule = f"be a multiple of heads = {self.heads}"
        require(divides, where, "channels", rule, self.channels, "It is the width of all heads together.")
