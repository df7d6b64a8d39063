"""What a layer's forward knows of its nodes, as a pattern reads it; and the pattern's graph, kept while that stays."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.weak import WeakIdRef

from graphformer._transforms import keep, plain
from graphformer.graphs import AttentionGraph
from graphformer.nn.conv.cache import cached, mark_of
from graphformer.nn.dense_batch import has_hash
from graphformer.patterns import Pattern
from graphformer.patterns.node_sets import read_nodes


def graph_of(
    pattern: Pattern, num_nodes: int, edge_index: Any, batch: Tensor | None, facts: dict[str, Any]
) -> AttentionGraph:
    """The graph of a pattern over what a forward was given.

    It is kept beside `batch`, or beside `edge_index` where there is one graph only, one for each pattern, and made anew
    where a tensor that the pattern read is another one or was written to.

    Args:
        pattern: Which nodes attend to which.
        num_nodes: Number of nodes N.
        edge_index: Edges in any form that PyG takes, an attention graph, or None.
        batch: The set of each node. Shape `[N]`, int64, or None.
        facts: Tensors that a pattern may read by name, such as `pos`; others are passed over.

    Example:
        >>> import torch
        >>> from graphformer.patterns import Full
        >>> batch = torch.tensor([0, 0, 1])
        >>> graph_of(Full(), 3, None, batch, {}).num_edges
        5
        >>> graph_of(Full(), 3, None, batch, {}) is graph_of(Full(), 3, None, batch, {})
        True
    """
    if isinstance(edge_index, AttentionGraph):
        edge_index = edge_index.edge_index
    known: dict[str, Any] = {name: fact for name, fact in facts.items() if isinstance(fact, Tensor)}
    known.update(edge_index=edge_index, batch=batch)
    key = plain(edge_index if batch is None else batch, repr(pattern), "batch or edge_index")
    if not isinstance(key, Tensor) or not has_hash(pattern):
        return _lay(pattern, num_nodes, known).graph
    held: list[_Laid] = cached(key, (graph_of, pattern, num_nodes), list)
    if not (held and held[0].holds_for(known)):
        held[:] = [_lay(pattern, num_nodes, known)]
    return held[0].graph


class _Laid(NamedTuple):
    """A graph, and what it was made from; the tensors themselves are not held."""

    graph: AttentionGraph
    read: dict[str, tuple[Any, ...] | None]

    def holds_for(self, known: dict[str, Any]) -> bool:
        return all(mark is not None and mark == _mark(known[name]) for name, mark in self.read.items())


def _mark(fact: Any) -> tuple[Any, ...] | None:
    """A tensor's identity and what changes with its values; None where it has no version, or is none."""
    fact = plain(fact, "pattern", "what it reads")
    return None if not isinstance(fact, Tensor) or fact.is_inference() else (WeakIdRef(fact), *mark_of(fact))


class _Nodes:
    """Nodes as patterns see them, which notes what is read of them."""

    def __init__(self, num_nodes: int, known: dict[str, Any], where: str) -> None:
        self.num_nodes = num_nodes
        self.where = where
        self.known = known
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if name not in self.known:
            raise AttributeError(name)
        self.read.add(name)
        return plain(self.known[name], self.where, name)


def _lay(pattern: Pattern, num_nodes: int, known: dict[str, Any]) -> _Laid:
    nodes = _Nodes(num_nodes, known, repr(pattern))
    sets = keep(lambda: read_nodes(nodes, repr(pattern)))
    graph = keep(lambda: pattern.on(sets).prepare())
    # Reading the sets asks for both; the batch is what the entry goes by, and the edges count once they are looked at.
    read = nodes.read - {"batch", "edge_index"} | ({"edge_index"} if "edge_index" in vars(sets) else set())
    return _Laid(graph, {name: _mark(known[name]) for name in read})
