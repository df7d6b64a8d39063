"""Attention graphs on PyG data: stored on each sample, united in each batch.

PyG's collation concatenates tensors and leaves any other value as a list of the samples' values. A sample that carries
an attention graph therefore has a class of its own, which unites that list when a batch is first read, moved or
pickled: ``batch.attention_graph`` is one graph, and a batch travels as the tensors of one graph.
"""

from __future__ import annotations

import copy
import copyreg
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from torch_geometric.data import Batch, Data, HeteroData

from graphformer import graphs
from graphformer._checks import require
from graphformer._errors import InputError
from graphformer.graphs.attention_graph import AttentionGraph
from graphformer.graphs.united import UnitedGraphs

KEY = "attention_graph"


class _CarriesGraph:
    """Keeps a batch's graphs united."""

    _carrier_base: type

    @property
    def attention_graph(self) -> AttentionGraph:
        self._unite()
        store = _store_of(self)
        if KEY not in store:
            raise AttributeError(KEY)  # PyG then says what it says of any attribute that is not there
        return _one_graph(store[KEY])

    def apply(self, func: Callable[[Any], Any], *args: str) -> Any:
        self._unite()
        return super().apply(func, *args)  # type: ignore[misc]

    def apply_(self, func: Callable[[Any], Any], *args: str) -> Any:
        self._unite()
        return super().apply_(func, *args)  # type: ignore[misc]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A worker that fails to pickle a batch leaves the loader waiting; the reader of the batch gets the error.
        with suppress(InputError):
            self._unite()
        return super().__reduce_ex__(protocol)

    def _unite(self) -> None:
        store = _store_of(self)
        stored = store.get(KEY)
        if isinstance(stored, list):
            store[KEY] = UnitedGraphs.of([_one_graph(member) for member in stored])


def _store_of(data: Any) -> Any:
    """Where PyG data keeps what belongs to the whole of it."""
    return data._global_store if isinstance(data, HeteroData) else data._store


def _one_graph(stored: Any) -> Any:
    """The graph of a sample, or the union of a batch that is itself a member of a batch."""
    if isinstance(stored, list):
        return AttentionGraph.union([_one_graph(member) for member in stored])
    return stored.union if isinstance(stored, UnitedGraphs) else stored


class _CarrierType(type(Data)):  # type: ignore[misc]
    """The type of carrier classes: one that pickles by the class that it extends, as workers need."""


def attach(data: Any, graph: AttentionGraph) -> Any:
    """A shallow copy of `data` that carries `graph` as `data.attention_graph`.

    A `torch_geometric.loader.DataLoader` (or `Batch.from_data_list`) over such samples gives batches whose
    `attention_graph` is the union of the samples' graphs, in worker processes too. Give a graph to every sample of a
    data set: PyG, which batches by the attributes of the first sample, says KeyError where a later one lacks it.

    Args:
        data: A PyG `Data` or `HeteroData` (or a subclass), or a `Batch` that the graph was made for.
        graph: The attention graph over its nodes: one query a node. Nodes of a `HeteroData` are in the order that
            patterns give them, set by set and in each set type by type (see `graphformer.patterns.join_parts`).

    Raises:
        InputError: `data` is no PyG data or `Batch`, or `graph` no attention graph with a query a node.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Batch, Data, HeteroData
        >>> graph = AttentionGraph.from_edge_index(torch.tensor([[0], [1]]), num_nodes=2)
        >>> sample = attach(Data(x=torch.zeros(2, 1)), graph)
        >>> Batch.from_data_list([sample, sample]).attention_graph.edge_index
        tensor([[0, 2],
                [1, 3]])
    """
    _check(data, graph)
    out = copy.copy(data)
    if not isinstance(out, _CarriesGraph):
        object.__setattr__(out, "__class__", _carrier_of(type(out)))  # Data keeps plain assignments in its store
    _store_of(out)[KEY] = graph
    return out


def _check(data: Any, graph: AttentionGraph) -> None:
    where = "attach"
    found = type(data).__name__
    remedy = "Keep a graph of other nodes beside them, as pattern.on(nodes) gives it."
    fits = isinstance(data, (Data, HeteroData))
    require(fits, where, "data", "be a PyG Data or HeteroData, or a Batch of these", found, remedy)
    found = type(graph).__name__
    remedy = "Make one with AttentionGraph.from_edge_index or pattern.on(data)."
    require(isinstance(graph, AttentionGraph), where, "graph", "be an AttentionGraph", found, remedy)
    require(
        data.num_nodes in (None, graph.num_queries),
        where,
        "graph",
        f"have one query for each of the {data.num_nodes} nodes of data",
        f"{graph.num_queries} queries",
        "Make the graph from this data, for example with pattern.on(data).",
    )


def _carrier_of(kind: Any) -> Any:
    if not issubclass(kind, Batch):
        return carrier_class(kind)
    return type(Batch(_base_cls=carrier_class(kind.__bases__[-1])))


@cache
def carrier_class(base: Any) -> Any:
    """See :func:`graphformer.graphs.carrier_class`."""
    # PyG keys its batch classes by name, so each base needs a name of its own here.
    inside = {"_carrier_base": base, "__module__": base.__module__}
    return _CarrierType(f"{base.__name__}WithAttention", (_CarriesGraph, base), inside)


copyreg.pickle(_CarrierType, lambda carrier: (graphs.carrier_class, (carrier._carrier_base,)))
