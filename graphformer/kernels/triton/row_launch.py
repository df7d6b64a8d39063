"""Launches of the kernels over listed pairs, and what is left to torch: dense products over nodes."""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from graphformer.graphs.layout import Layout
from graphformer.graphs.tasks import Tasks, make_tasks, pairs_by_relation
from graphformer.kernels.problem import Options, Rows, Tensors, count_pairs
from graphformer.kernels.triton import row_backward, row_forward, row_sums
from graphformer.kernels.triton.config import RowConfig, architecture_of, on, padded, row_config

_REAL = {torch.float32: tl.float32, torch.float64: tl.float64}
_BY_NODE = {"query": "grad_query", "edge_query": "grad_edge_query", "edge_sum": "edge_sum"}  # the kernel's arguments
_SHARERS = 256  # programs that sum what all pairs share


def forward(tensors: Tensors, rows: Rows, options: Options) -> tuple[Tensor, Tensor]:
    """out [N, H, V] in the query's dtype, and the row statistic [N, H] in the compute dtype."""
    call = _Call(tensors, rows, options)
    assert tensors.value is not None
    num_rows, heads, _ = tensors.query.shape
    width, features = tensors.value.shape[2], call.num_features
    has_map = tensors.edge_value is not None
    out = call.empty(num_rows, heads, width, dtype=call.dtype if has_map else tensors.query.dtype)
    soft = options.normalizer == "softmax"
    statistic = call.empty(num_rows, heads) if soft else _log_degree(tensors, rows, call.dtype)
    edge_sum = call.empty(num_rows, heads, features) if has_map else None
    tasks = _query_tasks(rows)
    results = {"out": out, "statistic": statistic, "edge_sum": edge_sum}
    ids = {"edge_id": rows.edge_id}
    call.whole_rows(row_forward.forward_rows, "forward", tasks, results | ids)
    num_pieces = tasks.pieces.shape[0]
    if num_pieces:
        by_piece: dict[str, Tensor | None] = {"out": call.empty(num_pieces, heads, width)}
        by_piece["statistic"] = call.empty(num_pieces, heads) if soft else statistic
        by_piece["edge_sum"] = call.empty(num_pieces, heads, features) if has_map else None
        call.pieces(row_forward.forward_rows, "forward", tasks, by_piece | ids)
        call.join(row_forward.join_pieces, tasks, results | {f"piece_{name}": t for name, t in by_piece.items()})
    if edge_sum is not None and tensors.edge_value is not None:
        out += _through(edge_sum, tensors.edge_value, statistic)
    return out.to(tensors.query.dtype), statistic


def backward(
    grad_out: Tensor, out: Tensor, statistic: Tensor, tensors: Tensors, rows: Rows, options: Options, needs: Tensors
) -> Tensors:
    """The gradients that `needs` asks for (None for the others), each in its tensor's dtype."""
    call = _Call(tensors, rows, options)
    wanted = {name for name in Tensors._fields if getattr(needs, name) and getattr(tensors, name) is not None}
    call.given["grad_out"] = grad_out.contiguous()
    call.given["statistic"] = statistic
    if tensors.edge_value is not None:
        call.given["edge_grad"] = _by_map(grad_out.to(call.dtype), tensors.edge_value)
    call.given["delta"] = torch.empty_like(statistic)
    grads = _by_query(call, out, wanted, needs)
    if wanted & {"key", "value"}:
        grads |= _by_key(call, wanted)
    if wanted & {"relation_bias", "relation_key", "relation_value"}:
        grads |= _by_relation(call, wanted)
    if options.score != "dot" and wanted & {"weight", "edge_key"}:
        grads |= _shared(call, wanted)

    if "edge_query" in grads:
        through = grads.pop("edge_query")
        assert tensors.edge_key is not None
        if "query" in wanted:
            grads["query"] = grads["query"] + _through(through, tensors.edge_key, statistic)
        if "edge_key" in wanted:
            grads["edge_key"] = _outer(through, tensors.query.to(call.dtype), statistic)
    if "edge_sum" in grads:
        grads["edge_value"] = _outer(grads.pop("edge_sum"), grad_out.to(call.dtype), statistic)
    return Tensors(
        *(  # type: ignore[arg-type]
            grads[name].to(getattr(tensors, name).dtype).contiguous() if name in wanted else None
            for name in Tensors._fields
        )
    )


def _by_query(call: _Call, out: Tensor, wanted: set[str], needs: Tensors) -> dict[str, Tensor]:
    tensors, heads = call.tensors, call.heads
    num_rows, _, width = tensors.query.shape
    dot, soft = call.options.score == "dot", call.options.normalizer == "softmax"
    finds_delta = soft and out.dtype != call.dtype
    grads: dict[str, Tensor] = {}
    if "query" in wanted:
        # A map's share of the query's gradient is added in the compute dtype.
        through = dot and tensors.edge_key is not None
        grads["query"] = call.empty(num_rows, heads, width, dtype=call.dtype if through else tensors.query.dtype)
    if dot and tensors.edge_key is not None and wanted & {"query", "edge_key"}:
        grads["edge_query"] = call.empty(num_rows, heads, call.num_features)
    if "edge_value" in wanted:
        grads["edge_sum"] = call.empty(num_rows, heads, call.num_features)
    by_node = dict(grads)
    if "bias" in wanted:
        assert tensors.bias is not None
        grads["bias"] = call.empty(call.num_pairs, heads, dtype=tensors.bias.dtype)
    by_head_block = None
    if "edge_attr" in wanted:
        by_head_block = call.empty(call.num_head_blocks("backward"), call.num_pairs, call.num_features)
    later = {name: grads[name] for name in ("bias",) if name in grads}
    if finds_delta:
        call.by_query(by_node, None, None, finds_delta=True)
        if later or by_head_block is not None:
            call.by_query(later, by_head_block, None, finds_delta=False)
    elif soft or grads or by_head_block is not None:
        call.by_query(grads, by_head_block, out if soft else None, finds_delta=False)
    if by_head_block is not None:
        grads["edge_attr"] = by_head_block.sum(0)
    return grads


def _by_key(call: _Call, wanted: set[str]) -> dict[str, Tensor]:
    rows, tensors = call.rows, call.tensors
    assert tensors.value is not None
    grads: dict[str, Tensor] = {}
    for name in sorted(wanted & {"key", "value"}):
        grads[name] = torch.empty_like(getattr(tensors, name), memory_format=torch.contiguous_format)
    sources = {"query_index": rows.query_index, "key_index": None, "edge_id": rows.key_edge_id}
    call.by_others(_key_tasks(rows), sources, grads, by_relation=False)
    return grads


def _by_relation(call: _Call, wanted: set[str]) -> dict[str, Tensor]:
    rows, tensors = call.rows, call.tensors
    names = {"key": "relation_key", "value": "relation_value", "bias": "relation_bias"}
    grads = {name: call.empty(*getattr(tensors, field).shape) for name, field in names.items() if field in wanted}
    table = next(t for t in (tensors.relation_bias, tensors.relation_key, tensors.relation_value) if t is not None)
    lists, tasks = _relation_lists(rows, table.shape[0])
    call.by_others(tasks, lists, grads, by_relation=True)
    return {names[name]: grad for name, grad in grads.items()}


def _shared(call: _Call, wanted: set[str]) -> dict[str, Tensor]:
    """The gradients of an additive score's weight and feature map: sums over every pair."""
    tensors, tasks = call.tensors, _query_tasks(call.rows)
    grads: dict[str, Tensor] = {}
    for name in ("weight", "edge_key"):
        if name in wanted:
            grads[name] = torch.zeros_like(getattr(tensors, name), dtype=call.dtype)
    for entries in (tasks.pieces, tasks.long, tasks.short):
        programs = min(_SHARERS, entries.shape[0])
        if programs == 0:
            continue
        parts = {name: call.empty(programs, *grad.shape) for name, grad in grads.items() if grad.numel() > 0}
        config = call.config("backward", False)
        blocks = (programs, -(-call.heads // config.head_block), call.num_features if "edge_key" in parts else 1)
        more = {"tasks": entries, "num_tasks": entries.shape[0], "num_programs": programs, "edge_id": call.rows.edge_id}
        more |= {"part_weight": parts.get("weight"), "part_map": parts.get("edge_key")}
        call.run(row_sums.backward_shared, blocks, config, more)
        for name, part in parts.items():
            grads[name] += part.sum(0)
    return grads


class _Call:
    """One problem as the kernels take it: every argument that several of them share, by name."""

    def __init__(self, tensors: Tensors, rows: Rows, options: Options) -> None:
        assert tensors.value is not None
        self.tensors, self.rows, self.options, self.dtype = tensors, rows, options, tensors.compute_dtype
        _, self.heads, width = tensors.query.shape
        self.num_pairs = count_pairs(rows)
        self.num_features = 0 if tensors.edge_attr is None else tensors.edge_attr.shape[1]
        value_width = tensors.value.shape[2]
        self.architecture = architecture_of(tensors.query.device)
        dot = options.score == "dot"
        given: dict[str, Any] = {}
        for name in ("query", "key", "value"):
            given[name] = nodes = _last_contiguous(getattr(tensors, name))
            given[f"{name}_stride"], given[f"{name}_head_stride"] = nodes.stride()[:2]
        for name in ("weight", "bias", "relation_bias", "relation_key", "relation_value", "edge_attr", "edge_key"):
            tensor = getattr(tensors, name)
            if tensor is not None and name not in ("bias", "edge_attr"):  # which go by pairs, and are not copied
                tensor = tensor.to(self.dtype)
            given[name] = None if tensor is None else tensor.contiguous()
        tables = (tensors.relation_bias, tensors.relation_key, tensors.relation_value)
        given["relation"] = rows.relation if any(table is not None for table in tables) else None
        given["edge_query"] = None
        if dot and given["edge_key"] is not None:
            given["edge_query"] = _by_map(tensors.query.to(self.dtype), given["edge_key"])
            given["edge_key"] = None
        given |= {"key_index": rows.key_index, "edge_grad": None, "seed": options.seed}
        kept = 1.0 - options.dropout
        given |= {"scale": options.scale, "slope": options.negative_slope}
        given |= {"least": int(options.dropout * 2**32), "grow": 1.0 / kept}
        given |= {
            "REAL": _REAL[self.dtype], "SCORE": options.score, "NORMALIZER": options.normalizer,
            "HAS_DROPOUT": options.dropout > 0,
            "HEADS": self.heads, "WIDTH": width, "VALUE_WIDTH": value_width, "NUM_FEATURES": self.num_features,
            "D": padded(width), "V": padded(value_width), "F": padded(self.num_features),
        }  # fmt: skip
        self.given = given

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return self.tensors.query.new_empty(shape, dtype=dtype or self.dtype)

    def config(self, direction: str, is_short: bool) -> RowConfig:
        given = self.given
        widest = max(given["D"], given["V"], given["F"])
        return row_config(direction, is_short, self.heads, widest, self.tensors.query.dtype, self.architecture)

    def num_head_blocks(self, direction: str) -> int:
        return -(-self.heads // self.config(direction, False).head_block)

    def whole_rows(self, kernel: Any, direction: str, tasks: Tasks, more: dict[str, Any]) -> None:
        """Long rows first, as they take longest."""
        for is_short, entries in ((False, tasks.long), (True, tasks.short)):
            self.launch(kernel, self.config(direction, is_short), entries, more | {"IS_PIECE": False})

    def pieces(self, kernel: Any, direction: str, tasks: Tasks, more: dict[str, Any]) -> None:
        """The pieces of split rows; results are by piece."""
        self.launch(kernel, self.config(direction, False), tasks.pieces, more | {"IS_PIECE": True})

    def launch(self, kernel: Any, config: RowConfig, entries: Tensor, more: dict[str, Any]) -> None:
        if entries.shape[0] == 0:
            return
        blocks = (-(-entries.shape[0] // config.rows), -(-self.heads // config.head_block), 1)
        self.run(kernel, blocks, config, {"tasks": entries, "num_tasks": entries.shape[0], "ROWS": config.rows, **more})

    def join(self, kernel: Any, tasks: Tasks, more: dict[str, Any]) -> None:
        """One program for each split row and block of heads."""
        config = self.config("backward", False)
        blocks = (tasks.splits.shape[0], -(-self.heads // config.head_block), 1)
        self.run(kernel, blocks, config, {"splits": tasks.splits, **more})

    def run(self, kernel: Any, blocks: tuple[int, int, int], config: RowConfig, more: dict[str, Any]) -> None:
        given = self.given | {"HEAD_BLOCK": config.head_block, "STEP": config.step, "STAGES": config.stages} | more
        arguments = {name: given[name] for name in kernel.arg_names}
        with on(self.tensors.query.device):
            # Said aloud, as Triton warns that its default will change.
            kernel[blocks](**arguments, num_warps=config.warps, enable_fp_fusion=True)

    def by_query(
        self, grads: dict[str, Tensor], by_head_block: Tensor | None, out: Tensor | None, *, finds_delta: bool
    ) -> None:
        """One pass; `out` is given where delta is taken from it."""
        tasks, delta = _query_tasks(self.rows), self.given["delta"]
        by_node = {name: grad for name, grad in grads.items() if name in _BY_NODE}
        more: dict[str, Any] = dict.fromkeys(("grad_query", "grad_edge_query", "edge_sum"))
        more |= dict.fromkeys(("query_mean", "edge_query_mean", "piece_delta"))
        more |= {"FINDS_DELTA": finds_delta, "num_pairs": self.num_pairs, "edge_id": self.rows.edge_id}
        more |= {"grad_bias": grads.get("bias"), "grad_edge_attr": by_head_block, "out": out}
        kernel = row_backward.backward_queries
        results = {_BY_NODE[name]: grad for name, grad in by_node.items()}
        self.whole_rows(kernel, "backward", tasks, more | results)
        num_pieces = tasks.pieces.shape[0]
        if num_pieces == 0:
            return
        by_piece = {name: self.empty(num_pieces, *grad.shape[1:]) for name, grad in by_node.items()}
        means = {name: torch.empty_like(by_piece[name]) for name in by_node if finds_delta and name != "edge_sum"}
        found = self.empty(num_pieces, self.heads) if finds_delta else None
        results = {_BY_NODE[name]: piece for name, piece in by_piece.items()}
        results |= {f"{name}_mean": mean for name, mean in means.items()}
        self.pieces(kernel, "backward", tasks, more | results | {"piece_delta": found})
        if found is not None:
            self.sum_pieces(tasks, delta.unsqueeze(2), found, None)
        for name, grad in by_node.items():
            self.sum_pieces(tasks, grad, by_piece[name], means.get(name))

    def by_others(self, tasks: Tasks, lists: dict[str, Any], grads: dict[str, Tensor], *, by_relation: bool) -> None:
        """Passes by key and by relation; `grads` by "key", "value" and "bias"."""
        more = {"grad_key": None, "grad_value": None, "grad_bias": None, "BY_RELATION": by_relation, **lists}
        kernel, whole = row_sums.backward_keys, {f"grad_{name}": grad for name, grad in grads.items()}
        self.whole_rows(kernel, "backward", tasks, more | whole)
        num_pieces = tasks.pieces.shape[0]
        if num_pieces == 0:
            return
        by_piece = {name: self.empty(num_pieces, *grad.shape[1:]) for name, grad in grads.items()}
        self.pieces(
            row_sums.backward_keys,
            "backward",
            tasks,
            more | {f"grad_{name}": piece for name, piece in by_piece.items()},
        )
        for name, piece in by_piece.items():
            self.sum_pieces(tasks, grads[name], piece, None)

    def sum_pieces(self, tasks: Tasks, total: Tensor, pieces: Tensor, means: Tensor | None) -> None:
        width = total.shape[2] if total.dim() == 3 else 1
        more = {"total": total, "pieces": pieces, "piece_means": means, "WIDTH": width, "PADDED": padded(width)}
        self.join(row_backward.sum_pieces, tasks, more)


def _last_contiguous(nodes: Tensor) -> Tensor:
    return nodes if nodes.shape[2] == 1 or nodes.stride(2) == 1 else nodes.contiguous()


def _query_tasks(rows: Rows) -> Tasks:
    held = (rows.query_pieces, rows.query_long, rows.query_short, rows.query_splits)
    return _held(held) or make_tasks(rows.ptr, count_pairs(rows))


def _key_tasks(rows: Rows) -> Tasks:
    assert rows.key_ptr is not None
    held = (rows.key_pieces, rows.key_long, rows.key_short, rows.key_splits)
    return _held(held) or make_tasks(rows.key_ptr, count_pairs(rows))


def _relation_lists(rows: Rows, num_relations: int) -> tuple[dict[str, Tensor], Tasks]:
    """Each relation's pairs, as the pass by key takes its pairs, and their work list."""
    ends = rows.relation_pairs
    tasks = _held((rows.relation_pieces, rows.relation_long, rows.relation_short, rows.relation_splits))
    if ends is None or tasks is None:
        assert rows.key_index is not None
        assert rows.relation is not None
        layout = Layout(rows.ptr, rows.key_index, rows.edge_id)
        ends, tasks = pairs_by_relation(layout, rows.relation, num_relations)
    return dict(zip(("query_index", "key_index", "edge_id"), ends, strict=True)), tasks


def _held(lists: tuple[Tensor | None, ...]) -> Tasks | None:
    """A work list that came with the graph; inside torch.compile there may be none."""
    return None if lists[0] is None else Tasks(*lists)  # type: ignore[arg-type]


def _log_degree(tensors: Tensors, rows: Rows, dtype: torch.dtype) -> Tensor:
    """The logarithm of each row's number of pairs that no bias removes, -inf for none. Shape `[N, H]`."""
    degree = rows.ptr.diff().unsqueeze(1).expand(-1, tensors.query.shape[1])
    if tensors.bias is not None or tensors.relation_bias is not None:
        pair_id = torch.arange(count_pairs(rows), device=rows.ptr.device) if rows.edge_id is None else rows.edge_id
        bias = torch.zeros((), dtype=dtype, device=rows.ptr.device)
        if tensors.bias is not None:
            bias = bias + tensors.bias.to(dtype).index_select(0, pair_id)
        if tensors.relation_bias is not None and rows.relation is not None:
            bias = bias + tensors.relation_bias.to(dtype).index_select(0, rows.relation.index_select(0, pair_id))
        kept = torch.nn.functional.pad((bias != -torch.inf).cumsum(0), (0, 0, 1, 0))
        degree = kept[rows.ptr].diff(dim=0)
    return degree.to(dtype).log().contiguous()


def _by_map(nodes: Tensor, maps: Tensor) -> Tensor:
    """Vectors [N, H, D] by the transpose of maps [F, H, D], so that features can be multiplied by it. `[N, H, F]`."""
    return torch.einsum("nhd,fhd->nhf", nodes, maps.to(nodes.dtype)).contiguous()


def _through(features: Tensor, maps: Tensor, statistic: Tensor) -> Tensor:
    """Features [N, H, F] by maps [F, H, D]; a row without pairs stays zero, whatever the maps hold."""
    return torch.einsum("nhf,fhd->nhd", features, maps.to(features.dtype)).masked_fill(_is_empty(statistic), 0)


def _outer(features: Tensor, nodes: Tensor, statistic: Tensor) -> Tensor:
    """Sum over the queries of features [N, H, F] times nodes [N, H, D]; NaN in a row without pairs does not enter."""
    return torch.einsum("nhf,nhd->fhd", features, nodes.masked_fill(_is_empty(statistic), 0))


def _is_empty(statistic: Tensor) -> Tensor:
    """Which rows have no pairs, or none that is not removed. Takes `[N, H]`, gives `[N, H, 1]`, bool."""
    return (statistic == -torch.inf).unsqueeze(2)
