"""Attention graphs on PyG data: stored on each sample, united in each batch.

PyG's collation concatenates tensors and leaves any other value as a list of the samples' values. A sample that carries
an attention graph therefore has a class of its own, whose property unites that list when it is first read, so that
``batch.attention_graph`` is one graph. Moving a batch moves its members' graphs, and the union follows.
"""

from __future__ import annotations

import copy
import copyreg
from functools import cache
from typing import Any

from torch_geometric.data import Batch, Data

from graphformer.graphs.attention_graph import AttentionGraph

KEY = "attention_graph"


class _CarriesGraph:
    """Adds the property that unites a batch's graphs."""

    _carrier_base: type

    @property
    def attention_graph(self) -> AttentionGraph:
        stored = self._store[KEY]  # type: ignore[attr-defined]
        if isinstance(stored, AttentionGraph):
            return stored
        known = self.__dict__.get("_united_graph")
        if known is None or known[0] is not stored:  # a moved batch holds a new list
            known = (stored, AttentionGraph.union(stored))
            self.__dict__["_united_graph"] = known
        return known[1]


class _CarrierType(type(Data)):  # type: ignore[misc]
    """The type of carrier classes: one that pickles by the class that it extends, as workers need."""


def attach(data: Any, graph: AttentionGraph) -> Any:
    """A shallow copy of `data` that carries `graph` as `data.attention_graph`.

    A `torch_geometric.loader.DataLoader` (or `Batch.from_data_list`) over such samples gives batches whose
    `attention_graph` is the union of the samples' graphs, in worker processes too.

    Args:
        data: A PyG `Data` (or a subclass), or a `Batch` that the graph was made for.
        graph: The attention graph over its nodes.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Batch, Data
        >>> graph = AttentionGraph.from_edge_index(torch.tensor([[0], [1]]), num_nodes=2)
        >>> sample = attach(Data(x=torch.zeros(2, 1)), graph)
        >>> Batch.from_data_list([sample, sample]).attention_graph.edge_index
        tensor([[0, 2],
                [1, 3]])
    """
    out = copy.copy(data)
    if isinstance(out, Data) and not isinstance(out, (Batch, _CarriesGraph)):
        base: Any = type(out)
        object.__setattr__(out, "__class__", _carrier_class(base))  # Data keeps plain assignments in its store
    out._store[KEY] = graph
    return out


@cache
def _carrier_class(base: Any) -> Any:
    # PyG keys its batch classes by name, so each base needs a name of its own here.
    return _CarrierType(f"{base.__name__}WithAttention", (_CarriesGraph, base), {"_carrier_base": base})


def _by_base(carrier: Any) -> tuple[Any, ...]:
    return _carrier_class, (carrier._carrier_base,)


copyreg.pickle(_CarrierType, _by_base)
