"""Content-based attention as a layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.dense import Linear

from graphformer._checks import require, require_choice, require_count, require_probability
from graphformer.kernels import attend
from graphformer.kernels.api import BACKENDS
from graphformer.patterns import Content, Pattern, fold_heads, unfold_heads
from graphformer.patterns.pattern import Nodes

_WHERE = "ContentAttention"


class ContentAttention(torch.nn.Module):
    """Multi-head attention over pairs that each head chooses from its own queries and keys, anew at every call.

    The maps of :class:`GraphAttention`, with a graph made from their results: queries, keys and values are trained
    through the chosen pairs.

    Args:
        in_channels: Width of the nodes, or (source, target) widths for attention between two sets; -1 takes it from
            the first input.
        out_channels: Width C of the output, all heads together; a multiple of `heads`, D = C / heads.
        heads: Number of heads H. Default 8.
        content: What chooses: a :class:`~graphformer.patterns.Content` such as `Hash(16)`, or a module called as
            `content(query, key, nodes, pattern)` that gives the graph and a bias of its pairs or None, such as
            :class:`SortedBlocks`.
        pattern: A structured pattern that limits the pairs, such as `Causal()`.
        dropout: Probability with which a weight is dropped in training, in [0, 1).
        bias: Whether the four linear maps have biases.
        backend: Which kernel runs, see :func:`graphformer.kernels.attend`.

    Raises:
        InputError: heads do not divide out_channels, a name is unknown, or an argument is of the wrong kind or range.

    Example:
        >>> from graphformer.patterns import Causal, Hash
        >>> layer = ContentAttention(16, 32, heads=4, content=Hash(8, rounds=2), pattern=Causal())
        >>> layer(torch.randn(10, 16), [6, 4]).shape
        torch.Size([10, 32])
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 8,
        *,
        content: Content | torch.nn.Module,
        pattern: Pattern | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        source, target = in_channels if isinstance(in_channels, (tuple, list)) else (in_channels, in_channels)
        for width in (source, target):
            if width != -1:
                require_count(width, _WHERE, "in_channels", "-1 takes the width from the first input.")
        require_count(heads, _WHERE, "heads")
        require_count(out_channels, _WHERE, "out_channels")
        remedy = "It is the width of all heads together; change one of the two."
        divides = out_channels % heads == 0
        require(divides, _WHERE, "out_channels", f"be a multiple of heads = {heads}", out_channels, remedy)
        chooses = isinstance(content, (Content, torch.nn.Module))
        remedy = "For example Hash(16); a pattern that needs no vectors goes to GraphAttention."
        require(chooses, _WHERE, "content", "be a content pattern or a module", repr(content), remedy)
        fits = pattern is None or isinstance(pattern, Pattern)
        require(fits, _WHERE, "pattern", "be a structured pattern or None", repr(pattern), "For example Causal().")
        require_probability(dropout, _WHERE, "dropout")
        require_choice(backend, ("auto", *BACKENDS), _WHERE, "backend")
        self.in_channels, self.out_channels, self.heads = in_channels, out_channels, heads
        self.content, self.pattern, self.dropout, self.backend = content, pattern, dropout, backend
        self.lin_key = Linear(source, out_channels, bias=bias)
        self.lin_query = Linear(target, out_channels, bias=bias)
        self.lin_value = Linear(source, out_channels, bias=bias)
        self.lin_out = Linear(out_channels, out_channels, bias=bias)

    def reset_parameters(self) -> None:
        """Draw every parameter anew, those of the content module too."""
        part: Any
        for part in self.children():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()

    def forward(self, x: Tensor | tuple[Tensor, Tensor], nodes: Nodes) -> Tensor:
        """Let every query attend to the keys that it chooses.

        Args:
            x: Nodes, shape `[N, C_in]`; or (sources `[M, C_source]`, targets `[N, C_target]`).
            nodes: The sets that they belong to: a count, a list of lengths, a PyG `Data` or `Batch`; for two node
                sets, a tuple (source nodes, target nodes) of these.

        Returns:
            Shape `[N, out_channels]`. A node that chooses nothing gets the bias of the last map.

        Raises:
            InputError: The nodes do not count the vectors.
        """
        source, target = x if isinstance(x, (tuple, list)) else (x, x)
        split = (self.heads, self.out_channels // self.heads)
        query = self.lin_query(target).unflatten(-1, split)
        key, value = (linear(source).unflatten(-1, split) for linear in (self.lin_key, self.lin_value))
        bias = None
        if isinstance(self.content, Content):
            graph = self.content.select(query, key, nodes, self.pattern)
        else:
            graph, bias = self.content(query, key, nodes, self.pattern)
        query, key, value = (fold_heads(part) for part in (query, key, value))
        dropout = self.dropout if self.training else 0.0
        out = attend(query, key, value, graph, bias=bias, dropout=dropout, backend=self.backend)
        return self.lin_out(unfold_heads(out, self.heads).flatten(1))

    def extra_repr(self) -> str:
        """What the module's repr tells."""
        told = "" if isinstance(self.content, torch.nn.Module) else f", content={self.content!r}"
        limit = "" if self.pattern is None else f", pattern={self.pattern!r}"
        return f"{self.in_channels}, {self.out_channels}, heads={self.heads}{told}{limit}"
