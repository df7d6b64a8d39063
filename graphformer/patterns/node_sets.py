"""Node sets as patterns see them: how many nodes each set has, its own edges, its grid and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from graphformer._checks import plain_integer, require
from graphformer.graphs.layout import expand_rows
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.grid import Grid, coordinates, lattice_runs, read_shapes
from graphformer.patterns.own_edges import Kind, adjacency_of, read_edges
from graphformer.patterns.parts import as_parts


@dataclass(frozen=True, eq=False)
class NodeSets:
    """B ragged sets of keys and queries; the same nodes twice, unless bipartite.

    Attributes:
        key_ptr: Offsets of the sets' keys. Shape `[B + 1]`, int64.
        query_ptr: Offsets of the sets' queries. Shape `[B + 1]`, int64.
        is_bipartite: Whether keys and queries are different nodes.
        edge_stores: What holds the edges, by their type: (source part, ..., target part), `()` where there are no
            parts. :attr:`edge_index` reads them.
        where: What errors name as the place: the pattern that read the nodes.
        nodes: The key and the query nodes as the caller passed them, twice the same unless bipartite; patterns read
            further attributes of PyG data there. Named parts are a dict from name to nodes.
    """

    key_ptr: Tensor
    query_ptr: Tensor
    is_bipartite: bool
    edge_stores: Mapping[Kind, Any]
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

    # ---------------------------------------------------------------- grids

    @cached_property
    def key_shape(self) -> Tensor:
        """Keys along each axis of each set; a set without a grid has one axis. Shape `[B, d]`, int64."""
        return read_shapes(self.nodes[0], self.key_ptr, self.where)

    @cached_property
    def query_shape(self) -> Tensor:
        """Queries along each axis of each set. Shape `[B, d]`, int64."""
        if not self.is_bipartite:
            return self.key_shape
        shape = read_shapes(self.nodes[1], self.query_ptr, self.where)
        axes = [self.key_shape.shape[1], shape.shape[1]]
        remedy = "Lay keys and queries on grids of as many axes."
        require(axes[0] == axes[1], self.where, "nodes", "have one number of axes on both sides", axes, remedy)
        return shape

    @cached_property
    def set_shape(self) -> Tensor:
        """Keys along each axis of each query's set. Shape `[N, d]`, int64."""
        return self.key_shape[self.query_set]

    @cached_property
    def query_place(self) -> Tensor:
        """The place of each query on each axis of its set. Shape `[N, d]`, int64."""
        return coordinates(self.query_shape, self.query_set, self.local_query)

    @cached_property
    def key_place(self) -> Tensor:
        """The place of each key on each axis of its set. Shape `[M, d]`, int64."""
        return coordinates(self.key_shape, self.key_set, self.local_key)

    def per_axis(self, value: int | tuple[int, ...], argument: str) -> tuple[int, ...]:
        """The argument of a pattern with one entry an axis: an integer counts for all."""
        num_axes = self.query_shape.shape[1]
        if not isinstance(value, tuple):
            return (value,) * num_axes
        remedy = "An integer counts for all axes; nodes without a grid have one."
        require(len(value) == num_axes, self.where, argument, f"have {num_axes} entries, one an axis", value, remedy)
        return value

    def lattice(self, first: Tensor, count: Tensor, step: tuple[int, ...] | None = None, wrap: bool = False) -> KeyRuns:
        """For each query, the keys at places `first + step * t`, t in [0, count), on every axis of its set.

        Args:
            first: Shape `[N, d]`, int64, inside the set's grid unless it wraps.
            count: Shape `[N, d]`, int64; the last place is inside the grid too.
            step: One an axis. Default: 1, a box.
            wrap: Take places modulo the grid.
        """
        step = step or (1,) * first.shape[1]
        return lattice_runs(self.key_start, self.set_shape, first, count, step, wrap, self.num_keys)

    # ---------------------------------------------------------------- parts

    @cached_property
    def key_parts(self) -> dict[str, NodeSets]:
        """The parts that the keys are made of, each as node sets of its own; none where they have no named parts."""
        return self._parts(0)

    @cached_property
    def query_parts(self) -> dict[str, NodeSets]:
        """The parts that the queries are made of."""
        return self._parts(1) if self.is_bipartite else self.key_parts

    @cached_property
    def part_keys(self) -> dict[str, Tensor]:
        """The keys that each part's nodes are. Shape `[nodes of the part]`, int64, ascending."""
        return _members(self.key_parts, self.key_ptr)

    @cached_property
    def part_queries(self) -> dict[str, Tensor]:
        """The queries that each part's nodes are. Shape `[nodes of the part]`, int64, ascending."""
        return _members(self.query_parts, self.query_ptr) if self.is_bipartite else self.part_keys

    def _parts(self, side: int) -> dict[str, NodeSets]:
        nodes = self.nodes[side]
        return {name: read_nodes(part, self.where) for name, part in nodes.items()} if isinstance(nodes, dict) else {}

    def link(self, source: str, target: str) -> NodeSets:
        """Two parts as node sets of their own, with the edges from source to target."""
        keys, queries = self.key_parts[source], self.query_parts[target]
        stores = {kind: held for kind, held in self.edge_stores.items() if (kind[0], kind[-1]) == (source, target)}
        if source == target and not self.is_bipartite:
            return replace(keys, edge_stores=stores)
        return NodeSets(keys.key_ptr, queries.query_ptr, True, stores, self.where, (keys.nodes[0], queries.nodes[1]))

    # ---------------------------------------------------------------- edges

    @property
    def has_edges(self) -> bool:
        """Whether the nodes hold edges of their own: whether there is an :attr:`edge_index`."""
        return bool(self.edge_stores)

    @cached_property
    def _edges(self) -> tuple[Tensor, dict[Kind, Tensor]]:
        return read_edges(self)

    @cached_property
    def edge_index(self) -> Tensor:
        """The node sets' own edges, checked. Shape `[2, E]`, int64: row 0 keys, row 1 queries."""
        return self._edges[0]

    @property
    def edge_places(self) -> dict[Kind, Tensor]:
        """Which of :attr:`edge_index` the edges of each type are. Shape `[edges of the type]`, int64."""
        return self._edges[1]

    def require_one_set(self) -> None:
        """Refuse keys and queries that are different nodes, for what walks along edges."""
        rule, remedy = "be one node set", "Between two node sets Edges() lists the edges as they are."
        require(not self.is_bipartite, self.where, "nodes", rule, "keys and queries of different nodes", remedy)


def _members(parts: dict[str, NodeSets], ptr: Tensor) -> dict[str, Tensor]:
    """Where the nodes of each part lie among all nodes: in each set, one part comes after the other."""
    members, begin = {}, ptr[:-1]
    for name, part in parts.items():
        members[name] = begin[part.key_set] + part.local_key
        begin = begin + part.key_ptr.diff()
    return members


def read_nodes(nodes: Any, where: str) -> NodeSets:
    """Node sets from whatever :class:`~graphformer.patterns.Pattern` takes as `nodes`."""
    if isinstance(nodes, NodeSets):
        return nodes
    if not isinstance(nodes, tuple):
        nodes, typed = as_parts(nodes, where)
        ptr, stores = _read_side(nodes, where)
        stores = stores if typed is None else typed
        return NodeSets(ptr, ptr, False, stores, where, (nodes, nodes))
    require(
        len(nodes) == 2,
        where,
        "nodes",
        "be a pair (key nodes, query nodes) where it is a tuple",
        f"{len(nodes)} entries",
        "Pass the lengths of a ragged batch as a list.",
    )
    nodes = tuple(as_parts(side, where)[0] for side in nodes)
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
    return NodeSets(key_ptr, query_ptr, True, {}, where, nodes)


def _read_side(nodes: Any, where: str) -> tuple[Tensor, dict[Kind, Any]]:
    """Offsets of the sets, and what holds the edges where the nodes have some."""
    if isinstance(nodes, Grid) or plain_integer(nodes) is not None:
        return _offsets([nodes], where), {}
    if isinstance(nodes, (list, Tensor)):
        return _offsets(nodes, where), {}
    if isinstance(nodes, dict):
        parts = {name: _read_side(part, where) for name, part in nodes.items()}
        stores: dict[Kind, Any] = {(name, name): store for name, (_, held) in parts.items() for store in held.values()}
        return _join({name: ptr for name, (ptr, _) in parts.items()}, where), stores
    require(
        hasattr(nodes, "num_nodes"),
        where,
        "nodes",
        "be a count, a Grid, a list of these, a PyG Data or Batch, a dict of named parts, or a (key nodes, "
        "query nodes) tuple of these",
        type(nodes).__name__,
        "Pass x.shape[0] for one set of vectors.",
    )
    return _read_data(nodes, where), {} if adjacency_of(nodes) is None else {(): nodes}


def _join(ptrs: dict[str, Tensor], where: str) -> Tensor:
    """Offsets of the sets that hold all parts."""
    num_sets = {name: ptr.numel() - 1 for name, ptr in ptrs.items()}
    remedy = "Give each part a length for every set of the batch, 0 where it is missing."
    rule = "hold as many sets in all parts"
    require(len(set(num_sets.values())) == 1, where, "nodes", rule, num_sets, remedy)
    devices = {name: str(ptr.device) for name, ptr in ptrs.items()}
    remedy = "Move the parts with .to(device)."
    require(len(set(devices.values())) == 1, where, "nodes", "be on one device", devices, remedy)
    return torch.stack(list(ptrs.values())).sum(0)


def _offsets(entries: Sequence[Any] | Tensor, where: str) -> Tensor:
    if isinstance(entries, Tensor):
        found = f"{entries.dtype} {list(entries.shape)}"
        whole = entries.dim() == 1 and not (entries.is_floating_point() or entries.is_complex())
        whole = whole and entries.dtype != torch.bool and bool((entries >= 0).all())
        remedy = "Pass x.shape[0] for one set of vectors."
        require(whole, where, "nodes", "hold lengths where it is a tensor: integers [B], 0 or more", found, remedy)
        return torch.nn.functional.pad(entries.long().cumsum(0), (1, 0))
    lengths = [entry.num_nodes if isinstance(entry, Grid) else entry for entry in entries]
    for length in lengths:
        require(
            plain_integer(length) is not None and length >= 0,
            where,
            "nodes",
            "count nodes with integers, 0 or more",
            repr(length),
            "Pass lengths, Grids, or PyG Data: one kind of nodes in a list.",
        )
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def _read_data(data: Any, where: str) -> Tensor:
    ptr, batch = (getattr(data, name, None) for name in ("ptr", "batch"))
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
        ptr = _read_integers(ptr, where, "nodes.ptr", "Give the offsets of the sets.")
        fits = ptr.dim() == 1 and ptr.numel() > 0 and int(ptr[0]) == 0 and bool((ptr.diff() >= 0).all())
        require(
            fits and int(ptr[-1]) == num_nodes,
            where,
            "nodes.ptr",
            f"rise from 0 to num_nodes = {num_nodes}",
            ptr.tolist() if ptr.numel() < 9 else f"{ptr.numel()} offsets",
            "Build the batch with Batch.from_data_list.",
        )
        return ptr
    if batch is not None:
        batch = _read_integers(batch, where, "nodes.batch", "Give the set of each node.")
        return _read_batch(batch, num_nodes, where)
    held = (adjacency_of(data), getattr(data, "x", None), getattr(data, "pos", None))
    device = next((value.device for value in held if isinstance(value, Tensor)), None)
    return torch.tensor([0, num_nodes], dtype=torch.int64, device=device)


def _read_integers(ids: Any, where: str, argument: str, remedy: str) -> Tensor:
    found = str(ids.dtype) if isinstance(ids, Tensor) else type(ids).__name__
    whole = isinstance(ids, Tensor) and not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)
    require(whole, where, argument, "be a tensor of integers", found, remedy)
    return ids.long()


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
