"""The disjoint union of attention graphs: what a DataLoader's batch attends over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.graphs.layout import Layout, index_dtype, offsets
from graphformer.graphs.runs import KeyRuns

if TYPE_CHECKING:
    from graphformer.graphs.attention_graph import AttentionGraph


def unite(graphs: Any, kind: type[AttentionGraph]) -> AttentionGraph:
    """See :meth:`AttentionGraph.union`; ``kind`` is that class, which imports this module."""
    graphs = _checked(graphs, kind)
    if len(graphs) == 1:
        return graphs[0]
    device = graphs[0].device
    keys, edges, own = (
        [getattr(graph, name) for graph in graphs] for name in ("num_keys", "num_edges", "num_own_edges")
    )
    per_edge = torch.tensor(edges, device=device)
    if all(graph.query_side.runs is not None for graph in graphs):
        by_query: Layout | KeyRuns = _unite_runs([graph.query_side.runs for graph in graphs])
    else:
        by_query = _unite_layouts([graph.by_query for graph in graphs], keys)
    own_edge = None
    if graphs[0].own_edge is not None:
        local = torch.cat([graph.own_edge for graph in graphs])
        own_edge = torch.where(local < 0, local, local + _starts(own, per_edge, sum(edges)))
    relations = [graph.relation for graph in graphs if graph.relation is not None]
    return kind(
        by_query,
        sum(keys),
        relation=torch.cat(relations) if relations else None,
        num_relations=max(graph.num_relations for graph in graphs),
        own_edge=own_edge,
        num_own_edges=sum(own),
    )


def _starts(counts: list[int], repeats: Tensor, length: int) -> Tensor:
    """The running sum of the members' counts before each member, as often as `repeats` says."""
    step = torch.tensor(counts, device=repeats.device)
    return torch.repeat_interleave(step.cumsum(0) - step, repeats, output_size=length)


def _unite_layouts(members: list[Layout], keys: list[int]) -> Layout:
    edges, queries = (
        [part.shape[0] for part in parts] for parts in zip(*((m.index, m.ptr[1:]) for m in members), strict=True)
    )
    num_edges, num_queries, device = sum(edges), sum(queries), members[0].ptr.device
    per_edge, per_query = torch.tensor(edges, device=device), torch.tensor(queries, device=device)
    ptr = torch.zeros(num_queries + 1, dtype=torch.int64, device=device)
    ptr[1:] = torch.cat([layout.ptr[1:] for layout in members]) + _starts(edges, per_query, num_queries)
    index = torch.cat([layout.index for layout in members]).long() + _starts(keys, per_edge, num_edges)
    edge_id = None
    if any(layout.edge_id is not None for layout in members):
        ids = [
            torch.arange(count, device=device) if layout.edge_id is None else layout.edge_id.long()
            for layout, count in zip(members, edges, strict=True)
        ]
        edge_id = (torch.cat(ids) + _starts(edges, per_edge, num_edges)).to(index_dtype(num_edges))
    return Layout(ptr, index.to(index_dtype(max(num_queries, sum(keys)))), edge_id)


def _unite_runs(members: list[KeyRuns]) -> KeyRuns:
    keys = torch.tensor([runs.num_keys for runs in members])
    counts = torch.tensor([runs.start.numel() for runs in members])
    device = members[0].ptr.device
    key_shift = torch.repeat_interleave(keys.cumsum(0) - keys, counts).to(device)
    degree = torch.cat([runs.ptr.diff() for runs in members])
    start, stop = (torch.cat([getattr(runs, name) for runs in members]) + key_shift for name in ("start", "stop"))
    return KeyRuns(offsets(degree), start, stop, int(keys.sum()))


def _checked(graphs: Any, kind: type[AttentionGraph]) -> list[AttentionGraph]:
    where = "AttentionGraph.union"
    found = type(graphs).__name__
    require(isinstance(graphs, Iterable), where, "graphs", "be a list of graphs", found, "Put one graph in a list.")
    graphs = list(graphs)
    require(len(graphs) > 0, where, "graphs", "hold at least one graph", "none", "Leave empty batches out.")
    for graph in graphs:
        require(
            isinstance(graph, kind),
            where,
            "graphs",
            "hold attention graphs only",
            type(graph).__name__,
            "Make each with AttentionGraph.from_edge_index or pattern.on.",
        )
    devices = {str(graph.device) for graph in graphs}
    require(len(devices) == 1, where, "graphs", "be on one device", sorted(devices), "Move them with .to(device).")
    for name in ("relation", "own_edge"):
        carriers = sum(getattr(graph, name) is not None for graph in graphs)
        require(
            carriers in (0, len(graphs)),
            where,
            "graphs",
            f"all carry {name} or none",
            f"{carriers} of {len(graphs)}",
            "Make them by one pattern.",
        )
    return graphs
