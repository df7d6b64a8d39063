"""The base of content patterns: checks, precision, and the graph of what was chosen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphformer.graphs import AttentionGraph
from graphformer.patterns.content.heads import head_graph, read_heads
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Nodes, Pattern


@dataclass(frozen=True)
class Content:
    """A rule by which queries choose their keys from the vectors, for each head and inside each set of a batch.

    A rule of your own is a frozen dataclass with one method, `_pairs`; :func:`graphformer.testing.check_content` tries
    it out.

    Example:
        >>> from graphformer import attend
        >>> from graphformer.patterns import Causal, TopK, fold_heads, unfold_heads
        >>> query, key, value = torch.randn(3, 7, 2, 4)
        >>> graph = TopK(2).select(query, key, [4, 3], pattern=Causal())
        >>> graph
        AttentionGraph(14 nodes, 24 edges, density 12.2%, 0 duplicates, 0 empty rows)
        >>> unfold_heads(attend(*map(fold_heads, (query, key, value)), graph), heads=2).shape
        torch.Size([7, 2, 4])
        >>> @dataclass(frozen=True)
        ... class SameSign(Content):
        ...     def _pairs(self, query, key, sets, pattern):
        ...         query, key = (x[:, :, 0].t() > 0 for x in (query, key))  # [H, N] and [H, M]
        ...         one_set = sets.query_set[:, None] == sets.key_set
        ...         head, i, j = ((query[:, :, None] == key[:, None]) & one_set).nonzero().unbind(1)
        ...         return head * sets.num_queries + i, head * sets.num_keys + j
        >>> SameSign().select(torch.ones(4, 2, 1), torch.ones(4, 2, 1), [3, 1]).degree
        tensor([3, 3, 3, 1, 3, 3, 3, 1])
    """

    def select(self, query: Tensor, key: Tensor, nodes: Nodes, pattern: Pattern | None = None) -> AttentionGraph:
        """The chosen pairs of all heads, as one graph whose nodes are the heads' copies of the nodes.

        Args:
            query: Shape `[N, H, D]`, floating. bf16 and fp16 choose as float32 does.
            key: Shape `[M, H, D]`, dtype and device of `query`.
            nodes: The sets that the vectors belong to, as in :meth:`Pattern.on`: a count, a list of lengths, a PyG
                `Data` or `Batch`, or a tuple (key nodes, query nodes).
            pattern: A structured pattern; only pairs that it allows are chosen. Default: all pairs inside a set.

        Returns:
            A graph over H * N queries and H * M keys; node i of head h is h * N + i. It takes what :func:`fold_heads`
            makes of queries, keys and values. Made without gradient.

        Raises:
            InputError: Shapes, dtypes or devices do not fit one another, or the nodes.
        """
        sets = read_heads(query, key, nodes, pattern, f"{type(self).__name__}.select")
        dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
        with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
            chosen = self._pairs(query.detach().to(dtype), key.detach().to(dtype), sets, pattern)
        return head_graph(*chosen, query.shape[1], sets, pattern)

    def _pairs(self, query: Tensor, key: Tensor, sets: NodeSets, pattern: Pattern | None) -> tuple[Tensor, Tensor]:
        """(query, key) of the chosen pairs as folded ids, each pair once, inside the heads and the sets.

        Two int64 tensors of shape `[E]`, in any order: query i of head h is h * N + i, key j of head h is h * M + j.
        What the pattern refuses is taken out afterwards; it is given so that a rule with a fixed number of keys can
        count without it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define _pairs(query, key, sets, pattern)")
