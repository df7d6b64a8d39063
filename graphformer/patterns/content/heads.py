"""Heads with patterns of their own: each head becomes a copy of the nodes, so that one graph holds them all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from graphformer._checks import require, require_count
from graphformer.graphs import AttentionGraph, Layout
from graphformer.graphs.layout import make_layout
from graphformer.patterns.compose import support_among
from graphformer.patterns.node_sets import NodeSets, read_nodes
from graphformer.patterns.pattern import Pattern
from graphformer.patterns.terms import PairTerm

_FOLDED = "Node i of head h is h * N + i; see the example of Content."


def fold_heads(x: Tensor) -> Tensor:
    """Heads become copies of the nodes: node i of head h is row h * N + i.

    Args:
        x: Queries, keys or values. Shape `[N, H, D]`.

    Returns:
        Shape `[H * N, 1, D]`, contiguous: what `attend` takes with a graph in which every head has its own pairs.

    Raises:
        InputError: x is no tensor, or has another rank.

    Example:
        >>> import torch
        >>> fold_heads(torch.tensor([[[1], [2]], [[3], [4]], [[5], [6]]])).flatten()
        tensor([1, 3, 5, 2, 4, 6])
    """
    fits, found = isinstance(x, Tensor) and x.dim() == 3, _shape_of(x)
    require(fits, "fold_heads", "x", "have shape [N, H, D]", found, "Split the channels into heads.")
    return x.transpose(0, 1).reshape(x.shape[0] * x.shape[1], 1, x.shape[2])


def unfold_heads(x: Tensor, heads: int) -> Tensor:
    """The inverse of :func:`fold_heads`.

    Args:
        x: Shape `[H * N, 1, D]`.
        heads: Number of heads H, 1 or more.

    Returns:
        Shape `[N, H, D]`.

    Raises:
        InputError: x has another shape, or heads is no integer that divides its rows.

    Example:
        >>> import torch
        >>> unfold_heads(torch.arange(6).view(6, 1, 1), heads=2).squeeze(2)
        tensor([[0, 3],
                [1, 4],
                [2, 5]])
    """
    where = "unfold_heads"
    fits = isinstance(x, Tensor) and x.dim() == 3 and x.shape[1] == 1
    require(fits, where, "x", "have shape [H * N, 1, D]", _shape_of(x), "Pass what attend made of folded heads.")
    require_count(heads, where, "heads", "Pass the H that was folded.")
    divides = x.shape[0] % heads == 0
    require(divides, where, "heads", f"divide the {x.shape[0]} rows of x", heads, "Pass the H that was folded.")
    return x.view(heads, x.shape[0] // heads, x.shape[2]).transpose(0, 1)


def _shape_of(x: Any) -> object:
    return list(x.shape) if isinstance(x, Tensor) else type(x).__name__


def read_heads(query: Tensor, key: Tensor, nodes: Any, pattern: Pattern | None, where: str) -> NodeSets:
    """The node sets, once queries `[N, H, D]`, keys `[M, H, D]` and pattern fit them; on the device of the queries."""
    for name, x in (("query", query), ("key", key)):
        good = isinstance(x, Tensor) and x.dim() == 3 and x.shape[1] > 0 and x.shape[2] > 0
        require(
            good, where, name, "have shape [nodes, H, D]", _shape_of(x), "Split the channels into heads of width D."
        )
        require(x.is_floating_point(), where, name, "be floating", x.dtype, "Convert it with .float().")
    same = key.shape[1:] == query.shape[1:]
    rule = f"have heads and width {list(query.shape[1:])} like query"
    require(same, where, "key", rule, list(key.shape[1:]), "Map both to one shape.")
    require(key.dtype == query.dtype, where, "key", f"have query's dtype {query.dtype}", key.dtype, "Convert one.")
    require(key.device == query.device, where, "key", f"be on {query.device} like query", key.device, "Move one.")
    fits = pattern is None or isinstance(pattern, Pattern)
    require(fits, where, "pattern", "be a structured pattern or None", repr(pattern), "Pass for example Causal().")
    sets = read_nodes(nodes, where)
    given = (key.shape[0], query.shape[0])
    rule = f"count the (keys, queries) {given} that are given"
    remedy = "Pass the node sets of these vectors, (key nodes, query nodes) where the two differ."
    require((sets.num_keys, sets.num_queries) == given, where, "nodes", rule, (sets.num_keys, sets.num_queries), remedy)
    return replace(sets, key_ptr=sets.key_ptr.to(query.device), query_ptr=sets.query_ptr.to(query.device))


def head_graph(query: Tensor, key: Tensor, heads: int, sets: NodeSets, pattern: Pattern | None) -> AttentionGraph:
    """The graph of the folded pairs that the pattern allows: by query, keys ascending.

    Args:
        query: Folded ids h * N + i. Shape `[E]`, int64.
        key: Folded ids h * M + j, likewise; each pair once, in any order.
        heads: Number of heads H.
        sets: The nodes of one head.
        pattern: What limits the pairs of every head, or None.
    """
    for name, ids, limit in (("query", query, heads * sets.num_queries), ("key", key, heads * sets.num_keys)):
        _check_folded(ids, name, limit, sets.where)
    found = f"{query.numel()} and {key.numel()}"
    require(query.shape == key.shape, sets.where, "pairs", "hold as many queries as keys", found, _FOLDED)
    if pattern is not None:
        i, j = query % max(sets.num_queries, 1), key % max(sets.num_keys, 1)
        chosen = PairTerm(i, j, own_edge=i.new_full((), -1).expand_as(i))
        allowed = support_among(pattern, [chosen], sets).contains(i, j)
        query, key = query[allowed], key[allowed]
    ptr, index, _ = make_layout(query, key, heads * sets.num_queries, heads * sets.num_keys)
    return AttentionGraph(Layout(ptr, index, None), heads * sets.num_keys)


def _check_folded(ids: Tensor, name: str, limit: int, where: str) -> None:
    fits = isinstance(ids, Tensor) and ids.dtype == torch.int64 and ids.dim() == 1
    found = f"{ids.dtype} {list(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
    require(fits, where, "pairs", f"hold each {name} in an int64 tensor of shape [E]", found, _FOLDED)
    low, high = (int(value) for value in torch.aminmax(ids)) if ids.numel() else (0, -1)
    rule = f"hold each {name} as a folded id in [0, {limit})"
    require(low >= 0 and high < limit, where, "pairs", rule, low if low < 0 else high, _FOLDED)
