"""What torch's multi-head attention is given, as node rows: sequences one after the other, masks, weights."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from graphformer._checks import refuse
from graphformer.graphs import AttentionGraph
from graphformer.graphs.layout import expand_rows
from graphformer.graphs.runs import KeyRuns
from graphformer.nn.conv.cache import cached
from graphformer.nn.dense_batch import bias_of, has_hash, lay, nodes_of
from graphformer.patterns import Pattern

_WHERE = "MultiheadAttention"


class SequenceBatch:
    """N sequences of L queries and S keys, with a batch dimension or without one.

    Example:
        >>> from graphformer.patterns import Causal
        >>> attn, x = torch.nn.MultiheadAttention(8, 2), torch.randn(5, 3, 8)
        >>> batch = SequenceBatch(attn, x, x, x)
        >>> batch.lay(Causal(), None)[0]
        AttentionGraph(15 nodes, 45 edges, density 20.0%, 0 duplicates, 0 empty rows)
        >>> batch.rows[0].shape, torch.equal(batch.shape(batch.rows[0]), x)
        (torch.Size([15, 8]), True)
    """

    def __init__(self, attn: torch.nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> None:
        shapes = f"{list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
        if not (query.dim() == key.dim() == value.dim() and query.dim() in (2, 3)):
            _refuse_shapes("have two dimensions, or three with a batch", shapes)
        self.is_batched = query.dim() == 3
        self.is_turned = self.is_batched and not attn.batch_first
        self.num_heads = attn.num_heads
        by_set = [side.transpose(0, 1) if self.is_turned else side for side in (query, key, value)]
        by_set = [side if self.is_batched else side.unsqueeze(0) for side in by_set]
        (self.num_sets, self.num_queries), (_, self.num_keys) = by_set[0].shape[:2], by_set[1].shape[:2]
        if not (by_set[1].shape[:2] == by_set[2].shape[:2] and by_set[1].shape[0] == self.num_sets):
            _refuse_shapes("have one batch size, and as many keys as values", shapes)
        self._places = [side.flatten(0, 1) for side in by_set]
        self._is_one_set = query is key
        self._real: Tensor | None = None  # the places that are nodes, where some are padding

    @property
    def rows(self) -> list[Tensor]:
        """Nodes that ask, are asked and tell: `[N * L, C]`, `[N * S, kdim]`, `[N * S, vdim]`, less the padding."""
        real = self._real
        return self._places if real is None else [side.index_select(0, real) for side in self._places]

    def shape(self, rows: Tensor) -> Tensor:
        """Rows `[N * L, C]`, less the padding, shaped like the query with zeros for padding."""
        if self._real is not None:
            rows = rows.new_zeros(self.num_sets * self.num_queries, rows.shape[1]).index_copy(0, self._real, rows)
        out = rows.unflatten(0, (self.num_sets, self.num_queries))
        if not self.is_batched:
            return out.squeeze(0)
        return out.transpose(0, 1) if self.is_turned else out

    def lay(self, pattern: Pattern, key_padding_mask: Tensor | None) -> tuple[AttentionGraph, Tensor | None]:
        """The pattern's graph without the keys that a padding mask removes, and the mask where it says more.

        Padding behind each sequence of a self-attention leaves shorter sequences; other masks remove keys only.
        """
        device = self._places[0].device
        lengths = (self.num_keys,) * self.num_sets, (self.num_queries,) * self.num_sets
        if key_padding_mask is None or torch.compiler.is_compiling():  # which must not look into a mask
            return lay(pattern, *lengths, device), key_padding_mask
        mask = key_padding_mask
        scores = self._read_padding(mask).detach()
        real = scores != -torch.inf
        rest = mask if mask.requires_grad or bool((real & (scores != 0)).any()) else None
        degree = real.sum(1)
        if self._is_one_set and bool((real == (torch.arange(self.num_keys, device=device) < degree[:, None])).all()):
            self._real = real.flatten().nonzero().squeeze(1)
            lengths = (tuple(degree.tolist()),) * 2
            return lay(pattern, *lengths, device), rest

        def make() -> AttentionGraph:
            return pattern.on(nodes_of(*lengths), within=self._within(real)).to(device).prepare()

        # The layers of a model are given one mask.
        return cached(mask, (pattern, lengths), make) if has_hash(pattern) else make(), rest

    def bias(self, graph: AttentionGraph, attn_mask: Tensor | None, key_padding_mask: Tensor | None) -> Tensor | None:
        """What the masks add to the scores of a graph's pairs. Shape `[E]` or `[E, H]`, or None."""
        parts = []
        if attn_mask is not None:
            parts.append(self._read_attention(attn_mask))
        if key_padding_mask is not None:
            parts.append(self._read_padding(key_padding_mask)[:, None, None])
        if not parts:
            return None
        query, key = self._pairs(graph)
        found = [bias_of(part, query, key, self.num_queries, self.num_keys) for part in parts]
        if len(found) == 2 and found[0].dim() == 2:
            found[1] = found[1].unsqueeze(1)
        return sum(found[1:], found[0])

    def dense(self, weights: Tensor, graph: AttentionGraph, average: bool) -> Tensor:
        """Weights of pairs `[E, H]` as torch returns them."""
        weights = weights.mean(1, keepdim=True) if average else weights
        query, key = self._pairs(graph)
        shape = (self.num_sets, self.num_queries, self.num_keys, weights.shape[1])
        place = (query // self.num_queries, query % self.num_queries, key % self.num_keys)
        dense = weights.new_zeros(shape).index_put(place, weights, accumulate=True)
        dense = dense.squeeze(-1) if average else dense.permute(0, 3, 1, 2)
        return dense if self.is_batched else dense.squeeze(0)

    def check_inside(self, graph: AttentionGraph) -> None:
        """Refuse a graph that masks and dense weights have no places for."""
        if graph.size != (self.num_sets * self.num_keys, self.num_sets * self.num_queries):
            return  # attend will say so
        query, key = self._pairs(graph)
        if bool((key // self.num_keys != query // self.num_queries).any()):
            remedy = "Pass need_weights=False and no masks, or a graph inside the sequences."
            refuse(_WHERE, "graph", "stay inside each sequence beside masks and weights", "pairs across", remedy)

    def _pairs(self, graph: AttentionGraph) -> tuple[Tensor, Tensor]:
        """(query, key) of each pair, as places of the batch with its padding."""
        key, query = graph.edge_index
        return (query, key) if self._real is None else (self._real[query], self._real[key])

    # ---------------------------------------------------------------- masks

    def _read_attention(self, mask: Tensor) -> Tensor:
        """`[1, 1, L, S]` or `[N, H, L, S]`; floating."""
        last = (self.num_queries, self.num_keys)
        shapes = (last, (self.num_sets * self.num_heads, *last))
        if tuple(mask.shape) not in shapes:
            _refuse_mask("attn_mask", f"have shape {list(shapes[0])} or {list(shapes[1])}", list(mask.shape))
        mask = _additive(mask, "attn_mask")
        return mask[None, None] if mask.dim() == 2 else mask.unflatten(0, (self.num_sets, self.num_heads))

    def _read_padding(self, mask: Tensor) -> Tensor:
        """`[N, S]`, floating."""
        shape = (self.num_sets, self.num_keys) if self.is_batched else (self.num_keys,)
        if tuple(mask.shape) != shape:
            _refuse_mask("key_padding_mask", f"have shape {list(shape)}", list(mask.shape))
        mask = _additive(mask, "key_padding_mask")
        return mask if self.is_batched else mask.unsqueeze(0)

    def _within(self, real: Tensor) -> KeyRuns:
        """All queries of each sequence with its real keys `[N, S]`."""
        num_sets, num_keys, num_queries = self.num_sets, self.num_keys, self.num_queries
        sets, keys = real.cpu().nonzero().unbind(1)
        by_set = KeyRuns.from_pairs(sets, keys, num_sets, num_keys)
        member = expand_rows(by_set.ptr, by_set.start.numel()).unsqueeze(1)
        query = member * num_queries + torch.arange(num_queries)
        start, stop = (
            (member * num_keys + end.unsqueeze(1)).expand_as(query).flatten() for end in (by_set.start, by_set.stop)
        )
        return KeyRuns.from_runs(query.flatten(), start, stop, num_sets * num_queries, num_sets * num_keys)


def _additive(mask: Tensor, name: str) -> Tensor:
    """-inf where a boolean mask, True for what is removed, says so."""
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, device=mask.device).masked_fill_(mask, -torch.inf)
    if not mask.is_floating_point():
        _refuse_mask(name, "be boolean or floating", mask.dtype)
    return mask


def _refuse_shapes(rule: str, shapes: str) -> NoReturn:
    remedy = "Pass [L, C] and [S, C]; or [L, N, C] and [S, N, C], with batch_first [N, L, C] and [N, S, C]."
    refuse(_WHERE, "query, key and value", rule, shapes, remedy)


def _refuse_mask(name: str, rule: str, got: object) -> NoReturn:
    refuse(_WHERE, name, rule, got, "True removes, a floating mask is added to the score.")
