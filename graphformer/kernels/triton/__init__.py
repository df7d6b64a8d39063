"""The `triton` backend: kernels for NVIDIA GPUs, over listed pairs row by row, and over runs tile by tile.

Importing this package does not import Triton, which torch's CUDA wheels bring along: that happens at the first call.
With the environment variable TRITON_INTERPRET=1 Triton's interpreter runs the kernels on the CPU, for tests.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphformer.kernels.problem import Case, Options, Rows, Tensors

if TYPE_CHECKING:
    from graphformer.graphs import AttentionGraph
    from graphformer.graphs.tasks import Tasks

_OLDEST = (8, 0)  # compute capability
_IS_INSTALLED = find_spec("triton") is not None


def why_not(case: Case) -> list[str]:
    """The reasons why this backend cannot run a case; none means that it can."""
    reasons = []
    if not _IS_INSTALLED:
        reasons.append("the package triton is not installed")
    if case.device.type == "cuda":
        is_old = torch.cuda.is_available() and torch.cuda.get_device_capability(case.device) < _OLDEST
        if torch.version.cuda is None or is_old:
            reasons.append(f"its kernels are for NVIDIA GPUs of compute capability {_OLDEST[0]}.{_OLDEST[1]} or newer")
    elif not (case.device.type == "cpu" and is_interpreted()):
        reasons.append(f"it runs on CUDA devices, the tensors are on {case.device}")
    if case.score == "custom":
        reasons.append("a score function of your own is Python")
    if case.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        reasons.append(f"it has no loops for {case.dtype}")
    return reasons


def is_interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def extra_bytes(case: Case) -> tuple[int, int]:
    """Bytes of the tensors that forward and backward hold at their peaks, beside their arguments and results.

    Those of listed pairs, which are the more. What the pieces of split rows leave is not counted.
    """
    dot, edge_key, edge_value = case.score == "dot", "edge_key" in case.terms, "edge_value" in case.terms
    rows = case.num_queries * case.heads
    features = rows * case.num_features
    num_maps = (edge_key and dot) + edge_value
    half = case.dtype.itemsize < case.real_bytes
    forward = rows + num_maps * features + (2 * rows * case.value_width if edge_value else 0)
    backward = rows + 2 * num_maps * features + (rows * case.value_width if half or edge_value else 0)
    backward += rows * case.width if edge_key and dot else 0
    if case.normalizer != "softmax" and {"bias", "relation_bias"} & set(case.terms):
        forward += 4 * case.num_edges * case.heads
    return forward * case.real_bytes, backward * case.real_bytes


def rows(graph: AttentionGraph, case: Case, *, by_key: bool) -> Rows:
    """What of a graph the kernels take; `by_key` says whether gradients will be asked for."""
    height = _tile_height(graph, case, by_key=by_key)
    if height is None:
        return _listed(graph, case, by_key=by_key)
    ptr = graph.query_side.ptr
    found = Rows(ptr, None, None, graph.relation, tile_height=ptr.new_empty(height, 0))
    for name, side in (("query", graph.query_side), ("key", graph.key_side if by_key else None)):
        if side is not None and side.runs is not None:
            runs = {"ptr": side.runs.ptr, "start": side.runs.start, "stop": side.runs.stop}
            found = found._replace(**{f"{name}_run_{part}": tensor for part, tensor in runs.items()})
    return found


def tell(graph: AttentionGraph, case: Case) -> str:
    """Which loops run, in half a sentence."""
    height = _tile_height(graph, case, by_key=True)
    if height is not None:
        return f"tiles of {height} rows serve all queries"
    tasks = graph.query_side.tasks
    if tasks is None:
        return ""
    pieces, long, short, splits = (entries.shape[0] for entries in tasks)
    return f"{short} short rows share programs, {long} have one each, {splits} are split into {pieces} pieces"


def _tile_height(graph: AttentionGraph, case: Case, *, by_key: bool) -> int | None:
    """How tall the tiles are that serve a case; None where rows do."""
    from graphformer.kernels.triton import tiles

    by_query = graph.query_side.spans
    others = graph.key_side.spans if by_key and by_query is not None else by_query
    if by_query is None or others is None or not tiles.serves(case, by_query, others):
        return None
    return tiles.height_of(by_query, others)


def _listed(graph: AttentionGraph, case: Case, *, by_key: bool) -> Rows:
    ptr, key_index, edge_id = graph.by_query
    found = _with_tasks(Rows(ptr, key_index, edge_id, graph.relation), "query", graph.query_side.tasks)
    if not by_key:
        return found
    key_ptr, query_index, key_edge_id = graph.by_key
    found = found._replace(key_ptr=key_ptr, query_index=query_index, key_edge_id=key_edge_id)
    found = _with_tasks(found, "key", graph.key_side.tasks)
    has_tables = {"relation_bias", "relation_key", "relation_value"} & set(case.terms)
    if graph.relation is None or not has_tables:
        return found
    pairs = graph.query_side.by_relation(graph.relation, graph.num_relations)
    return found if pairs is None else _with_tasks(found._replace(relation_pairs=pairs.ends), "relation", pairs.tasks)


def _with_tasks(rows: Rows, name: str, tasks: Tasks | None) -> Rows:
    return rows if tasks is None else rows._replace(**{f"{name}_{part}": t for part, t in tasks._asdict().items()})


def forward(tensors: Tensors, rows: Rows, options: Options) -> tuple[Tensor, Tensor]:
    """out [N, H, V] in the query's dtype, and the row statistic [N, H] in the compute dtype."""
    from graphformer.kernels.triton import row_launch, tiles

    if rows.tile_height is not None:
        return tiles.forward(tensors, rows, options, rows.tile_height.shape[0])
    return row_launch.forward(tensors, rows, options)


def backward(
    grad_out: Tensor, out: Tensor, statistic: Tensor, tensors: Tensors, rows: Rows, options: Options, needs: Tensors
) -> Tensors:
    """The gradients that `needs` asks for (None for the others), each in its tensor's dtype."""
    from graphformer.kernels.triton import row_launch, tiles

    given = grad_out, out, statistic, tensors, rows, options, needs
    if rows.tile_height is not None:
        return tiles.backward(*given, rows.tile_height.shape[0])
    return row_launch.backward(*given)
