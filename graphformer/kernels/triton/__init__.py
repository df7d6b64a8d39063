"""The `triton` backend: kernels for NVIDIA GPUs, over listed pairs row by row.

Importing this package does not import Triton, which torch's CUDA wheels bring along: that happens at the first call.
With the environment variable TRITON_INTERPRET=1 Triton's interpreter runs the kernels on the CPU, for tests.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphformer.kernels.problem import Case, Options, Rows, Tensors

if TYPE_CHECKING:
    from graphformer.graphs import AttentionGraph

_OLDEST = (8, 0)  # compute capability


def why_not(case: Case) -> list[str]:
    """The reasons why this backend cannot run a case; none means that it can."""
    reasons = []
    if not _is_installed():
        reasons.append("the package triton is not installed")
    if case.device.type == "cuda":
        if torch.version.cuda is None or torch.cuda.get_device_capability(case.device) < _OLDEST:
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


@cache
def _is_installed() -> bool:
    return find_spec("triton") is not None


def extra_bytes(case: Case) -> tuple[int, int]:
    """Bytes of the tensors that forward and backward hold at their peaks, beside their arguments and results.

    What the pieces of split rows leave, at most one vector a LONGEST / 2 pairs, is not counted.
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


def rows(graph: AttentionGraph, tensors: Tensors, options: Options, *, by_key: bool) -> Rows:
    """What of a graph the kernels take; `by_key` says whether gradients will be asked for."""
    ptr, key_index, edge_id = graph.by_query
    found = Rows(ptr, key_index, edge_id, graph.relation)
    tasks = graph.query_side.tasks
    if tasks is not None:
        found = found._replace(**{f"query_{name}": entries for name, entries in tasks._asdict().items()})
    if not by_key:
        return found
    key_ptr, query_index, key_edge_id = graph.by_key
    found = found._replace(key_ptr=key_ptr, query_index=query_index, key_edge_id=key_edge_id)
    tasks = graph.key_side.tasks
    if tasks is not None:
        found = found._replace(**{f"key_{name}": entries for name, entries in tasks._asdict().items()})
    tables = (tensors.relation_bias, tensors.relation_key, tensors.relation_value)
    pairs = graph.pairs_by_relation if any(table is not None for table in tables) else None
    if pairs is None:
        return found
    found = found._replace(relation_query_index=pairs.query, relation_key_index=pairs.key)
    found = found._replace(relation_edge_id=pairs.edge_id)
    return found._replace(**{f"relation_{name}": entries for name, entries in pairs.tasks._asdict().items()})


def tell(graph: AttentionGraph, tensors: Tensors, options: Options) -> str:
    """Which loops run, in half a sentence."""
    tasks = graph.query_side.tasks
    if tasks is None:
        return ""
    pieces, long, short, splits = (entries.shape[0] for entries in tasks)
    return f"{short} short rows share programs, {long} have one each, {splits} are split into {pieces} pieces"


def forward(tensors: Tensors, rows: Rows, options: Options) -> tuple[Tensor, Tensor]:
    """out [N, H, V] in the query's dtype, and the row statistic [N, H] in the compute dtype."""
    from graphformer.kernels.triton import row_launch as loops

    return loops.forward(tensors, rows, options)


def backward(
    grad_out: Tensor, out: Tensor, statistic: Tensor, tensors: Tensors, rows: Rows, options: Options, needs: Tensors
) -> Tensors:
    """The gradients that `needs` asks for (None for the others), each in its tensor's dtype."""
    from graphformer.kernels.triton import row_launch as loops

    return loops.backward(grad_out, out, statistic, tensors, rows, options, needs)
