"""The settings of graph attention networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphformer._checks import require, require_choice, require_count, require_probability


@dataclass(frozen=True)
class GATConfig:
    """The settings of :class:`~graphformer.models.GAT`; the defaults are those published for Cora and CiteSeer.

    Args:
        channels: Width of a head in the hidden layers.
        heads: Heads of the hidden layers, side by side.
        layers: Number of attention layers.
        out_heads: Heads of the last layer, of which the mean is taken.
        dropout: On the input of every layer in training, in [0, 1).
        attention_dropout: On the attention weights in training, in [0, 1).
        version: 1 scores keys and queries apart (GAT), 2 together (GATv2).
        library: Whose layers: "graphformer", or "pyg" for a comparison in the same run.

    Raises:
        InputError: A value is of the wrong kind or out of range.

    Example:
        >>> GATConfig(version=2).heads
        8
    """

    channels: int = 8
    heads: int = 8
    layers: int = 2
    out_heads: int = 1
    dropout: float = 0.6
    attention_dropout: float = 0.6
    version: Literal[1, 2] = 1
    library: Literal["graphformer", "pyg"] = "graphformer"

    def __post_init__(self) -> None:
        where = "GATConfig"
        for name in ("channels", "heads", "layers", "out_heads"):
            require_count(getattr(self, name), where, name)
        for name in ("dropout", "attention_dropout"):
            require_probability(getattr(self, name), where, name)
        require(self.version in (1, 2), where, "version", "be 1 or 2", self.version, "2 is GATv2.")
        require_choice(self.library, ("graphformer", "pyg"), where, "library")
