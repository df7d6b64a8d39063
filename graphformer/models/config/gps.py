"""The settings of GraphGPS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphformer._checks import require, require_choice, require_count, require_probability
from graphformer.models.config.shared import require_hybrid


@dataclass(frozen=True)
class GPSConfig:
    """The settings of :class:`~graphformer.models.GPS`; the defaults are those published for ogbg-molhiv.

    Args:
        channels: Width of the nodes, a multiple of `heads` unless `head_channels` is given; with "gat" always.
        layers: Number of layers.
        heads: Number of attention heads.
        head_channels: Width of a head; 0: channels / heads.
        conv: The convolution: "gatedgcn", "gine", "gin", "gcn", "gat", "none", or the name of one of PyG's classes,
            see :class:`~graphformer.nn.local_global.LocalConv`.
        pattern: Which pairs of nodes attend, an expression of :mod:`graphformer.patterns`.
        dropout: On the output of every part in training, in [0, 1).
        attention_dropout: On the attention weights in training, in [0, 1).
        walk_steps: Steps of the random-walk encoding; 0: none.
        walk_channels: Width of that encoding, a part of `channels`.
        laplacian: Eigenvectors of the Laplacian encoding; 0: none.
        laplacian_channels: Width of that encoding, a part of `channels`.
        pooling: "mean" or "sum" of the nodes of a graph.
        head_hidden: Widths of the head's hidden layers, () for none. Default: a half and a quarter of `channels`.

    Raises:
        InputError: A value is of the wrong kind or out of range, or a name is unknown. The convolution and the pattern
            are read where the model is made.

    Example:
        >>> GPSConfig(layers=2, pattern="Edges() | Expander(4)").channels
        64
    """

    channels: int = 64
    layers: int = 10
    heads: int = 4
    head_channels: int = 0
    conv: str = "gatedgcn"
    pattern: str = "Full()"
    dropout: float = 0.05
    attention_dropout: float = 0.5
    walk_steps: int = 16
    walk_channels: int = 16
    laplacian: int = 0
    laplacian_channels: int = 16
    pooling: Literal["mean", "sum"] = "mean"
    head_hidden: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        where = "GPSConfig"
        require_count(self.head_channels, where, "head_channels", "Pass 0 for channels / heads.", minimum=0)
        require_hybrid(self, where, divides=self.head_channels == 0 or self.conv == "gat")
        require_probability(self.attention_dropout, where, "attention_dropout")
        given = self.pattern
        require(isinstance(given, str), where, "pattern", "be a str", repr(given), "Write it as text.")
        require_choice(self.pooling, ("mean", "sum"), where, "pooling")
