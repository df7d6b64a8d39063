"""The pairs of a graph in numbers: counted on a graph, or on a pattern's runs without making the graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from graphformer.graphs import AttentionGraph
from graphformer.graphs.describe import num_bytes
from graphformer.graphs.layout import index_dtype
from graphformer.graphs.runs import KeyRuns
from graphformer.graphs.tiles import Served, Tiles, make_tiles_of_runs, serve
from graphformer.patterns import Pattern
from graphformer.patterns.node_sets import read_nodes
from graphformer.patterns.terms import PairTerm, held_runs, make_graph, support


class Pairs(NamedTuple):
    """What a cost follows from.

    `num_runs` counts the runs that the queries' rows are held as, 0 where pairs are listed.
    `row_bytes` is what the layout by query and the labels hold, `transposed_bytes` the layout by key, `tile_bytes` the
    tiles of both sides; `by_query` and `by_key` say how tiles and rows share the windows.
    """

    num_queries: int
    num_keys: int
    num_edges: int
    num_runs: int
    num_relations: int
    has_own_edges: bool
    device: torch.device
    by_query: Served
    by_key: Served
    row_bytes: int
    transposed_bytes: int
    tile_bytes: int


def pairs_of_graph(graph: AttentionGraph) -> Pairs:
    """The pairs of a graph, which is prepared as a run would prepare it."""
    graph.prepare()
    tiles = (graph.tiles_by_query, graph.tiles_by_key)
    return Pairs(
        graph.num_queries,
        graph.num_keys,
        graph.num_edges,
        graph.query_side.num_runs,
        graph.num_relations,
        graph.own_edge is not None,
        graph.device,
        serve(tiles[0], graph.query_side.ptr),
        serve(tiles[1], graph.key_side.ptr),
        num_bytes((*graph.query_side.tensors(), graph.relation, graph.own_edge)),
        num_bytes(graph.key_side.tensors()),
        sum(num_bytes(side or ()) for side in tiles),
    )


def pairs_of_pattern(pattern: Pattern, nodes: Any) -> Pairs:
    """The pairs of a pattern over node sets, at the cost of its runs by query and by key.

    Runs hold a pair once. A pattern that repeats pairs is enumerated.
    """
    num_relations = pattern.num_relations
    sets = read_nodes(nodes, repr(pattern))
    terms = pattern.lower(sets)
    runs = support(terms, sets)
    num_edges = sum(term.num_pairs for term in terms)
    if runs.num_pairs != num_edges:
        return pairs_of_graph(make_graph(terms, sets, num_relations))
    has_own_edges = any(isinstance(term, PairTerm) for term in terms)
    index, edge_id = index_dtype(max(sets.num_queries, sets.num_keys)).itemsize, index_dtype(num_edges).itemsize
    labels = (index_dtype(num_relations).itemsize if num_relations else 0) + (8 if has_own_edges else 0)
    transposed = runs.transpose()
    by_query, query_tile_bytes = _serve_runs(runs)
    by_key, key_tile_bytes = _serve_runs(transposed)
    held = held_runs(terms)
    row_bytes = num_edges * labels + (num_edges * index if held is None else _run_bytes(held))
    key_bytes = num_edges * (index + edge_id)
    if held is not None and transposed.are_few(num_edges):
        key_bytes = _run_bytes(transposed)
    return Pairs(
        sets.num_queries,
        sets.num_keys,
        num_edges,
        0 if held is None else held.start.numel(),
        num_relations,
        has_own_edges,
        sets.device,
        by_query,
        by_key,
        8 * (sets.num_queries + 1) + row_bytes,
        8 * (sets.num_keys + 1) + key_bytes,
        query_tile_bytes + key_tile_bytes,
    )


def _run_bytes(runs: KeyRuns) -> int:
    return num_bytes((runs.ptr, runs.start, runs.stop))


def _serve_runs(runs: KeyRuns) -> tuple[Served, int]:
    tiles: Tiles | None = make_tiles_of_runs(runs) if runs.ptr.device.type == "cpu" else None
    return serve(tiles, runs.pair_ptr), num_bytes(tiles or ())
