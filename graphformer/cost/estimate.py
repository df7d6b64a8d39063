"""`estimate`: what attention will cost, and the record in which it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from graphformer._checks import refuse, require, require_choice, require_count
from graphformer.cost.pairs import Pairs, pairs_of_graph, pairs_of_pattern
from graphformer.graphs import AttentionGraph
from graphformer.graphs.tiles import ROWS, Served
from graphformer.kernels.api import BACKENDS, choose, describe, why_not
from graphformer.kernels.problem import Case
from graphformer.patterns import Pattern, parse

_WHERE = "estimate"
_TERMS = ("bias", "relation_bias", "relation_key", "relation_value", "edge_key", "edge_value")


@dataclass(frozen=True)
class Estimate:
    """What :func:`estimate` counts; `str` of it is a few readable lines.

    A model's numbers are sums over its attention layers, each called once. Bytes are of tensors.

    Attributes:
        case: The pattern, and each kind of call with its sizes.
        num_queries: N.
        num_keys: M.
        num_edges: E, copies counted.
        num_calls: Calls of :func:`graphformer.attend`.
        backend: The backend that runs them.
        why_backend: Why this one and not the others.
        num_windows: Windows of 32 queries.
        num_tiled_windows: Those served by the backend's tile loop; the others go row by row.
        tile_fill: Share of the places in the tiles that are pairs, 0 without tiles.
        why_loops: Why rows or tiles.
        forward_multiply_adds: Of queries, keys and values in the forward pass, the tiles' empty places included; those
            of tables and edge features come on top.
        training_multiply_adds: The same, forward and backward.
        graph_bytes: What the graph holds for training: its layouts, labels and tiles.
        node_bytes: Queries, keys, values and results of all calls; their gradients take as much again.
        forward_bytes: Beside those, at the peak of the forward passes, with what they keep for the backward ones.
        backward_bytes: Beside those and the gradients of nodes and tables, at the peak of the backward passes.
        moved_bytes: Read and written in the forward pass: queries, results, and the key and value rows, once for each
            pair in rows and once for each key listed in tiles. Caches may spare the memory a part.
        materialised_bytes: One tensor [E, H, D] of the widest call, for comparison: no backend holds it as a whole, but
            for a graph that fits one chunk of the reference.
    """

    case: str
    num_queries: int
    num_keys: int
    num_edges: int
    num_calls: int
    backend: str
    why_backend: str
    num_windows: int
    num_tiled_windows: int
    tile_fill: float
    why_loops: str
    forward_multiply_adds: int
    training_multiply_adds: int
    graph_bytes: int
    node_bytes: int
    forward_bytes: int
    backward_bytes: int
    moved_bytes: int
    materialised_bytes: int

    def __str__(self) -> str:
        return "\n".join(
            (
                self.case,
                f"backend: {self.backend}, {self.why_backend}",
                f"loops: {self.why_loops}",
                f"multiply-adds: {_short(self.forward_multiply_adds, 1000)} forward, "
                f"{_short(self.training_multiply_adds, 1000)} forward and backward",
                f"memory: graph {_bytes(self.graph_bytes)}; "
                f"queries, keys, values and results {_bytes(self.node_bytes)}; "
                f"beside these {_bytes(self.forward_bytes)} forward, {_bytes(self.backward_bytes)} backward",
                f"forward reads and writes {_bytes(self.moved_bytes)}; one materialised [E, H, D] would take "
                f"{_bytes(self.materialised_bytes)}",
            )
        )


def estimate(
    what: Any,
    nodes: Any = None,
    *,
    pattern: Pattern | None = None,
    heads: int | None = None,
    width: int | None = None,
    score: str = "dot",
    terms: Sequence[str] = (),
    edge_dim: int | None = None,
    edge_gradients: bool = False,
    dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> Estimate:
    """Tell before a run what its attention will cost: pairs, loops, multiply-adds, bytes, the backend and why.

    Nothing is run, and no time is promised. A pattern is counted by its runs, so that full attention over 65,536 nodes
    is told in a fraction of a second. Linear maps, norms and feed-forward parts of a model are not counted.

    Args:
        what: A pattern; an attention graph; or a model with attention layers (:class:`graphformer.nn.GraphAttention`,
            a block, a :class:`graphformer.models.GraphTransformer`, a module of your own that holds some).
        nodes: What the pattern is laid over: a count, a list of lengths, a PyG `Data` or `Batch`, or a tuple
            (key nodes, query nodes). For a model, an attention graph as well; for a graph, nothing.
        pattern: Of a model whose settings (`model.config.pattern`) do not name one.
        heads: H of a pattern or graph, default 8; a model knows its own.
        width: D, width of a head. Default 64, as in Vaswani et al.; a model knows its own.
        score: "dot" or "additive", for a pattern or graph.
        terms: Arguments that :func:`graphformer.attend` is to be given, for a pattern or graph: of "bias",
            "relation_bias", "relation_key", "relation_value", "edge_key", "edge_value".
        edge_dim: F, the width of edge features, with "edge_key" or "edge_value".
        edge_gradients: Whether gradients of bias and edge features, [E, H] and [E, F], are asked for.
        dtype: Of queries, keys and values. Default float32, for a model that of its weights.
        backend: As in :func:`graphformer.attend`, for a pattern or graph.

    Returns:
        The counts; print them for a reading.

    Raises:
        InputError: An argument breaks its rule.
        BackendError: The named backend cannot run this.

    Notes:
        A graph is prepared, as by the run itself; a pattern that repeats pairs (`p + q`) is enumerated.

    Example:
        >>> from graphformer.patterns import Full
        >>> full = estimate(Full(), 65_536)
        >>> full.num_edges, full.materialised_bytes // 2**40
        (4294967296, 8)
    """
    options = {"heads": heads, "width": width, "edge_dim": edge_dim, "terms": terms or None}
    if isinstance(what, torch.nn.Module):
        given = [name for name, value in options.items() if value is not None]
        remedy = "Leave it out, or estimate the pattern by itself."
        if given:
            refuse(_WHERE, given[0], "be left out for a model, which has its own", options[given[0]], remedy)
        name, pairs = _pairs_of_model(what, nodes, pattern)
        calls = _calls_of_model(what, pairs, dtype)
    else:
        name, pairs = _pairs_of(what, nodes, pattern)
        case = _case(pairs, score, terms, edge_dim, heads, width, dtype)
        calls = [(case, choose(case, backend, _WHERE), backend)]
    return _sum(name, pairs, calls, edge_gradients)


# ---------------------------------------------------------------- what attends to what


def _pairs_of(what: Any, nodes: Any, pattern: Any) -> tuple[str, Pairs]:
    if pattern is not None:
        refuse(_WHERE, "pattern", "be given only with a model", repr(pattern), "Pass it as the first argument.")
    if isinstance(what, AttentionGraph):
        if nodes is not None:
            refuse(_WHERE, "nodes", "be left out for a graph, which has its own", type(nodes).__name__, "Drop it.")
        return "AttentionGraph", pairs_of_graph(what)
    if not isinstance(what, Pattern):
        rule = "be a pattern, an attention graph or a model"
        refuse(_WHERE, "what", rule, type(what).__name__, 'Read an expression with graphformer.patterns.parse("...").')
    if nodes is None:
        refuse(_WHERE, "nodes", "be given with a pattern", None, "Pass a count, lengths or PyG data.")
    return repr(what), pairs_of_pattern(what, nodes)


def _pairs_of_model(model: Any, nodes: Any, pattern: Any) -> tuple[str, Pairs]:
    name = type(model).__name__
    if isinstance(nodes, AttentionGraph):
        return name, _pairs_of(nodes, None, pattern)[1]
    if pattern is None:
        pattern = getattr(getattr(model, "config", None), "pattern", None)
        pattern = parse(pattern) if isinstance(pattern, str) else pattern
    if not isinstance(pattern, Pattern):
        remedy = "Pass pattern=, or an attention graph in place of nodes."
        refuse(_WHERE, "pattern", f"be a pattern where {name} names none", type(pattern).__name__, remedy)
    told, pairs = _pairs_of(pattern, nodes, None)
    return f"{name} over {told}", pairs


# ---------------------------------------------------------------- calls of attend


def _case(
    pairs: Pairs,
    score: str,
    terms: Sequence[str],
    edge_dim: int | None,
    heads: int | None,
    width: int | None,
    dtype: torch.dtype | None,
) -> Case:
    heads, width = 8 if heads is None else heads, 64 if width is None else width
    require_count(heads, _WHERE, "heads")
    require_count(width, _WHERE, "width")
    require_choice(score, ("dot", "additive"), _WHERE, "score", "What a function of your own keeps is not known.")
    for term in terms:
        require_choice(term, _TERMS, _WHERE, "terms")
    if any(term.startswith("relation") for term in terms) and not pairs.num_relations:
        refuse(_WHERE, "terms", "name relations where pairs carry some", list(terms), "Label with .as_relation(r).")
    if any(term.startswith("edge") for term in terms) != (edge_dim is not None):
        remedy = "Pass edge_dim=F together with terms=('edge_key', 'edge_value')."
        refuse(_WHERE, "edge_dim", "come with edge_key or edge_value, and they with it", edge_dim, remedy)
    if edge_dim is not None:
        require_count(edge_dim, _WHERE, "edge_dim")
        terms = (*terms, "edge_attr")
    kind = "dot" if score == "dot" else "leaky_relu"
    return _make_case(pairs, kind, "softmax", _floating(dtype, torch.float32), heads, width, tuple(terms), edge_dim)


def _make_case(
    pairs: Pairs,
    kind: str,
    normalizer: str,
    dtype: torch.dtype,
    heads: int,
    width: int,
    terms: tuple[str, ...],
    edge_dim: int | None,
    dropout: float = 0.0,
) -> Case:
    sizes = (pairs.num_queries, pairs.num_keys, pairs.num_edges, heads, width)
    more = (width, pairs.num_relations, edge_dim or 0, pairs.num_runs)
    return Case(kind, normalizer, dtype, pairs.device, *sizes, terms, dropout, *more)


def _floating(dtype: Any, default: torch.dtype) -> torch.dtype:
    dtype = default if dtype is None else dtype
    good = isinstance(dtype, torch.dtype) and dtype.is_floating_point
    require(good, _WHERE, "dtype", "be a floating torch dtype", repr(dtype), "The default is torch.float32.")
    return dtype


def _calls_of_model(model: torch.nn.Module, pairs: Pairs, dtype: Any) -> list[tuple[Case, str, str]]:
    from graphformer.nn.attention import GraphAttention  # with PyG, which patterns and graphs do without

    layers = [layer for layer in model.modules() if isinstance(layer, GraphAttention)]
    if not layers:
        remedy = "Those are found that are modules of graphformer.nn."
        refuse(_WHERE, "what", "hold attention layers", type(model).__name__, remedy)
    calls = []
    for layer in layers:
        if layer.num_relations is not None and not 0 < pairs.num_relations <= layer.num_relations:
            rule = f"carry 1 to {layer.num_relations} relations, as the model was made for"
            refuse(_WHERE, "pattern", rule, pairs.num_relations, "Label its terms with .as_relation(r).")
        terms = [] if layer.num_relations is None else ["relation_bias"]
        terms += [] if layer.edge_dim is None else ["edge_attr", "edge_key", "edge_value"]
        kind = "dot" if layer.score == "dot" else "leaky_relu"
        case = _make_case(
            pairs if layer.num_relations else pairs._replace(num_relations=0),
            kind,
            layer.normalizer,
            _floating(dtype, layer.lin_out.weight.dtype),
            layer.heads,
            layer.out_channels // layer.heads,
            tuple(terms),
            layer.edge_dim,
            layer.dropout if layer.training else 0.0,
        )
        calls.append((case, choose(case, layer.backend, _WHERE), layer.backend))
    return calls


# ---------------------------------------------------------------- counting


def _sum(name: str, pairs: Pairs, calls: list[tuple[Case, str, str]], edge_gradients: bool) -> Estimate:
    cases, backends = [case for case, _, _ in calls], list(dict.fromkeys(backend for _, backend, _ in calls))
    is_native = "native" in backends
    forward = backward = nodes = moved = kept = forward_peak = backward_peak = 0
    for case, backend, _ in calls:
        sides = [side if backend == "native" else _in_rows(side) for side in (pairs.by_query, pairs.by_key)]
        products = _multiply_adds(case, backend, *sides)
        forward, backward = forward + products[0], backward + products[1]
        nodes += _node_bytes(case)
        moved += _moved_bytes(case, sides[0])
        call_kept, call_forward, call_backward = _extra_bytes(case, backend, pairs.has_own_edges, edge_gradients)
        kept += call_kept
        forward_peak = max(forward_peak, call_forward - call_kept)
        backward_peak = max(backward_peak, call_backward)
    windows = pairs.by_query if is_native else _in_rows(pairs.by_query)
    return Estimate(
        case="\n".join((name, *(_times(cases.count(case)) + describe(case) for case in dict.fromkeys(cases)))),
        num_queries=pairs.num_queries,
        num_keys=pairs.num_keys,
        num_edges=pairs.num_edges,
        num_calls=len(calls),
        backend=", ".join(backends),
        why_backend="; ".join(dict.fromkeys(_why(*call) for call in calls)),
        num_windows=windows.num_windows,
        num_tiled_windows=windows.num_tiled,
        tile_fill=windows.fill,
        why_loops=windows.tell(pairs.device) if is_native else "pairs in chunks of a bounded number of elements",
        forward_multiply_adds=forward,
        training_multiply_adds=forward + backward,
        graph_bytes=pairs.row_bytes + (pairs.transposed_bytes + pairs.tile_bytes if is_native else 0),
        node_bytes=nodes,
        forward_bytes=kept + forward_peak,
        backward_bytes=backward_peak,
        moved_bytes=moved,
        materialised_bytes=max(case.num_edges * case.heads * case.width * case.real_bytes for case in cases),
    )


def _in_rows(served: Served) -> Served:
    return Served(served.num_windows, 0, served.num_pairs, 0, 0)


def _multiply_adds(case: Case, backend: str, by_query: Served, by_key: Served) -> tuple[int, int]:
    """Of the forward and of the backward pass; DESIGN.md section 6 has the products."""
    places = [side.num_pairs - side.num_tiled_pairs + ROWS * side.num_entries for side in (by_query, by_key)]
    score, message = case.heads * case.width, case.heads * case.value_width
    forward = places[0] * (score + message)
    if backend != "native":
        return forward, case.num_edges * (3 * score + 2 * message)
    backward = places[0] * (2 * score + message) + places[1] * 2 * (score + message)
    # A result rounded to half precision does not give delta, which takes a walk of its own.
    walks_twice = case.dtype.itemsize < case.real_bytes and case.normalizer == "softmax"
    return forward, backward + (forward if walks_twice else 0)


def _node_bytes(case: Case) -> int:
    return (case.num_queries + case.num_keys) * case.heads * (case.width + case.value_width) * case.dtype.itemsize


def _moved_bytes(case: Case, by_query: Served) -> int:
    rows = by_query.num_pairs - by_query.num_tiled_pairs + by_query.num_entries
    return (rows + case.num_queries) * case.heads * (case.width + case.value_width) * case.dtype.itemsize


def _extra_bytes(case: Case, backend: str, has_own_edges: bool, edge_gradients: bool) -> tuple[int, int, int]:
    """What forward keeps for backward, and the peaks of forward and backward."""
    forward, backward = BACKENDS[backend].extra_bytes(case)
    kept = case.num_queries * case.heads * case.real_bytes  # the row statistic
    backward += kept  # autograd hands a gradient of zeros for it
    if has_own_edges and "edge_attr" in case.terms:  # attend lays the own edges' features out by pair
        laid_out = case.num_edges * case.num_features * case.real_bytes
        kept, forward = kept + laid_out, forward + laid_out
    if edge_gradients and "bias" in case.terms:
        backward += case.num_edges * case.heads * case.real_bytes
    if edge_gradients and "edge_attr" in case.terms:
        backward += case.num_edges * case.num_features * case.real_bytes
    return kept, forward, backward


# ---------------------------------------------------------------- words


def _why(case: Case, chosen: str, asked: str) -> str:
    if asked != "auto":
        return "as asked for"
    names = list(BACKENDS)
    earlier, later = names[: names.index(chosen)], names[names.index(chosen) + 1 :]
    reasons = [f"{name} cannot: {', '.join(why_not(name, case))}" for name in earlier]
    reasons += [f"{name} could too" for name in later if not why_not(name, case)]
    return "; ".join(("the first that can", *reasons))


def _times(count: int) -> str:
    return f"{count} calls, each: " if count > 1 else ""


def _short(number: float, step: int) -> str:
    prefixes = ["", "k", "M", "G", "T", "P"]
    while number >= step and len(prefixes) > 1:
        number /= step
        del prefixes[0]
    return f"{number:.1f} {prefixes[0]}" if prefixes[0] else f"{number:.0f}"


def _bytes(number: int) -> str:
    told = _short(number, 1024)
    return f"{told} bytes" if told[-1].isdigit() else f"{told.upper()}iB"
