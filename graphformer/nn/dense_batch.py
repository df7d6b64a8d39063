"""Batches of sequences as node sets: the graph of a pattern over them, and masks as the bias of its pairs."""

from __future__ import annotations

from ast import literal_eval
from dataclasses import fields
from functools import lru_cache
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from graphformer._checks import refuse
from graphformer._errors import UnsupportedError
from graphformer._transforms import keep
from graphformer.graphs import AttentionGraph
from graphformer.patterns import Pattern
from graphformer.patterns.pattern import Nodes

Lengths = tuple[int, ...]

_NUM_GRAPHS = 8  # a model has a few patterns, over the sizes of a few batches


def lay(pattern: Pattern, key_lengths: Lengths, query_lengths: Lengths, device: torch.device) -> AttentionGraph:
    """The graph of a pattern over sets of these lengths: one node set where both sides are as long, else two.

    The last few graphs are kept by the pattern's value, which says all: a pattern is a pure function of its nodes.

    Example:
        >>> from graphformer.patterns import Window
        >>> graph = lay(Window(1), (3, 3), (3, 3), torch.device("cpu"))
        >>> graph
        AttentionGraph(6 nodes, 14 edges, density 38.9%, 0 duplicates, 0 empty rows)
        >>> lay(Window(1), (3, 3), (3, 3), torch.device("cpu")) is graph
        True
    """
    if torch.compiler.is_compiling():
        # Told as text, sizes are constants of the program.
        lengths = [[f"{length}" for length in side] for side in (key_lengths, query_lengths)]
        told = "".join(f"({', '.join(side)},)," for side in lengths)
        return getattr(_compiled, _lay_for_compiler(pattern, told, device))
    if not has_hash(pattern):
        return pattern.on(nodes_of(key_lengths, query_lengths)).to(device)
    return _lay_once(pattern, key_lengths, query_lengths, device)


_compiled = SimpleNamespace()  # the graphs of compiled programs, for as long as these may run


@torch.compiler.assume_constant_result
def _lay_for_compiler(pattern: Pattern, lengths: str, device: torch.device) -> str:
    """Where the graph is: a program reads it there as it reads one that a user has made ready."""
    if any(field.name not in vars(pattern) for field in fields(pattern)):
        rule, remedy = "be made outside of what torch.compile compiles", "Make it before, or give a ready graph."
        refuse(type(pattern).__name__, "the pattern", rule, "one from inside", remedy, UnsupportedError)
    # This runs as it stands, while the program is traced: all is made that the program, which makes none, then reads.
    torch.compiler._is_compiling_flag, flag = False, torch.compiler._is_compiling_flag
    try:
        graph = _lay_once(pattern, *literal_eval(lengths), device)
    finally:
        torch.compiler._is_compiling_flag = flag
    name = f"graph_{id(graph)}"
    setattr(_compiled, name, graph)
    return name


@lru_cache(_NUM_GRAPHS)
def _lay_once(pattern: Pattern, key_lengths: Lengths, query_lengths: Lengths, device: torch.device) -> AttentionGraph:
    return keep(lambda: pattern.on(nodes_of(key_lengths, query_lengths)).to(device).prepare())


def nodes_of(key_lengths: Lengths, query_lengths: Lengths) -> Nodes:
    """Sets of these lengths, as patterns read them.

    Example:
        >>> nodes_of((2, 3), (2, 3)), nodes_of((2, 3), (4, 4))
        ([2, 3], ([2, 3], [4, 4]))
    """
    queries = list(query_lengths)
    return queries if key_lengths == query_lengths else (list(key_lengths), queries)


def has_hash(pattern: Pattern) -> bool:
    """Whether a graph can be kept for a pattern: one of the user's own may have a field without a hash.

    Example:
        >>> from graphformer.patterns import Window
        >>> has_hash(Window(1))
        True
    """
    try:
        hash(pattern)
    except TypeError:
        return False
    return True


_shared = WeakIdKeyDictionary()  # graph -> its last union; a union holds tensors of its own


def share(graph: AttentionGraph, num_sets: int) -> AttentionGraph:
    """The graph of sets that share one graph; the last one is kept as long as the graph lives.

    Example:
        >>> graph = AttentionGraph.from_dense(torch.ones(2, 3).bool())
        >>> share(graph, 4)
        AttentionGraph(12 keys, 8 queries, 24 edges, density 25.0%, 0 duplicates, 0 empty rows)
    """
    if num_sets == 1:
        return graph
    if torch.compiler.is_compiling():
        return AttentionGraph.union([graph] * num_sets)
    if graph not in _shared or _shared[graph][0] != num_sets:
        _shared[graph] = num_sets, keep(lambda: AttentionGraph.union([graph] * num_sets).prepare())
    return _shared[graph][1]


def bias_of(mask: Tensor, query: Tensor, key: Tensor, num_queries: int, num_keys: int) -> Tensor:
    """What a mask adds to the scores of pairs inside equal sets.

    Args:
        mask: Boolean, False removes the pair; or floating, added to the score. Shape `[B, H, N, M]`, where any of the
            four may be 1; what is 1 is not expanded, and neither is its gradient.
        query: The queries of the pairs, counted set after set. Shape `[E]`, int64, in [0, B * N).
        key: Their keys. Shape `[E]`, int64, in [0, B * M).
        num_queries: N.
        num_keys: M.

    Returns:
        Shape `[E, H]`, or `[E]` where H is 1; floating.

    Example:
        >>> mask = torch.tensor([[True, False]]).view(1, 1, 1, 2)
        >>> bias_of(mask, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2, 2)
        tensor([0., -inf, -inf])
    """
    sizes = [mask.shape[0], *mask.shape[2:]]
    places = [query // num_queries, query % num_queries, key % num_keys]
    places = [torch.zeros_like(key) if size == 1 else place for size, place in zip(sizes, places, strict=True)]
    found = mask[places[0], :, places[1], places[2]]
    if found.dtype == torch.bool:
        found = torch.zeros(found.shape, device=found.device).masked_fill_(~found, -torch.inf)
    return found.squeeze(1) if found.shape[1] == 1 else found
