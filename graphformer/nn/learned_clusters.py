"""Clusters whose centroids are learned over the course of training."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from graphformer._checks import require, require_count
from graphformer.graphs import AttentionGraph
from graphformer.patterns import Pattern
from graphformer.patterns.content.clusters import follow_members, nearest
from graphformer.patterns.content.groups import pairs_of_one_label
from graphformer.patterns.content.heads import head_graph, read_heads
from graphformer.patterns.pattern import Nodes


class LearnedClusters(torch.nn.Module):
    """Each query attends to the keys of its cluster; the centroids follow queries and keys in training.

    :class:`graphformer.patterns.Clusters` with centroids that are kept: a vector, scaled to length 1, belongs to the
    centroid of the largest dot product, and a training step then moves each centroid to the direction of
    decay * centroid + (1 - decay) * m, where m is the direction of its members' sum over the whole batch (none: it
    stays; a vector with a NaN or infinity moves none). With centroids that are fixed, as in evaluation, a vector's
    cluster depends on the vector alone: a set is clustered alone as in any batch, and with `pattern=Causal()` nothing
    of what comes later enters.

    Args:
        num_clusters: Centroids a head; the paper takes about sqrt(N).
        heads: Number of heads H.
        width: Width D of a head.
        decay: In [0, 1). Default 0.999, as in the paper.

    Raises:
        InputError: An argument is out of range.

    Example:
        >>> clusters = LearnedClusters(4, heads=2, width=8)
        >>> graph, bias = clusters(torch.randn(5, 2, 8), torch.randn(5, 2, 8), [3, 2])
        >>> graph.num_queries, bias
        (10, None)

    References:
        Roy et al., "Efficient Content-Based Sparse Attention with Routing Transformers", TACL 2021.
    """

    centroids: Tensor

    def __init__(self, num_clusters: int, heads: int, width: int, *, decay: float = 0.999) -> None:
        super().__init__()
        where = "LearnedClusters"
        for name, value in (("num_clusters", num_clusters), ("heads", heads), ("width", width)):
            require_count(value, where, name)
        good = isinstance(decay, Real) and 0 <= decay < 1
        require(good, where, "decay", "lie in [0, 1)", repr(decay), "It is the share of a centroid that a step keeps.")
        self.decay = decay
        self.register_buffer("centroids", torch.empty(heads, num_clusters, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every centroid anew, uniformly by direction."""
        self.centroids.copy_(torch.nn.functional.normalize(torch.randn_like(self.centroids), dim=-1))

    def forward(
        self, query: Tensor, key: Tensor, nodes: Nodes, pattern: Pattern | None = None
    ) -> tuple[AttentionGraph, None]:
        """The chosen pairs, as :meth:`graphformer.patterns.Content.select` gives them, and no bias.

        Args:
            query: Shape `[N, H, D]`, floating.
            key: Shape `[M, H, D]`, dtype and device of `query`.
            nodes: The sets that the vectors belong to.
            pattern: A structured pattern; only pairs that it allows are chosen.

        Raises:
            InputError: Shapes, dtypes or devices do not fit one another, the module or the nodes.
        """
        sets = read_heads(query, key, nodes, pattern, "LearnedClusters")
        heads, count, width = self.centroids.shape
        fits = query.shape[1:] == (heads, width)
        rule = f"have heads and width [{heads}, {width}]"
        require(fits, "LearnedClusters", "query", rule, list(query.shape[1:]), "Make the module for these heads.")
        with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
            points = torch.cat((query, key)).to(self.centroids.dtype).transpose(0, 1)
            points = torch.nn.functional.normalize(points, dim=-1)
            label = nearest(points, self.centroids)
            query_label, key_label = label.split((query.shape[0], key.shape[0]), dim=1)
            graph = head_graph(*pairs_of_one_label(query_label, key_label, count, sets), heads, sets, pattern)
            if self.training:
                self.centroids.copy_(follow_members(self.centroids, points, label, self.decay))
        return graph, None

    def extra_repr(self) -> str:
        """What the module's repr tells."""
        heads, count, width = self.centroids.shape
        return f"{count}, heads={heads}, width={width}, decay={self.decay}"
