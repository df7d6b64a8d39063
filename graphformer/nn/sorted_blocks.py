"""Sorted blocks: a trained matching of blocks of the sequence."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor
from torch.nn import Parameter

from graphformer._checks import require, require_count
from graphformer.graphs import AttentionGraph
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns import Causal, Pattern
from graphformer.patterns.content.groups import sets_by_size
from graphformer.patterns.content.heads import head_graph, read_heads
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Nodes

_WHERE = "SortedBlocks"
_NEVER = -1e30  # the logarithm of a weight that is 0; finite, so that no gradient is NaN


class SortedBlocks(torch.nn.Module):
    """Each block of queries attends to its own block of keys and to one other, chosen by a trained matching (Sinkhorn).

    Each set is cut into blocks. With the mean query of block a and the mean key of block b,

        score[a,b] = mean_query[a] W mean_key[b] / (temperature sqrt(D))        for a other than b

    is turned into a matrix P whose rows and columns sum to about 1, by Sinkhorn's alternating normalization, rows last.
    Block a attends to the b of the largest P[a,b], the first of equal ones, and log P[a,b] is added to the score of
    these pairs: it multiplies their weights, and by it the gradient reaches W, queries and keys. The choice itself has
    none: a block that serves badly loses weight until another one is chosen. Other than in the paper, W is a map
    between block means rather than to a fixed number of blocks, so that sets of any length share it.

    A set of one block is attended to in full. Input that is constant gives every block the first other one. Memory is
    that of the pairs, 2 * block * N a head, and of the block matrices, the sum of (N / block)^2 over sets and heads.

    Args:
        block: Nodes a block, 1 or more; the last block of a set holds what is left.
        heads: Number of heads H.
        width: Width D of a head.
        causal: Whether nothing that comes later enters: a block sees what :class:`~graphformer.patterns.Causal` allows
            of its own and one earlier block, chosen by the mean of all earlier queries and normalized over earlier rows
            only. `pattern=Causal()` alone limits the pairs but not what the matching is made from.
        iterations: Of Sinkhorn's normalization, 1 or more. Default 5; the paper finds 5 to 10 best.
        temperature: Of the scores, above 0. Default 0.75, as in the paper's experiments.

    Raises:
        InputError: An argument is out of range.

    Example:
        >>> blocks = SortedBlocks(2, heads=1, width=3)
        >>> graph, bias = blocks(torch.randn(6, 1, 3), torch.randn(6, 1, 3), 6)
        >>> graph.degree, bias.shape
        (tensor([4, 4, 4, 4, 4, 4]), torch.Size([24]))

    References:
        Tay et al., "Sparse Sinkhorn Attention", ICML 2020.
    """

    def __init__(
        self,
        block: int,
        heads: int,
        width: int,
        *,
        causal: bool = False,
        iterations: int = 5,
        temperature: float = 0.75,
    ) -> None:
        super().__init__()
        for name, value in (("block", block), ("heads", heads), ("width", width), ("iterations", iterations)):
            require_count(value, _WHERE, name)
        require(isinstance(causal, bool), _WHERE, "causal", "be True or False", repr(causal), "Pass a boolean.")
        good = isinstance(temperature, Real) and 0 < temperature < math.inf
        require(good, _WHERE, "temperature", "be above 0 and finite", repr(temperature), "1 leaves the scores as is.")
        self.block, self.causal, self.iterations, self.temperature = block, causal, iterations, temperature
        self.weight = Parameter(torch.empty(heads, width, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start from the dot product of the means."""
        with torch.no_grad():
            self.weight.copy_(torch.eye(self.weight.shape[1]).expand_as(self.weight))

    def forward(
        self, query: Tensor, key: Tensor, nodes: Nodes, pattern: Pattern | None = None
    ) -> tuple[AttentionGraph, Tensor]:
        """The chosen pairs and their bias, for `attend` over folded heads.

        Args:
            query: Shape `[N, H, D]`, floating.
            key: Shape `[M, H, D]`, dtype and device of `query`.
            nodes: The sets that the vectors belong to. In a bipartite graph, block b of the keys is block b's own.
            pattern: A structured pattern; only pairs that it allows are kept.

        Returns:
            The graph over H * N queries and H * M keys, and the bias of its pairs, shape `[E]`: 0 in the own block,
            log P in the other.

        Raises:
            InputError: Shapes, dtypes or devices do not fit one another, the module or the nodes.
        """
        sets = read_heads(query, key, nodes, pattern, _WHERE)
        heads, width = self.weight.shape[:2]
        rule = f"have heads and width [{heads}, {width}]"
        fits = query.shape[1:] == (heads, width)
        require(fits, _WHERE, "query", rule, list(query.shape[1:]), "Make the module for these heads.")
        blocks = NodeSets(
            _block_ptr(sets.key_ptr, self.block), _block_ptr(sets.query_ptr, self.block), True, {}, _WHERE
        )
        query_block = blocks.query_ptr[sets.query_set] + sets.local_query // self.block
        key_block = blocks.key_ptr[sets.key_set] + sets.local_key // self.block
        dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
        with torch.autocast(query.device.type, enabled=False):
            mean_query = _block_means(query.to(dtype), query_block, blocks.num_queries)
            mean_key = _block_means(key.to(dtype), key_block, blocks.num_keys)
            other, log_weight = self._match(mean_query, mean_key, blocks)

        own = (sets.local_query // self.block).expand(heads, -1)
        runs = self._runs(own, sets).union(self._runs(other[:, query_block], sets))
        if self.causal:
            pattern = Causal() if pattern is None else pattern & Causal()
        graph = head_graph(*runs.expand(), heads, sets, pattern)
        column, row = graph.edge_index
        i, j = row % max(sets.num_queries, 1), column % max(sets.num_keys, 1)
        is_own = sets.local_query[i] // self.block == sets.local_key[j] // self.block
        weight = log_weight.flatten()[row // max(sets.num_queries, 1) * blocks.num_queries + query_block[i]]
        return graph, weight.masked_fill(is_own, 0.0)

    def _match(self, query: Tensor, key: Tensor, blocks: NodeSets) -> tuple[Tensor, Tensor]:
        """For each head and query block: the place of its other block in the set, -1 for none, and log P."""
        heads, width = self.weight.shape[:2]
        other = torch.full((heads, blocks.num_queries), -1, dtype=torch.int64, device=query.device)
        log_weight = query.new_zeros(heads, blocks.num_queries)
        for query_ids, key_ids in sets_by_size(blocks):
            mine, theirs = query[query_ids], key[key_ids]
            if self.causal:  # blocks before the last are whole, so that a mean of means is the mean
                count = torch.arange(1, query_ids.shape[1], device=query.device)[:, None, None]
                mine = torch.cat((torch.zeros_like(mine[:, :1]), mine[:, :-1].cumsum(1) / count), dim=1)
            score = torch.einsum("sahd,hde,sbhe->shab", mine, self.weight.to(mine.dtype), theirs)
            row = torch.arange(query_ids.shape[1], device=query.device)[:, None]
            column = torch.arange(key_ids.shape[1], device=query.device)
            allowed = column < row if self.causal else column != row
            log_p = self._sinkhorn(score / (self.temperature * math.sqrt(width)), allowed)
            best, there = log_p.argmax(-1, keepdim=True), allowed.any(-1)
            chosen = log_p.gather(-1, best).squeeze(-1).masked_fill(~there, 0.0)
            other[:, query_ids] = best.squeeze(-1).masked_fill(~there, -1).transpose(0, 1)
            log_weight = log_weight.index_copy(1, query_ids.flatten(), chosen.transpose(0, 1).flatten(1))
        return other, log_weight

    def _sinkhorn(self, score: Tensor, allowed: Tensor) -> Tensor:
        """log P from scores `[S, H, A, B]`, where the mask `[A, B]` allows."""
        log_p = score.masked_fill(~allowed, _NEVER)
        for _ in range(self.iterations):
            column = log_p.logcumsumexp(-2) if self.causal else log_p.logsumexp(-2, keepdim=True)
            log_p = (log_p - column).masked_fill(~allowed, _NEVER)
            log_p = (log_p - log_p.logsumexp(-1, keepdim=True)).masked_fill(~allowed, _NEVER)
        return log_p

    def _runs(self, place: Tensor, sets: NodeSets) -> KeyRuns:
        """One run a folded query: the block of keys at this place of its set, -1 for none. Takes `[H, N]`."""
        first = torch.where(place < 0, sets.set_keys, place * self.block).minimum(sets.set_keys)
        last = (first + self.block).minimum(sets.set_keys)
        head = torch.arange(place.shape[0], device=place.device)[:, None]
        base = head * sets.num_keys + sets.key_start
        return KeyRuns.from_ranges((base + first).flatten(), (base + last).flatten(), place.shape[0] * sets.num_keys)

    def extra_repr(self) -> str:
        """What the module's repr tells."""
        heads, width = self.weight.shape[:2]
        return f"{self.block}, heads={heads}, width={width}, causal={self.causal}"


def _block_ptr(ptr: Tensor, block: int) -> Tensor:
    """Offsets of the sets' blocks."""
    return torch.nn.functional.pad(((ptr.diff() + block - 1) // block).cumsum(0), (1, 0))


def _block_means(x: Tensor, block: Tensor, num_blocks: int) -> Tensor:
    """The mean of each block's vectors: `[N, H, D]` gives `[num_blocks, H, D]`."""
    total = x.new_zeros(num_blocks, *x.shape[1:]).index_add(0, block, x)
    return total / torch.bincount(block, minlength=num_blocks).view(-1, 1, 1)
