"""Attention by tiles against the reference, on graphs held as runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphformer.graphs import AttentionGraph
from graphformer.graphs.runs import KeyRuns
from graphformer.kernels import reference
from graphformer.kernels.problem import Options, Rows, Tensors
from graphformer.kernels.triton import tiles
from graphformer.kernels.triton.tile_config import TileConfig, override
from graphformer.testing import assert_close

SEED = 5
SMALL = TileConfig(16, 16, 4, 1)


def graph_of(starts: list[int], stops: list[int], num_keys: int) -> AttentionGraph:
    """A graph of one run a row."""
    return AttentionGraph(KeyRuns.from_ranges(torch.tensor(starts), torch.tensor(stops), num_keys), num_keys)


def rows_of_runs(graph: AttentionGraph, relation: Tensor | None = None) -> Rows:
    """The rows as runs on both sides."""
    by_query = graph.query_side.runs
    if by_query is None:  # a graph of few pairs lists them
        by_query = KeyRuns.from_pairs(*graph.edge_index.flip(0), graph.num_queries, graph.num_keys)
    by_key = by_query.transpose()
    return Rows(
        graph.query_side.ptr,
        None,
        None,
        relation,
        query_run_ptr=by_query.ptr,
        query_run_start=by_query.start,
        query_run_stop=by_query.stop,
        key_run_ptr=by_key.ptr,
        key_run_start=by_key.start,
        key_run_stop=by_key.stop,
    )


def make_tensors(
    graph: AttentionGraph, dtype: torch.dtype = torch.float32, heads: int = 1, width: int = 16, value_width: int = 16
) -> Tensors:
    query = torch.randn(graph.num_queries, heads, width, dtype=dtype)
    key = torch.randn(graph.num_keys, heads, width, dtype=dtype)
    return Tensors(query, key, torch.randn(graph.num_keys, heads, value_width, dtype=dtype))


def options_of(tensors: Tensors, normalizer: str = "softmax", dropout: float = 0.0) -> Options:
    return Options("dot", 0.0, normalizer, tensors.query.shape[2] ** -0.5, dropout, torch.tensor(SEED))


def run(
    backend: Any, tensors: Tensors, rows: Rows, options: Options, grad_out: Tensor, needs: Tensors, **more: Any
) -> tuple[Tensor, Tensor, Tensors]:
    """Result, statistic and gradients."""
    out, statistic = backend.forward(tensors, rows, options, **more)
    return out, statistic, backend.backward(grad_out, out, statistic, tensors, rows, options, needs, **more)


def check(
    graph: AttentionGraph,
    tensors: Tensors,
    normalizer: str = "softmax",
    dropout: float = 0.0,
    relation: Tensor | None = None,
    cut: TileConfig = SMALL,
    height: int = tiles.TALL,
) -> tuple[Tensor, Tensor, Tensors]:
    """Run both and compare everything; what tiles gave."""
    options = options_of(tensors, normalizer, dropout)
    needs = Tensors(*(tensor is not None for tensor in tensors))  # type: ignore[arg-type]
    assert tensors.value is not None
    grad_out = torch.randn(graph.num_queries, *tensors.value.shape[1:], dtype=tensors.query.dtype)
    listed = Rows(*graph.by_query, relation)
    expected = run(reference, tensors, listed, options, grad_out, needs)
    with override(forward=cut, by_query=cut, by_key=cut):
        found = run(tiles, tensors, rows_of_runs(graph, relation), options, grad_out, needs, height=height)
    dtype = tensors.query.dtype
    assert found[0].dtype == dtype
    assert_close(found[0], expected[0])
    assert_close(found[1], expected[1], torch.float32)
    for name, mine, other in zip(Tensors._fields, found[2], expected[2], strict=True):
        assert (mine is None) == (other is None), name
        if mine is not None and other is not None:
            assert mine.shape == other.shape
            assert mine.dtype == other.dtype
            assert mine.is_contiguous()
            assert_close(mine, other, dtype)
    return found
