"""What a kernel is given: tensors, pairs and options, as plain records that every backend shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from graphformer.graphs.layout import expand_rows
from graphformer.graphs.runs import KeyRuns

ScoreFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Additive:
    """The additive score: w[h] . f(q[i,h] + k[j,h] + ...).

    GATv2 (Brody et al., ICLR 2022) with `leaky_relu`, Bahdanau et al. (ICLR 2015) with `tanh`; GAT (Velickovic et al.,
    ICLR 2018) is the case of one channel a head, with no weight.

    Args:
        weight: w. Shape `[H, D]`, floating. Default None: all ones.
        activation: f, "leaky_relu" or "tanh".
        negative_slope: Slope of leaky_relu below zero. Default 0.2, as in GAT.

    Example:
        >>> from graphformer import AttentionGraph, attention_weights
        >>> graph = AttentionGraph.from_dense(torch.ones(1, 2).bool())
        >>> query, key = torch.zeros(1, 1, 1), torch.tensor([[[1.0]], [[1.0]]])
        >>> attention_weights(query, key, graph, score=Additive())
        tensor([[0.5000],
                [0.5000]])
    """

    weight: Tensor | None = None
    activation: str = "leaky_relu"
    negative_slope: float = 0.2


class Tensors(NamedTuple):
    """All that can have a gradient. Letters: N queries, M keys, E edges, H heads, R relations, F edge features."""

    query: Tensor  # [N, H, D]
    key: Tensor  # [M, H, D]
    value: Tensor | None  # [M, H, Dv]; None where only scores are asked for
    weight: Tensor | None = None  # [H, D]
    bias: Tensor | None = None  # [E, H]
    relation_bias: Tensor | None = None  # [R, H]
    relation_key: Tensor | None = None  # [R, H, D]
    relation_value: Tensor | None = None  # [R, H, Dv]
    edge_attr: Tensor | None = None  # [E, F]
    edge_key: Tensor | None = None  # [F, H, D]
    edge_value: Tensor | None = None  # [F, H, Dv]

    @property
    def compute_dtype(self) -> torch.dtype:
        """float32 for half precision and float32, float64 for float64."""
        return torch.promote_types(self.query.dtype, torch.float32)


class Case(NamedTuple):
    """What a backend is asked to do, for `why_not` and error messages."""

    score: str
    normalizer: str
    dtype: torch.dtype
    device: torch.device
    num_queries: int
    num_keys: int
    num_edges: int
    heads: int
    width: int
    terms: tuple[str, ...]
    dropout: float
    value_width: int = 0
    num_relations: int = 0
    num_features: int = 0
    num_runs: int = 0  # that the queries' rows are held as; 0 where their pairs are listed

    @property
    def real_bytes(self) -> int:
        """Bytes of a number that is computed with."""
        return torch.promote_types(self.dtype, torch.float32).itemsize


class Rows(NamedTuple):
    """The pairs grouped by query, and by key where gradients are asked for, as a kernel sees them.

    They are listed one by one, or held as runs.
    """

    ptr: Tensor  # [N + 1] int64
    key_index: Tensor | None  # [E] int32 or int64
    edge_id: Tensor | None  # [E] int32 or int64; None where the id is the position
    relation: Tensor | None  # [E] int32 or int64, by edge id
    key_ptr: Tensor | None = None  # [M + 1] int64
    query_index: Tensor | None = None  # [E] as key_index
    key_edge_id: Tensor | None = None  # [E] as edge_id
    # windows of rows that share many keys, as in graphs/tiles.py
    query_tile_ptr: Tensor | None = None
    query_tiles: Tensor | None = None
    key_tile_ptr: Tensor | None = None
    key_tiles: Tensor | None = None
    # rows [start, stop) of consecutive nodes at the other end, as in graphs/runs.py; ids are the positions by query
    query_run_ptr: Tensor | None = None  # [N + 1] int64
    query_run_start: Tensor | None = None  # [runs] int64
    query_run_stop: Tensor | None = None
    key_run_ptr: Tensor | None = None  # [M + 1] int64
    key_run_start: Tensor | None = None
    key_run_stop: Tensor | None = None
    # work lists, as in graphs/tasks.py: of the rows by query and by key, and of the pairs grouped by relation
    query_pieces: Tensor | None = None
    query_long: Tensor | None = None
    query_short: Tensor | None = None
    query_splits: Tensor | None = None
    key_pieces: Tensor | None = None
    key_long: Tensor | None = None
    key_short: Tensor | None = None
    key_splits: Tensor | None = None
    relation_query_index: Tensor | None = None
    relation_key_index: Tensor | None = None
    relation_edge_id: Tensor | None = None
    relation_pieces: Tensor | None = None
    relation_long: Tensor | None = None
    relation_short: Tensor | None = None
    relation_splits: Tensor | None = None

    def listed(self, num_keys: int) -> Rows:
        """The same rows by query with every pair listed."""
        if self.key_index is not None:
            return self
        runs = KeyRuns(self.query_run_ptr, self.query_run_start, self.query_run_stop, num_keys)  # type: ignore[arg-type]
        return Rows(self.ptr, runs.layout().index, None, self.relation)


class Options(NamedTuple):
    """What is not a tensor (but the seed)."""

    score: str | ScoreFunction  # "dot", "leaky_relu", "tanh" (additive), or a user's own
    negative_slope: float
    normalizer: str
    scale: float
    dropout: float
    seed: Tensor | None


class Pairs(NamedTuple):
    """A run of pairs in the order of the queries' rows; every tensor int64 of shape `[e]`."""

    query_index: Tensor
    key_index: Tensor
    edge_id: Tensor
    relation: Tensor | None


def count_pairs(rows: Rows) -> int:
    """Number of pairs of rows that list them."""
    assert rows.key_index is not None
    return rows.key_index.shape[0]


def all_pairs(rows: Rows) -> Pairs:
    """Every pair of the graph."""
    num_edges = count_pairs(rows)
    return _pairs(rows, expand_rows(rows.ptr, num_edges), 0, num_edges)


def chunks(rows: Rows, chunk_edges: int) -> Iterator[tuple[slice, Pairs]]:
    """The pairs in chunks of at most `chunk_edges`, each with its positions; a row may straddle chunks."""
    num_edges = count_pairs(rows)
    query_index = expand_rows(rows.ptr, num_edges)
    for start in range(0, num_edges, chunk_edges):
        stop = min(start + chunk_edges, num_edges)
        yield slice(start, stop), _pairs(rows, query_index[start:stop], start, stop)


def _pairs(rows: Rows, query_index: Tensor, start: int, stop: int) -> Pairs:
    edge_id = (
        torch.arange(start, stop, device=rows.ptr.device) if rows.edge_id is None else rows.edge_id[start:stop].long()
    )
    relation = None if rows.relation is None else rows.relation.index_select(0, edge_id).long()
    assert rows.key_index is not None
    return Pairs(query_index, rows.key_index[start:stop].long(), edge_id, relation)
