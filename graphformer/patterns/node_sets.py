"""Node sets as patterns see them: how many nodes each set has, and its own edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.graphs.convert import read_adjacency
from graphformer.graphs.layout import expand_rows
from graphformer.graphs.runs import KeyRuns


@dataclass(frozen=True, eq=False)
class NodeSets:
    """B ragged sets of keys and queries; the same nodes twice, unless bipartite.

    Attributes:
        key_ptr: Offsets of the sets' keys. Shape `[B + 1]`, int64.
        query_ptr: Offsets of the sets' queries. Shape `[B + 1]`, int64.
        is_bipartite: Whether keys and queries are different nodes.
        adjacency: The edges as the caller holds them, or None; :attr:`edge_index` checks them.
        where: What errors name as the place: the pattern that read the nodes.
        nodes: The key and the query nodes as the caller passed them, twice the same unless bipartite; patterns read
            further attributes of PyG data there.
    """

    key_ptr: Tensor
    query_ptr: Tensor
    is_bipartite: bool
    adjacency: Any
    where: str
    nodes: tuple[Any, Any] = (None, None)

    @cached_property
    def num_keys(self) -> int:
        """Number of keys M, over all sets."""
        return int(self.key_ptr[-1])

    @cached_property
    def num_queries(self) -> int:
        """Number of queries N, over all sets."""
        return int(self.query_ptr[-1])

    @property
    def device(self) -> torch.device:
        """Where the graph will be made."""
        return self.key_ptr.device

    @cached_property
    def key_set(self) -> Tensor:
        """The set of each key. Shape `[M]`, int64."""
        return expand_rows(self.key_ptr, self.num_keys)

    @cached_property
    def query_set(self) -> Tensor:
        """The set of each query. Shape `[N]`, int64."""
        return expand_rows(self.query_ptr, self.num_queries)

    @cached_property
    def local_query(self) -> Tensor:
        """The place of each query in its set. Shape `[N]`, int64."""
        return torch.arange(self.num_queries, device=self.device) - self.query_ptr[self.query_set]

    @cached_property
    def local_key(self) -> Tensor:
        """The place of each key in its set. Shape `[M]`, int64."""
        return torch.arange(self.num_keys, device=self.device) - self.key_ptr[self.key_set]

    @cached_property
    def key_start(self) -> Tensor:
        """The first key of each query's set. Shape `[N]`, int64."""
        return self.key_ptr[self.query_set]

    @cached_property
    def set_keys(self) -> Tensor:
        """The number of keys in each query's set. Shape `[N]`, int64."""
        return self.key_ptr.diff()[self.query_set]

    @cached_property
    def set_queries(self) -> Tensor:
        """The number of queries in each query's set. Shape `[N]`, int64."""
        return self.query_ptr.diff()[self.query_set]

    def runs(self, start: Tensor | int, stop: Tensor | int) -> KeyRuns:
        """One run a query, from local key ``start`` to before local key ``stop``, clipped to the query's own set."""
        zero = torch.zeros_like(self.set_keys)
        first = torch.maximum(zero, zero + start)
        last = torch.minimum(self.set_keys, zero + stop)
        return KeyRuns.from_ranges(self.key_start + first, self.key_start + last, self.num_keys)

    def complement(self, runs: KeyRuns) -> KeyRuns:
        """The pairs inside the sets that ``runs`` leaves out."""
        return runs.complement(self.key_start, self.key_start + self.set_keys)

    @cached_property
    def edge_index(self) -> Tensor:
        """The node sets' own edges, checked. Shape `[2, E]`, int64: row 0 keys, row 1 queries."""
        where = self.where
        remedy = "Pass a PyG Data or Batch that has edge_index."
        require(not self.is_bipartite, where, "nodes", "be one node set with edges", "a (keys, queries) tuple", remedy)
        require(self.adjacency is not None, where, "nodes", "hold edge_index", "no edges", remedy)
        edge_index, _ = read_adjacency(self.adjacency, where)
        low, high = (int(value) for value in torch.aminmax(edge_index)) if edge_index.numel() else (0, -1)
        require(
            low >= 0 and high < self.num_keys,
            where,
            "edge_index",
            f"hold ids in [0, {self.num_keys})",
            low if low < 0 else high,
            "Correct the ids, or set num_nodes on the data.",
        )
        crossing = self.key_set[edge_index[0]] != self.key_set[edge_index[1]]
        require(
            not bool(crossing.any()),
            where,
            "edge_index",
            "stay inside each set of the batch",
            f"{int(crossing.sum())} edges between sets",
            "Build the batch with Batch.from_data_list, or leave batch and ptr off.",
        )
        return edge_index


def read_nodes(nodes: Any, where: str) -> NodeSets:
    """Node sets from a count, a list of lengths, PyG data, or a (key nodes, query nodes) tuple of these."""
    if isinstance(nodes, NodeSets):
        return nodes
    if not isinstance(nodes, tuple):
        ptr, adjacency = _read_side(nodes, where)
        return NodeSets(ptr, ptr, False, adjacency, where, (nodes, nodes))
    require(
        len(nodes) == 2,
        where,
        "nodes",
        "be a pair (key nodes, query nodes) where it is a tuple",
        f"{len(nodes)} entries",
        "Pass the lengths of a ragged batch as a list.",
    )
    key_ptr, query_ptr = (_read_side(side, where)[0] for side in nodes)
    require(
        key_ptr.numel() == query_ptr.numel(),
        where,
        "nodes",
        "hold as many sets of keys as of queries",
        f"{key_ptr.numel() - 1} and {query_ptr.numel() - 1}",
        "Pair each set of queries with the set of keys that it attends to; an empty set has length 0.",
    )
    require(
        key_ptr.device == query_ptr.device,
        where,
        "nodes",
        "be on one device",
        f"{key_ptr.device} and {query_ptr.device}",
        "Move both node sets with .to(device).",
    )
    return NodeSets(key_ptr, query_ptr, True, None, where, nodes)


def _read_side(nodes: Any, where: str) -> tuple[Tensor, Any]:
    """Offsets of the sets, and the edges where the nodes have some."""
    if isinstance(nodes, int) and not isinstance(nodes, bool):
        return _offsets([nodes], where), None
    if isinstance(nodes, list):
        return _offsets(nodes, where), None
    require(
        hasattr(nodes, "num_nodes") and not hasattr(nodes, "node_types"),
        where,
        "nodes",
        "be a count, a list of lengths, a PyG Data or Batch, or a (key nodes, query nodes) tuple of these",
        type(nodes).__name__,
        "Pass x.shape[0] for one set of vectors; turn a HeteroData into Data with .to_homogeneous().",
    )
    return _read_data(nodes, where)


def _offsets(lengths: Sequence[Any], where: str) -> Tensor:
    for length in lengths:
        require(
            isinstance(length, int) and not isinstance(length, bool) and length >= 0,
            where,
            "nodes",
            "count nodes with integers, 0 or more",
            repr(length),
            "Pass lengths as plain integers, for example lengths.tolist().",
        )
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def _read_data(data: Any, where: str) -> tuple[Tensor, Any]:
    ptr, batch, edge_index = (getattr(data, name, None) for name in ("ptr", "batch", "edge_index"))
    num_nodes = data.num_nodes
    require(
        num_nodes is not None,
        where,
        "nodes",
        "know how many nodes it has",
        "num_nodes=None",
        "Set data.num_nodes or x.",
    )
    if ptr is not None:
        ptr = ptr.long()
        fits = ptr.dim() == 1 and ptr.numel() > 0 and int(ptr[0]) == 0 and bool((ptr.diff() >= 0).all())
        require(
            fits and int(ptr[-1]) == num_nodes,
            where,
            "nodes.ptr",
            f"rise from 0 to num_nodes = {num_nodes}",
            ptr.tolist() if ptr.numel() < 9 else f"{ptr.numel()} offsets",
            "Build the batch with Batch.from_data_list.",
        )
        return ptr, edge_index
    if batch is not None:
        return _read_batch(batch, num_nodes, where), edge_index
    held = (value for value in (edge_index, getattr(data, "x", None), getattr(data, "pos", None)) if value is not None)
    device = next((value.device for value in held if isinstance(value, Tensor)), None)
    return torch.tensor([0, num_nodes], dtype=torch.int64, device=device), edge_index


def _read_batch(batch: Tensor, num_nodes: int, where: str) -> Tensor:
    require(
        batch.shape == (num_nodes,),
        where,
        "nodes.batch",
        f"have shape [N] = [{num_nodes}]",
        list(batch.shape),
        "Give the set of each node.",
    )
    require(
        bool((batch.diff() >= 0).all()) and (num_nodes == 0 or int(batch[0]) >= 0),
        where,
        "nodes.batch",
        "be sorted and not negative",
        batch.tolist() if num_nodes < 9 else "an unsorted vector",
        "Reorder the nodes so that each set is contiguous, as Batch.from_data_list does.",
    )
    ptr = torch.zeros(int(batch[-1]) + 2 if num_nodes else 1, dtype=torch.int64, device=batch.device)
    torch.cumsum(torch.bincount(batch), 0, out=ptr[1:])
    return ptr
