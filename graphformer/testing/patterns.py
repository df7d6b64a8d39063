"""The contract of patterns, as one call over a pattern of your own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from graphformer._errors import InputError
from graphformer.graphs import AttentionGraph
from graphformer.patterns import Full, Pattern
from graphformer.patterns.node_sets import read_nodes

_ONE_SET = [0, 1, 2, 5, 12]
_TWO_SETS = ([5, 0, 3, 12], [4, 2, 0, 7])


def check_pattern(pattern: Pattern, nodes: Any = None) -> None:
    """Raise unless a pattern keeps the laws that those of the library keep.

    The predicate view is the edge view; pairs stay inside their sets, and are ordered and counted right; relations are
    as announced, and own edges are where the data has them; terms are of the same kinds over all node sets; the graph
    of a ragged batch is the union of those of its sets; the pattern combines with others; equal patterns have equal
    hashes. All pairs are enumerated: pass small node sets.

    Args:
        pattern: The pattern.
        nodes: What it is laid over: a count, a list of lengths, a PyG `Data` or `Batch`, or a tuple (key nodes, query
            nodes). A list or a `Batch` is taken apart too. Default: a batch of sets of 0 to 12 nodes, and a bipartite
            one whose sets have other numbers of queries than of keys; one of the two may be refused by the pattern.

    Raises:
        AssertionError: A law that the pattern breaks, with the pattern and the first pair or set that shows it.
        InputError: The pattern refuses the nodes, by default both batches: pass nodes that it takes.

    Example:
        >>> from graphformer.patterns import Causal, Where, Window
        >>> check_pattern(Window(3) & Causal())
        >>> check_pattern(Where(lambda query, key: query != key), nodes=[3, 4])
    """
    for tried in usual_nodes(nodes, pattern.on):
        _check(pattern, tried)


def usual_nodes(nodes: Any, lay: Callable[[Any], object]) -> list[Any]:
    """The nodes to check on: by default those of two batches that are not refused, of which there must be one."""
    taken, refusals = [], []
    for usual in (_ONE_SET, _TWO_SETS) if nodes is None else ():
        try:
            lay(usual)
            taken.append(usual)
        except InputError as refusal:
            refusals.append(refusal)
    if len(refusals) == 2:
        raise refusals[0]
    return taken or [nodes]


def _check(pattern: Pattern, nodes: Any) -> None:
    graph = pattern.on(nodes)
    _check_views(pattern, nodes, graph)
    _check_order(pattern, graph)
    _check_labels(pattern, graph)
    _check_own_edges(pattern, nodes, graph)
    _check_terms(pattern, nodes)
    _check_union(pattern, nodes, graph)
    _check_algebra(pattern, nodes, graph)
    same = pattern == pattern and hash(pattern) == hash(pattern)  # noqa: PLR0124  # what an own __eq__ may break
    hold(same and pattern != ~pattern, pattern, "equal patterns have equal hashes")


def hold(condition: bool, checked: object, law: str, shown: object = None) -> None:
    """Raise unless a law holds, with what breaks it and what shows it."""
    if not condition:
        raise AssertionError(f"{checked!r} breaks a law: {law}" + (f"; see {shown}" if shown is not None else ""))


def _copies(graph: AttentionGraph) -> Tensor:
    """How often each pair is there. Shape `[N, M]`, int64."""
    out = torch.zeros(graph.num_queries, graph.num_keys, dtype=torch.int64, device=graph.device)
    key, query = graph.edge_index
    return out.index_put((query, key), torch.tensor(1, device=graph.device), accumulate=True)


def _check_views(pattern: Pattern, nodes: Any, graph: AttentionGraph) -> None:
    sets = read_nodes(nodes, repr(pattern))
    query, key = (torch.arange(count, device=sets.device) for count in (sets.num_queries, sets.num_keys))
    size = (graph.num_queries, graph.num_keys)
    hold(size == (sets.num_queries, sets.num_keys), pattern, "a graph has the nodes that it is laid over", size)
    formula, found = pattern.allows(query[:, None], key, nodes), _copies(graph) > 0
    across = found & (sets.query_set[:, None] != sets.key_set)
    hold(not bool(across.any()), pattern, "pairs stay inside their sets", _first(across))
    differs = formula != found
    hold(not bool(differs.any()), pattern, "the predicate view is the edge view", _first(differs))


def _first(cells: Tensor) -> str | None:
    found = cells.nonzero()
    return f"query {int(found[0, 0])}, key {int(found[0, 1])}" if found.numel() else None


def _check_order(pattern: Pattern, graph: AttentionGraph) -> None:
    code = graph.edge_index[1] * max(graph.num_keys, 1) + graph.edge_index[0]
    hold(bool((code.diff() >= 0).all()), pattern, "edges are ordered by query, keys ascending")
    hold(graph.by_query.edge_id is None, pattern, "an edge's id is its position")


def _check_labels(pattern: Pattern, graph: AttentionGraph) -> None:
    law = "every pair has a relation below num_relations, or none has one"
    count, relation = pattern.num_relations, graph.relation
    hold((relation is not None) == (count > 0) and graph.num_relations == count, pattern, law, count)
    if relation is not None and relation.numel():
        low, high = (int(value) for value in torch.aminmax(relation))
        hold(low >= 0 and high < count, pattern, law, (low, high))


def _check_own_edges(pattern: Pattern, nodes: Any, graph: AttentionGraph) -> None:
    if graph.own_edge is None:
        return
    own = graph.own_edge.long()
    low, high = (int(value) for value in torch.aminmax(own)) if own.numel() else (-1, -1)
    hold(low >= -1 and high < graph.num_own_edges, pattern, "own edges are edges of the node set", (low, high))
    pair, edge = graph.edge_index[:, own >= 0], read_nodes(nodes, repr(pattern)).edge_index[:, own[own >= 0]]
    wrong = (pair != edge).any(0).nonzero()
    shown = f"key and query {pair[:, wrong[0, 0]].tolist()}" if wrong.numel() else None
    hold(shown is None, pattern, "a pair that is an own edge has the ends of that edge", shown)


def _check_terms(pattern: Pattern, nodes: Any) -> None:
    kinds, count = [type(term) for term in pattern.lower(nodes)], pattern.on(nodes).num_edges
    hold(pattern.count(nodes) == count, pattern, "what is counted is what is enumerated", pattern.count(nodes))
    for single in singles(nodes):
        found = [type(term) for term in pattern.lower(single)]
        hold(found == kinds, pattern, "the terms are of the same kinds over all node sets", (kinds, found))


def _check_union(pattern: Pattern, nodes: Any, graph: AttentionGraph) -> None:
    alone = list(singles(nodes))
    if alone:
        union = AttentionGraph.union([pattern.on(single) for single in alone])
        hold(union == graph, pattern, "the graph of a batch is the union of the graphs of its sets", union)


def singles(nodes: Any) -> Iterator[Any]:
    """The sets of a ragged batch, one at a time; nothing where the nodes are one set."""
    if isinstance(nodes, tuple):
        yield from zip(*(singles(side) for side in nodes), strict=False)
    elif isinstance(nodes, list):
        yield from nodes
    elif hasattr(nodes, "to_data_list"):
        yield from nodes.to_data_list()


def _check_algebra(pattern: Pattern, nodes: Any, graph: AttentionGraph) -> None:
    mine, all_pairs = _copies(graph), _copies(Full().on(nodes))
    plain = pattern.as_relation(0)  # so that it combines with what has a relation, or has none
    cases = {
        "~p has the pairs that p leaves out": ((~pattern), (all_pairs > 0) & (mine == 0)),
        "p | p is p": (pattern | pattern, mine),
        "p + p has both copies": (pattern + pattern, 2 * mine),
        "p & Full() is p": (pattern & Full(), mine),
        "Full() & p has each of p's pairs once": (Full() & pattern, mine > 0),
        "p - p is empty": (pattern - pattern, 0 * mine),
        "p | Full() has all pairs": (plain | Full().as_relation(1), torch.where(mine > 0, mine, all_pairs)),
    }
    for law, (composed, expected) in cases.items():
        found = _copies(composed.on(nodes))
        hold(torch.equal(found, expected.long()), pattern, law, _first(found != expected))
