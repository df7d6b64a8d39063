"""The `native` backend: the row loops of csrc/, reached by plain pointers.

Everything that is a dense product over nodes (the edge features' maps) is left to torch; everything over edges happens
there.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from graphformer import _library
from graphformer.graphs import AttentionGraph
from graphformer.graphs.side import Side
from graphformer.graphs.tiles import serve
from graphformer.kernels.problem import Case, Options, Rows, Tensors

_INPUT_TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_SCORES = {"dot": 0, "leaky_relu": 1, "tanh": 2}
_NORMALIZERS = {"softmax": 0, "relu": 1, "sigmoid": 2}
# Edges and rows in one chunk of work, and the most chunks: of a pass, and of one that keeps a table for each chunk,
# where all tables together stay below a number of elements.
_CHUNK_WORK, _MOST_CHUNKS, _MOST_TABLES, _TABLE_ELEMENTS = 4096, 256, 64, 2**22


class _Problem(ctypes.Structure):
    """Mirrors `Problem` of csrc/problem.h."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("num_queries", "num_keys", "num_edges")],
        *[
            (name, ctypes.c_int32)
            for name in (
                *("heads", "width", "value_width", "num_relations", "num_features", "num_chunks"),
                *("input_type", "score", "normalizer", "threads", "has_dropout", "wide_index", "wide_id"),
            )
        ],
        *[(name, ctypes.c_double) for name in ("scale", "slope", "dropout")],
        ("seed", ctypes.c_uint64),
        *[
            (name, ctypes.c_void_p)
            for name in (
                *("query_ptr", "key_ptr", "key_index", "query_index", "edge_id", "key_edge_id", "relation"),
                *("query_tile_ptr", "key_tile_ptr", "query_tiles", "key_tiles"),
                *("query_run_ptr", "query_run_start", "query_run_stop"),
                *("key_run_ptr", "key_run_start", "key_run_stop", "query_run_shift"),
                *("query", "key", "value", "grad_out"),
                *("weight", "bias", "relation_bias", "relation_key", "relation_value"),
                *("edge_attr", "edge_query", "edge_key", "edge_grad"),
                *("out", "statistic", "edge_sum", "delta", "total"),
                *("grad_query", "grad_key", "grad_value", "grad_edge_query", "grad_bias", "grad_edge_attr"),
                *("grad_weight", "grad_relation_bias", "grad_relation_key", "grad_relation_value", "grad_edge_key"),
            )
        ],
    ]


# What a problem takes from `Rows` as it is.
_ROWS = (
    *("query_ptr", "key_ptr", "key_index", "query_index", "edge_id", "key_edge_id"),
    *("query_tile_ptr", "key_tile_ptr", "query_tiles", "key_tiles"),
    *("query_run_ptr", "query_run_start", "query_run_stop", "key_run_ptr", "key_run_start", "key_run_stop"),
)

# The compiled library; None where it was not built, or was from another version of this file.
LIBRARY = _library.LIBRARY
if LIBRARY is not None and LIBRARY.gf_problem_size() != ctypes.sizeof(_Problem):
    LIBRARY = None


def why_not(case: Case) -> list[str]:
    """The reasons why this backend cannot run a case; none means that it can."""
    reasons = []
    if LIBRARY is None:
        reasons.append("its C++ library is not built (reinstall with a C++ compiler at hand)")
    if case.device.type != "cpu":
        reasons.append(f"it runs on the CPU, the tensors are on {case.device}")
    if case.score == "custom":
        reasons.append("a score function of your own is Python")
    if case.dtype not in _INPUT_TYPES:
        reasons.append(f"it has no loops for {case.dtype}")
    return reasons


def extra_bytes(case: Case) -> tuple[int, int]:
    """Bytes of the tensors that forward and backward hold at their peaks, beside their arguments and results.

    Buffers of the threads, a few blocks of rows each and at most 16 MiB, are not counted; nor is what one backward pass
    of tiles sums the query's gradient in: a chunk's rows of a head for each thread, and at most one such gradient more.
    """
    dot, edge_key, edge_value = case.score == "dot", "edge_key" in case.terms, "edge_value" in case.terms
    rows = case.num_queries * case.heads
    features = rows * case.num_features
    by_key = case.num_keys * case.heads * (case.width + case.value_width)
    converts = case.dtype.itemsize < case.real_bytes
    num_maps = (edge_key and dot) + edge_value  # each keeps a [N, H, F] in the forward pass and two in the backward one
    forward = rows + num_maps * features + (rows * case.value_width if edge_value else 0)
    backward = 2 * rows + 2 * num_maps * features
    backward += rows * case.width if edge_key and dot else 0
    shift = 8 * case.num_runs if case.terms or case.dropout else 0
    if converts:  # the result; its gradient, and the gradients of query, key and value
        forward += rows * case.value_width
        backward += rows * (case.width + case.value_width) + by_key
    tables = {
        "weight": 0 if dot else case.width,
        "relation_bias": case.num_relations,
        "relation_key": case.num_relations * case.width,
        "relation_value": case.num_relations * case.value_width,
        "edge_key": case.num_features * case.width,
    }
    held = {name: case.heads * size for name, size in tables.items() if name == "weight" or name in case.terms}
    num_chunks = _num_chunks(case.num_queries, case.num_keys, case.num_edges, _most_chunks(sum(held.values())))
    backward += num_chunks * sum(size for name, size in held.items() if not (name == "edge_key" and dot))
    return forward * case.real_bytes, backward * case.real_bytes + shift


def rows(graph: AttentionGraph, tensors: Tensors, options: Options, *, by_key: bool) -> Rows:
    """What of a graph the loops take: its rows and tiles by query and, for gradients, by key."""
    with_tiles = not _sums_by_pair(tensors, options)
    query, key = graph.query_side, graph.key_side if by_key else None
    ptr, key_index, edge_id = _listed(query)
    key_ptr, query_index, key_edge_id = _listed(key)
    query_tile_ptr, query_tiles = (with_tiles and query.tiles) or (None, None)
    key_tile_ptr, key_tiles = (with_tiles and key and key.tiles) or (None, None)
    assert ptr is not None
    return Rows(
        *(ptr, key_index, edge_id, graph.relation, key_ptr, query_index, key_edge_id),
        *(query_tile_ptr, query_tiles, key_tile_ptr, key_tiles),
        *(*_runs(query), *_runs(key)),
    )


def tell(graph: AttentionGraph, tensors: Tensors, options: Options) -> str:
    """Which loops run, in half a sentence."""
    if _sums_by_pair(tensors, options):
        return "rows serve all queries, as edge features enter the score pair by pair"
    return serve(graph.tiles_by_query, graph.query_side.ptr).tell(graph.device)


def _sums_by_pair(tensors: Tensors, options: Options) -> bool:
    """Whether edge features enter an additive score, pair by pair: tiles gain nothing then, and take longer."""
    return options.score != "dot" and tensors.edge_key is not None


def _listed(side: Side | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if side is None:
        return None, None, None
    return (side.ptr, None, None) if side.runs is not None else side.layout


def _runs(side: Side | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    runs = None if side is None else side.runs
    return (None, None, None) if runs is None else (runs.ptr, runs.start, runs.stop)


def forward(tensors: Tensors, rows: Rows, options: Options) -> tuple[Tensor, Tensor]:
    """out [N, H, V] in the query's dtype, and the row statistic [N, H] in the compute dtype."""
    call = _Call(tensors, rows, options)
    num_rows, heads, _ = tensors.query.shape
    assert tensors.value is not None
    out = call.output("out", num_rows, heads, tensors.value.shape[2])
    statistic = call.output("statistic", num_rows, heads)
    edge_sum = None
    if tensors.edge_value is not None and tensors.edge_attr is not None:
        edge_sum = call.output("edge_sum", num_rows, heads, tensors.edge_attr.shape[1])
    call.run("gf_forward")
    if edge_sum is not None and tensors.edge_value is not None:
        out += _through(edge_sum, tensors.edge_value.to(out.dtype), statistic)
    return out.to(tensors.query.dtype), statistic


def backward(
    grad_out: Tensor,
    out: Tensor,
    statistic: Tensor,
    tensors: Tensors,
    rows: Rows,
    options: Options,
    needs: Tensors,
) -> Tensors:
    """The gradients that `needs` asks for (None for the others), each in its tensor's dtype."""
    names = ("weight", "relation_bias", "relation_key", "relation_value", "edge_key")
    tables = [getattr(tensors, name) for name in names if getattr(needs, name)]
    call = _Call(tensors, rows, options, _most_chunks(sum(table.numel() for table in tables if table is not None)))
    call.find_ids(rows)
    call.set("statistic", statistic)
    call.set("grad_out", grad_out.to(tensors.query.dtype))
    if out.dtype == call.dtype and options.normalizer == "softmax":
        call.set("total", out)  # delta = grad_out . out; a result rounded to half precision would spoil it
    num_rows, heads, width = tensors.query.shape
    num_features = 0 if tensors.edge_attr is None else tensors.edge_attr.shape[1]
    dot = options.score == "dot"
    call.output("delta", num_rows, 2, heads)
    real_grad = grad_out.to(call.dtype)
    if tensors.edge_value is not None:
        call.set("edge_grad", torch.einsum("nhv,fhv->nhf", real_grad, tensors.edge_value.to(call.dtype)))

    grads: dict[str, Tensor] = {}
    maps_key = dot and tensors.edge_key is not None
    for name in ("query", "key", "value", "bias", "edge_attr"):
        tensor = getattr(tensors, name)
        if getattr(needs, name) and tensor is not None:
            grads[name] = call.output(f"grad_{name}", *tensor.shape)
    if maps_key and (needs.query or needs.edge_key):
        grads["edge_query"] = call.output("grad_edge_query", num_rows, heads, num_features)
    if needs.edge_value and tensors.edge_value is not None:
        grads["edge_sum"] = call.output("edge_sum", num_rows, heads, num_features)
    for name in ("weight", "relation_bias", "relation_key", "relation_value", "edge_key"):
        tensor = getattr(tensors, name)
        if getattr(needs, name) and tensor is not None and not (name == "edge_key" and dot):
            grads[name] = call.tables(f"grad_{name}", *tensor.shape)
    call.run("gf_backward")

    for name in ("weight", "relation_bias", "relation_key", "relation_value", "edge_key"):
        if name in grads:
            grads[name] = _sum_in_order(grads[name])
    if maps_key and tensors.edge_key is not None and "edge_query" in grads:
        through = grads.pop("edge_query")
        if needs.query:
            grads["query"] += _through(through, tensors.edge_key.to(call.dtype), statistic)
        if needs.edge_key:
            grads["edge_key"] = _outer(through, tensors.query.to(call.dtype), statistic)
    if "edge_sum" in grads:
        grads["edge_value"] = _outer(grads.pop("edge_sum"), real_grad, statistic)
    return Tensors(
        *(  # type: ignore[arg-type]
            grads[name].to(tensor.dtype).contiguous() if name in grads and tensor is not None else None
            for name, tensor in zip(Tensors._fields, tensors, strict=True)
        )
    )


def _through(features: Tensor, maps: Tensor, statistic: Tensor) -> Tensor:
    """Features [N, H, F] by maps [F, H, D]; a row without pairs stays zero, whatever the maps hold."""
    product = torch.einsum("nhf,fhd->nhd", features, maps)
    return product if _is_finite(maps) else product.masked_fill(_is_empty(statistic), 0)


def _outer(features: Tensor, nodes: Tensor, statistic: Tensor) -> Tensor:
    """Sum over the queries of features [N, H, F] times nodes [N, H, D]; NaN in a row without pairs does not enter."""
    nodes = nodes if _is_finite(nodes) else nodes.masked_fill(_is_empty(statistic), 0)
    return torch.einsum("nhf,nhd->fhd", features, nodes)


def _is_empty(statistic: Tensor) -> Tensor:
    """Which rows have no pairs, or none that is not removed. Takes `[N, H]`, gives `[N, H, 1]`, bool."""
    return (statistic == -torch.inf).unsqueeze(2)


def _is_finite(tensor: Tensor) -> bool:
    """Whether every element is; a sum that overflows only costs the care that was not needed."""
    return bool(tensor.sum().isfinite())


def _sum_in_order(tables: Tensor) -> Tensor:
    """The sum over the first axis, in order, so that it does not depend on torch's threads."""
    total = tables[0].clone()
    for table in tables[1:]:
        total += table
    return total


def _most_chunks(table_elements: int) -> int:
    return max(1, min(_MOST_TABLES, _TABLE_ELEMENTS // table_elements)) if table_elements else _MOST_CHUNKS


def _num_chunks(num_queries: int, num_keys: int, num_edges: int, most: int) -> int:
    return min(most, 1 + (num_edges + max(num_queries, num_keys)) // _CHUNK_WORK)


class _Call:
    """One problem, filled in, with the tensors that it points into kept alive."""

    def __init__(self, tensors: Tensors, rows: Rows, options: Options, most_chunks: int = _MOST_CHUNKS) -> None:
        query, value = tensors.query, tensors.value
        assert value is not None
        assert isinstance(options.score, str)
        self.dtype = tensors.compute_dtype
        self.kept: list[Tensor] = []
        self.problem = problem = _Problem()
        problem.num_queries, problem.heads, problem.width = query.shape
        problem.num_keys, problem.num_edges = tensors.key.shape[0], int(rows.ptr[-1])
        problem.value_width = value.shape[2]
        problem.num_chunks = _num_chunks(problem.num_queries, problem.num_keys, problem.num_edges, most_chunks)
        problem.input_type = _INPUT_TYPES[query.dtype]
        problem.score, problem.normalizer = _SCORES[options.score], _NORMALIZERS[options.normalizer]
        problem.threads = torch.get_num_threads()
        problem.scale, problem.slope, problem.dropout = options.scale, options.negative_slope, options.dropout
        if options.dropout > 0 and options.seed is not None:
            problem.has_dropout, problem.seed = 1, int(options.seed) & (2**64 - 1)
        self._set_rows(rows)
        for name in ("query", "key", "value"):
            self.set(name, getattr(tensors, name))
        for name in ("weight", "bias", "relation_bias", "relation_key", "relation_value"):
            tensor = getattr(tensors, name)
            if tensor is not None:
                self.set(name, tensor.to(self.dtype))
        tables = [t for t in (tensors.relation_bias, tensors.relation_key, tensors.relation_value) if t is not None]
        if tables and rows.relation is not None:
            problem.num_relations = tables[0].shape[0]
            self.set("relation", rows.relation.to(torch.int32))
        if tensors.edge_attr is not None:
            problem.num_features = tensors.edge_attr.shape[1]
            self.set("edge_attr", tensors.edge_attr.to(self.dtype))
            if tensors.edge_key is not None and options.score == "dot":
                product = torch.einsum("nhd,fhd->nhf", query.to(self.dtype), tensors.edge_key.to(self.dtype))
                self.set("edge_query", product)
            elif tensors.edge_key is not None:
                self.set("edge_key", tensors.edge_key.to(self.dtype))

    def _set_rows(self, rows: Rows) -> None:
        problem = self.problem
        listed = rows.key_index if rows.key_index is not None else rows.query_index
        problem.wide_index = int(listed is not None and listed.dtype == torch.int64)
        ids = rows.edge_id if rows.edge_id is not None else rows.key_edge_id
        problem.wide_id = int(ids is not None and ids.dtype == torch.int64)
        for name in _ROWS:
            tensor = getattr(rows, {"query_ptr": "ptr"}.get(name, name))
            if tensor is not None:
                self.set(name, tensor)

    def find_ids(self, rows: Rows) -> None:
        """What lets a pass over runs by key tell the ids of its pairs, where it needs them."""
        problem, (start, stop) = self.problem, (rows.query_run_start, rows.query_run_stop)
        if rows.key_run_ptr is None or start is None or stop is None:
            return
        if problem.bias or problem.relation or problem.edge_attr or problem.has_dropout:
            self.set("query_run_shift", (stop - start).cumsum_(0).sub_(stop))

    def set(self, name: str, tensor: Tensor) -> None:
        tensor = tensor.contiguous()
        self.kept.append(tensor)
        setattr(self.problem, name, tensor.data_ptr())

    def output(self, name: str, *shape: int) -> Tensor:
        tensor = torch.empty(shape, dtype=self.dtype)
        self.set(name, tensor)
        return tensor

    def tables(self, name: str, *shape: int) -> Tensor:
        """A table of zeros for each chunk of rows. Shape `[chunks, *shape]`."""
        tensor = torch.zeros(self.problem.num_chunks, *shape, dtype=self.dtype)
        self.set(name, tensor)
        return tensor

    def run(self, function: str) -> None:
        p = self.problem
        task = f"hold what goes with {p.num_queries:,} queries, {p.num_keys:,} keys and {p.num_edges:,} edges"
        _library.call(function, "attend", task, ctypes.byref(p))
