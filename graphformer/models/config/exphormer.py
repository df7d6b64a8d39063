"""The settings of Exphormer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphformer._checks import require, require_choice, require_count
from graphformer.models.config.shared import require_hybrid


@dataclass(frozen=True)
class ExphormerConfig:
    """The settings of :class:`~graphformer.models.Exphormer`.

    The defaults have the number of parameters that is published for Peptides-func. Of that run only the total is told
    here; the settings were inferred: they are ones that add up to it.

    Args:
        channels: Width of the nodes, a multiple of `heads`.
        layers: Number of layers.
        heads: Number of attention heads.
        conv: The convolution beside attention, as in :class:`GPSConfig`.
        expander: Neighbours of each node in the expander graph, even; 0: none. A published degree of 3, three
            permutations, is 6 here.
        virtual_nodes: Nodes that see all of their graph and that all of it sees; 0: none.
        dropout: On the output of every part in training, in [0, 1).
        walk_steps: Steps of the random-walk encoding; 0: none.
        walk_channels: Width of that encoding, a part of `channels`.
        laplacian: Eigenvectors of the Laplacian encoding; 0: none.
        laplacian_channels: Width of that encoding, a part of `channels`.
        pooling: "mean" or "sum" of the nodes of a graph.
        head_hidden: Widths of the head's hidden layers; None: a half and a quarter of `channels`. Default: none.

    Raises:
        InputError: A value is of the wrong kind or out of range, or a name is unknown. The convolution is read where
            the model is made.

    Example:
        >>> ExphormerConfig(layers=4, expander=4).virtual_nodes
        1
    """

    channels: int = 64
    layers: int = 8
    heads: int = 4
    conv: str = "gatedgcn"
    expander: int = 6
    virtual_nodes: int = 1
    dropout: float = 0.12
    walk_steps: int = 0
    walk_channels: int = 16
    laplacian: int = 10
    laplacian_channels: int = 16
    pooling: Literal["mean", "sum"] = "mean"
    head_hidden: tuple[int, ...] | None = ()

    def __post_init__(self) -> None:
        where = "ExphormerConfig"
        require_hybrid(self, where)
        for name in ("expander", "virtual_nodes"):
            require_count(getattr(self, name), where, name, "Pass 0 to do without.", minimum=0)
        remedy = "Each random cycle gives a node two neighbours."
        require(self.expander % 2 == 0, where, "expander", "be even", self.expander, remedy)
        require_choice(self.pooling, ("mean", "sum"), where, "pooling")
