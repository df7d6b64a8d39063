"""Attention graphs in numbers and words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from graphformer.graphs.layout import within_rows
from graphformer.graphs.tiles import serve

if TYPE_CHECKING:
    from graphformer.graphs.attention_graph import AttentionGraph


class GraphStats(NamedTuple):
    """What :meth:`AttentionGraph.stats` counts.

    A window is 32 queries. Those whose queries share enough keys are served by tiles, the others row by row;
    `tile_fill` is the share of (query, key) places in the tiles that are pairs, 0 without tiles. `num_bytes` is what
    layouts and labels hold, `num_tile_bytes` what the tiles by query do.
    """

    num_queries: int
    num_keys: int
    num_edges: int
    density: float
    num_duplicates: int
    num_empty_queries: int
    num_unused_keys: int
    mean_degree: float
    max_degree: int
    num_bytes: int
    num_windows: int
    num_tiled_windows: int
    tile_fill: float
    num_tile_bytes: int


def stats(graph: AttentionGraph) -> GraphStats:
    """Counts that describe the graph; takes a few passes over the edges, and makes `tiles_by_query`."""
    num_queries, num_keys, num_edges = graph.num_queries, graph.num_keys, graph.num_edges
    by_key = () if graph._by_key is None else graph._by_key.tensors()
    served = serve(graph.tiles_by_query, graph.query_side.ptr)
    return GraphStats(
        num_queries=num_queries,
        num_keys=num_keys,
        num_edges=num_edges,
        density=_density(graph),
        num_duplicates=num_duplicates(graph),
        num_empty_queries=_num_empty(graph),
        num_unused_keys=_num_unused(graph),
        mean_degree=num_edges / num_queries if num_queries else 0.0,
        max_degree=int(graph.degree.max()) if num_queries else 0,
        num_bytes=num_bytes((*graph.query_side.tensors(), *by_key, graph.relation, graph.own_edge)),
        num_windows=served.num_windows,
        num_tiled_windows=served.num_tiled,
        tile_fill=served.fill,
        num_tile_bytes=num_bytes(graph.tiles_by_query or ()),
    )


def _density(graph: AttentionGraph) -> float:
    places = graph.num_queries * graph.num_keys
    return graph.num_edges / places if places else 0.0


def num_duplicates(graph: AttentionGraph) -> int:
    """Number of pairs that repeat another one."""
    if graph.query_side.runs is not None:
        return 0
    ptr, index, _ = graph.by_query
    return int(((index[1:] == index[:-1]) & within_rows(ptr, graph.num_edges)).sum())


def _num_unused(graph: AttentionGraph) -> int:
    if graph.query_side.runs is not None:
        return int((graph.query_side.transpose().ptr.diff() == 0).sum())
    return graph.num_keys - int(graph.by_query.index.unique().numel())


def _num_empty(graph: AttentionGraph) -> int:
    return int((graph.degree == 0).sum())


def num_bytes(tensors: Iterable[Tensor | None]) -> int:
    """What the tensors hold; None holds nothing."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


def one_line(graph: AttentionGraph) -> str:
    """The repr of a graph."""
    nodes = (
        _count(graph.num_keys, "node")
        if graph.num_keys == graph.num_queries
        else f"{_count(graph.num_keys, 'key')}, {graph.num_queries} queries"
    )
    parts = [
        nodes,
        _count(graph.num_edges, "edge"),
        f"density {_density(graph):.1%}",
        _count(num_duplicates(graph), "duplicate"),
        _count(_num_empty(graph), "empty row"),
    ]
    if graph.relation is not None:
        parts.append(_count(graph.num_relations, "relation"))
    if graph.device.type != "cpu":
        parts.append(f"device={str(graph.device)!r}")
    return f"AttentionGraph({', '.join(parts)})"


def explain(graph: AttentionGraph) -> str:
    """A few lines that tell what the graph is and what it costs to hold.

    Example:
        >>> import torch
        >>> from graphformer import AttentionGraph
        >>> print(AttentionGraph.from_dense(torch.ones(2, 3).bool()).explain())
        2 queries attend to 3 keys by 6 edges (density 100.0%)
        degree: mean 3.0, largest 3, 0 empty rows; 0 keys that nobody attends to
        0 duplicate edges; no relations; no own edges
        indices int32, ids by position; 48 bytes held on cpu
        tiles serve 0 of 1 window of 32 queries: none is filled to 20%, so all go row by row
    """
    facts = stats(graph)
    relations = f"{graph.num_relations} relations" if graph.relation is not None else "no relations"
    own = "no own edges" if graph.own_edge is None else f"{graph.num_own_edges} own edges"
    tiles = serve(graph.tiles_by_query, graph.query_side.ptr).tell(graph.device)
    if facts.num_tiled_windows:
        tiles += f"; {facts.num_tile_bytes:,} bytes"
    return "\n".join(
        (
            f"{facts.num_queries} queries attend to {facts.num_keys} keys by {facts.num_edges} edges "
            f"(density {facts.density:.1%})",
            f"degree: mean {facts.mean_degree:.1f}, largest {facts.max_degree}, "
            f"{_count(facts.num_empty_queries, 'empty row')}; {facts.num_unused_keys} keys that nobody attends to",
            f"{_count(facts.num_duplicates, 'duplicate edge')}; {relations}; {own}",
            f"{_held(graph)}; {facts.num_bytes:,} bytes held on {graph.device}",
            tiles,
        )
    )


def _held(graph: AttentionGraph) -> str:
    runs = graph.query_side.runs
    if runs is not None:
        return f"held as {_count(runs.start.numel(), 'run')} of keys, ids by position"
    _, index, ids = graph.by_query
    return f"indices {_dtype(index)}, ids {_dtype(ids) if ids is not None else 'by position'}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
