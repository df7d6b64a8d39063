"""The settings of models, as plain dataclasses that import nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphformer._checks import require, require_choice, require_count, require_probability


@dataclass(frozen=True)
class GraphTransformerConfig:
    """The settings of :class:`~graphformer.models.GraphTransformer`.

    Args:
        channels: Width of the nodes, a multiple of `heads`.
        layers: Number of transformer blocks.
        heads: Number of attention heads.
        feed_forward: Width of the hidden layers, in multiples of `channels`.
        dropout: On the output of every part in training, in [0, 1).
        attention_dropout: On the attention weights in training, in [0, 1).
        norm: "batch" (each channel over the batch's nodes) or "layer" (each node by itself).
        pattern: Which pairs of nodes attend, an expression of :mod:`graphformer.patterns`.
        walk_steps: Steps of the random-walk encoding; 0: none.
        laplacian: Eigenvectors of the Laplacian encoding; 0: none.
        virtual_node: Whether each graph has a state that all its nodes read and write between the blocks.
        pooling: "sum" or "mean" of the nodes of a graph.

    Raises:
        InputError: A value is of the wrong kind or out of range, or a name is unknown. The pattern is read where the
            transform and the model are made.

    Example:
        >>> GraphTransformerConfig(layers=2, pattern="Edges() | Full()").channels
        64
    """

    channels: int = 64
    layers: int = 4
    heads: int = 8
    feed_forward: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.0
    norm: Literal["batch", "layer"] = "batch"
    pattern: str = "Edges(self_loops=True)"
    walk_steps: int = 16
    laplacian: int = 0
    virtual_node: bool = False
    pooling: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        where = "GraphTransformerConfig"
        for name in ("channels", "layers", "heads", "feed_forward"):
            require_count(getattr(self, name), where, name)
        for name in ("walk_steps", "laplacian"):
            require_count(getattr(self, name), where, name, "Pass 0 to do without.", minimum=0)
        for name in ("dropout", "attention_dropout"):
            require_probability(getattr(self, name), where, name)
        divides = self.channels % self.heads == 0
        rule = f"be a multiple of heads = {self.heads}"
        require(divides, where, "channels", rule, self.channels, "It is the width of all heads together.")
        for name, kind, remedy in (
            ("pattern", str, "Write it as text."),
            ("virtual_node", bool, "Pass True or False."),
        ):
            value = getattr(self, name)
            require(isinstance(value, kind), where, name, f"be a {kind.__name__}", repr(value), remedy)
        require_choice(self.norm, ("batch", "layer"), where, "norm")
        require_choice(self.pooling, ("sum", "mean"), where, "pooling")
