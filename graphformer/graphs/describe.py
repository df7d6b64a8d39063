"""Attention graphs in numbers and words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from graphformer.graphs.layout import expand_rows

if TYPE_CHECKING:
    from graphformer.graphs.attention_graph import AttentionGraph


class GraphStats(NamedTuple):
    """What :meth:`AttentionGraph.stats` counts."""

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


def stats(graph: AttentionGraph) -> GraphStats:
    """See :meth:`AttentionGraph.stats`."""
    ptr, index, edge_id = graph.by_query
    num_queries, num_keys, num_edges = graph.num_queries, graph.num_keys, graph.num_edges
    code = expand_rows(ptr, num_edges) * max(num_keys, 1) + index
    if code.numel() and not bool((code[1:] >= code[:-1]).all()):
        code = code.sort().values
    held = [t for t in (ptr, index, edge_id, graph.relation, graph.own_edge) if t is not None]
    return GraphStats(
        num_queries=num_queries,
        num_keys=num_keys,
        num_edges=num_edges,
        density=num_edges / (num_queries * num_keys) if num_queries and num_keys else 0.0,
        num_duplicates=int((code[1:] == code[:-1]).sum()),
        num_empty_queries=int((graph.degree == 0).sum()),
        num_unused_keys=num_keys - int(index.unique().numel()),
        mean_degree=num_edges / num_queries if num_queries else 0.0,
        max_degree=int(graph.degree.max()) if num_queries else 0,
        num_bytes=sum(t.numel() * t.element_size() for t in held),
    )


def one_line(graph: AttentionGraph) -> str:
    """The repr of a graph."""
    facts = stats(graph)
    nodes = (
        _count(graph.num_keys, "node")
        if graph.num_keys == graph.num_queries
        else f"{_count(graph.num_keys, 'key')}, {graph.num_queries} queries"
    )
    parts = [
        nodes,
        _count(facts.num_edges, "edge"),
        f"density {facts.density:.1%}",
        _count(facts.num_duplicates, "duplicate"),
        _count(facts.num_empty_queries, "empty row"),
    ]
    if graph.relation is not None:
        parts.append(_count(graph.num_relations, "relation"))
    if graph.device.type != "cpu":
        parts.append(f"device={str(graph.device)!r}")
    return f"AttentionGraph({', '.join(parts)})"


def paragraph(graph: AttentionGraph) -> str:
    """See :meth:`AttentionGraph.explain`."""
    facts = stats(graph)
    ids = graph.by_query.edge_id
    relations = f"{graph.num_relations} relations" if graph.relation is not None else "no relations"
    own = "no own edges" if graph.own_edge is None else f"{graph.num_own_edges} own edges"
    return "\n".join(
        (
            f"{facts.num_queries} queries attend to {facts.num_keys} keys by {facts.num_edges} edges "
            f"(density {facts.density:.1%})",
            f"degree: mean {facts.mean_degree:.1f}, largest {facts.max_degree}, "
            f"{_count(facts.num_empty_queries, 'empty row')}; {facts.num_unused_keys} keys that nobody attends to",
            f"{_count(facts.num_duplicates, 'duplicate edge')}; {relations}; {own}",
            f"indices {_dtype(graph.by_query.index)}, ids {_dtype(ids) if ids is not None else 'by position'}; "
            f"{facts.num_bytes:,} bytes held on {graph.device}",
        )
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
