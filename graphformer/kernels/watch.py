"""Watching attention: the weights of every call of `attend` inside a block of code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from graphformer.graphs import AttentionGraph
from graphformer.kernels import formula
from graphformer.kernels.problem import Options, Rows, Tensors


class Seen(NamedTuple):
    """What one call of `attend` did.

    Attributes:
        graph: Who attended to whom.
        weights: The weight of each pair before dropout, in the order of `graph.edge_index`. Shape `[E, H]`, detached.
    """

    graph: AttentionGraph
    weights: Tensor


open_lists: list[list[Seen]] = []


@contextmanager
def watch_attention() -> Iterator[list[Seen]]:
    """The weights of every call of :func:`attend` inside the block, in the order of the calls.

    Every layer and model of graphformer attends by `attend`, so this sees all of them, without a change to any. The
    weights are computed anew by the formulas, which costs time and memory O(E H); the outputs are those without it.
    Not seen by what `torch.compile` made.

    Returns:
        A context manager that gives a list of :class:`Seen`, filled as the calls come.

    Example:
        >>> from graphformer.nn import GraphAttention
        >>> layer = GraphAttention(8, 8, heads=2)
        >>> with watch_attention() as seen:
        ...     out = layer(torch.ones(3, 8), torch.tensor([[0, 1, 2], [1, 1, 0]]))
        >>> seen[0].weights
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000],
                [1.0000, 1.0000]])
    """
    seen: list[Seen] = []
    open_lists.append(seen)
    try:
        yield seen
    finally:
        open_lists[:] = [other for other in open_lists if other is not seen]


def note(tensors: Tensors, graph: AttentionGraph, options: Options) -> None:
    """Tell the innermost watcher of a call."""
    with torch.no_grad(), torch.autocast(tensors.query.device.type, enabled=False):
        weights = formula.weights(tensors, Rows(*graph.by_query, graph.relation), options)
    open_lists[-1].append(Seen(graph, weights))
