"""Sorting an edge list by both of its ends, without us."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.case import BUILD, Building, Case, Provider, Run, rows_in_order

_ABOUT = {
    "torch-sort": "torch.sort (stable) and bincount, by query and by key",
    "scipy": "scipy.sparse csr to csc, a counting sort, by query and by key",
    "by-hand": "the pairs written out by loops, then torch-sort: for the gate",
}


def _why_not(case: Case, measure: str) -> str:
    return "" if case.name == "edges" else "it sorts edge lists"


def _prepare(name: str, case: Case, inputs: Building) -> Run:
    build = partial(_scipy if name == "scipy" else _torch, *_pairs(inputs))

    def rows() -> Tensor:
        query_ptr, query_index, key_ptr, key_index = build()
        return rows_in_order((query_ptr, query_index), (key_ptr, key_index))

    return Run(rows, actions={BUILD: build})


def _pairs(inputs: Building) -> tuple[Tensor, int]:
    """The edge list and the number of nodes that are to be built, ordered by query where a pattern makes them."""
    if inputs.edge_index is not None:
        return inputs.edge_index, inputs.num_nodes
    parts, start = [], 0
    for graph in inputs.members:
        parts.append(graph.edge_index + start)
        start += graph.num_queries
    for length in inputs.lengths:
        reach = length if inputs.what == "full" else inputs.radius
        place = torch.arange(length)
        first, stop = (place - reach).clamp(min=0), (place + reach + 1).clamp(max=length)
        count = stop - first
        query = torch.repeat_interleave(place, count)
        step = torch.arange(query.numel()) - torch.repeat_interleave(count.cumsum(0) - count, count)
        parts.append(torch.stack((first[query] + step, query)) + start)
        start += length
    return torch.cat(parts, 1), start


def _torch(edge_index: Tensor, num_nodes: int) -> list[Tensor]:
    out = []
    for row, other in ((edge_index[1], edge_index[0]), (edge_index[0], edge_index[1])):
        _, order = torch.sort(row, stable=True)
        ptr = torch.zeros(num_nodes + 1, dtype=torch.int64)
        torch.cumsum(torch.bincount(row, minlength=num_nodes), 0, out=ptr[1:])
        out += [ptr, other.int()[order]]
    return out


def _scipy(edge_index: Tensor, num_nodes: int) -> list[Tensor]:
    import numpy
    from scipy.sparse import csr_array

    out = []
    for row, other in ((edge_index[1], edge_index[0]), (edge_index[0], edge_index[1])):
        # One entry a row of edges: the transpose of this matrix lists the edges of each node, by counting.
        count = row.numel()
        entries = (numpy.ones(count, numpy.int8), row.int().numpy(), numpy.arange(count + 1, dtype=numpy.int32))
        by_row = csr_array(entries, shape=(count, num_nodes)).tocsc()
        out += [torch.from_numpy(by_row.indptr), other.int()[torch.from_numpy(by_row.indices)]]
    return out


PROVIDERS = tuple(Provider(name, about, _why_not, partial(_prepare, name)) for name, about in _ABOUT.items())
