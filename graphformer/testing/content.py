"""The contract of content patterns, as one call over a rule of your own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphformer.graphs import AttentionGraph
from graphformer.patterns import Content
from graphformer.patterns.node_sets import NodeSets, read_nodes
from graphformer.testing.patterns import hold, singles, usual_nodes

_HEADS, _WIDTH = 3, 4


def check_content(content: Content, nodes: Any = None) -> None:
    """Raise unless a content pattern keeps the laws that those of the library keep.

    Pairs stay inside their heads and their sets, and each is there once; equal vectors choose equal pairs; a set
    chooses alone as it does in a batch; equal rules have equal hashes. The vectors are random, with 3 heads of width 4.

    Args:
        content: The rule.
        nodes: What it is laid over: a count, a list of lengths, a PyG `Data` or `Batch`, or a tuple (key nodes, query
            nodes). Default: as in :func:`check_pattern`, one batch of single node sets and one of pairs of them.

    Raises:
        AssertionError: A law that the rule breaks, with the rule and the first pair or set that shows it.
        InputError: The rule refuses the nodes, by default both batches; or its pairs are no folded ids.

    Example:
        >>> from graphformer.patterns import Hash, TopK
        >>> check_content(TopK(2))
        >>> check_content(Hash(4, rounds=2), nodes=[3, 4])
    """
    for tried in usual_nodes(nodes, lambda usual: _choose(content, usual)):
        graph, sets = _choose(content, tried), read_nodes(tried, repr(content))
        _check_pairs(content, graph, sets)
        hold(_choose(content, tried) == graph, content, "equal vectors choose equal pairs")
        _check_sets(content, tried, graph, sets)
    same = content == content and hash(content) == hash(content)  # noqa: PLR0124  # what an own __eq__ may break
    hold(same, content, "equal rules have equal hashes")


def _choose(content: Content, nodes: Any) -> AttentionGraph:
    return content.select(*_vectors(read_nodes(nodes, repr(content))), nodes)


def _vectors(sets: NodeSets) -> tuple[Tensor, Tensor]:
    """Queries and keys, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    make = lambda count: torch.randn(count, _HEADS, _WIDTH, generator=generator).to(sets.device)  # noqa: E731
    return make(sets.num_queries), make(sets.num_keys)


def _check_pairs(content: Content, graph: AttentionGraph, sets: NodeSets) -> None:
    key, query = graph.edge_index
    i, j = query % max(sets.num_queries, 1), key % max(sets.num_keys, 1)
    head = query // max(sets.num_queries, 1), key // max(sets.num_keys, 1)
    inside_head, inside_set = head[0] == head[1], sets.query_set[i] == sets.key_set[j]
    again = torch.zeros_like(inside_head)
    again[1:] = (query.diff() == 0) & (key.diff() == 0)
    laws = {
        "pairs stay inside their heads": inside_head,
        "pairs stay inside their sets": inside_set,
        "each pair is there once": ~again,
    }
    for law, kept in laws.items():
        wrong = (~kept).nonzero()
        shown = f"query {int(query[wrong[0, 0]])}, key {int(key[wrong[0, 0]])}" if wrong.numel() else None
        hold(shown is None, content, law, shown)


def _check_sets(content: Content, nodes: Any, graph: AttentionGraph, sets: NodeSets) -> None:
    query, key = _vectors(sets)
    key_of, query_of = graph.edge_index
    member = sets.query_set[query_of % max(sets.num_queries, 1)]
    for number, single in enumerate(singles(nodes)):
        rows, columns = (slice(*ptr[number : number + 2].tolist()) for ptr in (sets.query_ptr, sets.key_ptr))
        alone = content.select(query[rows], key[columns], single)
        place, other = query_of[member == number], key_of[member == number]
        # Node i of head h is h * N + i, with the N of the batch and that of the set.
        found = torch.stack((_fold(other, sets.num_keys, columns), _fold(place, sets.num_queries, rows)))
        law = "a set chooses alone as it does in a batch"
        hold(torch.equal(found, alone.edge_index), content, law, f"set {number}")


def _fold(folded: Tensor, count: int, own: slice) -> Tensor:
    """Folded ids of a batch as folded ids of one of its sets."""
    return folded // max(count, 1) * (own.stop - own.start) + folded % max(count, 1) - own.start
