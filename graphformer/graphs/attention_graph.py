"""The attention graph: which query attends to which key, laid out once and used by every layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphformer._transforms import keep
from graphformer.graphs import block_mask, convert, describe, draw, export
from graphformer.graphs.layout import Layout, expand_rows
from graphformer.graphs.runs import KeyRuns
from graphformer.graphs.side import Side
from graphformer.graphs.tiles import Tiles
from graphformer.graphs.union import unite

if TYPE_CHECKING:
    import networkx
    import scipy.sparse


class AttentionGraph:
    """An immutable set of (key, query) pairs with their layouts.

    Make one with :meth:`from_edge_index`, another ``from_*`` or ``pattern.on(nodes)``; make it once a batch and pass
    it to every layer. Bias, attention weights and dropout go by *edge id*, a pair's position in :attr:`edge_index`.
    A graph copies what it is made from and hands out its own tensors, which must not be written to.

    Example:
        >>> graph = AttentionGraph.from_edge_index(torch.tensor([[0, 1, 2], [1, 1, 0]]), num_nodes=3)
        >>> graph
        AttentionGraph(3 nodes, 3 edges, density 33.3%, 0 duplicates, 1 empty row)
        >>> graph.degree
        tensor([1, 2, 0])
    """

    # Everything is reached through properties without setters; only the caches ever change.
    def __init__(
        self,
        by_query: Layout | KeyRuns,
        num_keys: int,
        *,
        relation: Tensor | None = None,
        num_relations: int = 0,
        own_edge: Tensor | None = None,
        num_own_edges: int = 0,
    ) -> None:
        """Take tensors as they are, for makers of graphs that guarantee them; :meth:`from_csr` is the checked door."""
        if isinstance(by_query, KeyRuns):
            self._by_query = Side(num_keys, runs=by_query)
        else:
            self._by_query = Side(num_keys, layout=by_query)
        self._num_queries = self._by_query.num_rows
        self._num_keys = num_keys
        self._relation = relation
        self._num_relations = num_relations
        self._own_edge = own_edge
        self._num_own_edges = num_own_edges
        self._edge_index: Tensor | None = None
        self._by_key: Side | None = None

    # ---------------------------------------------------------------- making one

    @classmethod
    def from_edge_index(
        cls,
        edge_index: Any,
        num_nodes: int | None = None,
        *,
        size: tuple[int, int] | None = None,
        relation: Tensor | None = None,
        num_relations: int | None = None,
    ) -> AttentionGraph:
        """A graph from a PyG adjacency; edge ids are the caller's order.

        Args:
            edge_index: Row 0 source = key, row 1 target = query. Shape `[2, E]`, any integer dtype; or a PyG
                `EdgeIndex`; or a `torch.sparse` matrix or torch_sparse `SparseTensor`, both read as transposed
                adjacencies (rows are queries), in their row-major order. Every stored entry is an edge, whatever its
                value; a duplicate entry is a duplicate edge.
            num_nodes: Number of nodes, an integer, where keys and queries are one set. Default: largest id + 1.
            size: (num_keys, num_queries), two integers, for a bipartite graph. Give this or `num_nodes`.
            relation: The integer of each pair. Shape `[E]`, int64, values in [0, num_relations).
            num_relations: Number of relations. Default: largest relation + 1.

        Raises:
            InputError: Wrong type, shape or dtype, an id out of range, or both `num_nodes` and `size`.

        Example:
            >>> AttentionGraph.from_edge_index(torch.tensor([[4, 0], [0, 1]]), size=(5, 2))
            AttentionGraph(5 keys, 2 queries, 2 edges, density 20.0%, 0 duplicates, 0 empty rows)
        """
        given = edge_index, num_nodes, size, relation, num_relations
        by_query, num_keys, relation, num_relations = keep(lambda: convert.read_edges(*given))
        return cls(by_query, num_keys, relation=relation, num_relations=num_relations)

    @classmethod
    def from_csr(
        cls,
        query_ptr: Tensor,
        key_index: Tensor,
        num_keys: int,
        *,
        relation: Tensor | None = None,
        num_relations: int | None = None,
    ) -> AttentionGraph:
        """A graph from rows of keys; the edge ids are the positions in `key_index`.

        Args:
            query_ptr: Offsets of the queries' rows, from 0 to E, never falling. Shape `[N + 1]`, int64.
            key_index: The keys, row after row, in any order within a row. Shape `[E]`, int32 or int64, in
                [0, num_keys).
            num_keys: Number of keys.
            relation: As in :meth:`from_edge_index`.
            num_relations: As in :meth:`from_edge_index`.

        Raises:
            InputError: The offsets do not fit the keys, or a key is out of range.

        Example:
            >>> AttentionGraph.from_csr(torch.tensor([0, 1, 3]), torch.tensor([0, 0, 1]), num_keys=2).edge_index
            tensor([[0, 0, 1],
                    [0, 1, 1]])
        """
        query_ptr, key_index = convert.read_csr(query_ptr, key_index, num_keys)
        relation, num_relations = convert.read_relation(relation, num_relations, key_index.numel(), key_index.device)
        by_query = convert.sort_rows(query_ptr, key_index, num_keys)
        return cls(by_query, num_keys, relation=relation, num_relations=num_relations)

    @classmethod
    def from_dense(cls, mask: Tensor) -> AttentionGraph:
        """A graph from a boolean mask: `mask[i, j]` says that query i attends to key j.

        Args:
            mask: Shape `[N, M]` as [query, key], bool.

        Example:
            >>> AttentionGraph.from_dense(torch.ones(2, 3).tril().bool()).edge_index
            tensor([[0, 0, 1],
                    [0, 1, 1]])
        """
        convert.check_mask(mask)
        query, key = mask.nonzero().unbind(1)
        return cls.from_edge_index(torch.stack((key, query)), size=(mask.shape[1], mask.shape[0]))

    @classmethod
    def from_scipy(cls, matrix: scipy.sparse.spmatrix) -> AttentionGraph:
        """A graph from a scipy sparse matrix: rows are sources (keys), as in PyG's `from_scipy_sparse_matrix`.

        Stored entries are edges, whatever their value, and duplicate entries are duplicate edges; the edge ids are the
        order of `matrix.tocoo()`.

        Example:
            >>> import scipy.sparse
            >>> AttentionGraph.from_scipy(scipy.sparse.coo_array(([1.0], ([0], [2])), shape=(3, 3))).edge_index
            tensor([[0],
                    [2]])
        """
        edge_index, size = convert.read_scipy(matrix)
        return cls.from_edge_index(edge_index, size=size)

    @classmethod
    def from_networkx(cls, graph: networkx.Graph) -> AttentionGraph:
        """A graph from networkx, nodes numbered in `graph.nodes` order.

        A directed edge (u, v) lets v attend to u; an undirected one gives both directions (a self loop once); parallel
        edges are kept. The attribute `relation`, an integer on every edge, is read, and the graph's `num_relations`.

        Example:
            >>> import networkx as nx
            >>> AttentionGraph.from_networkx(nx.path_graph(3)).num_edges
            4
        """
        edge_index, num_nodes, relation, num_relations = convert.read_networkx(graph)
        return cls.from_edge_index(edge_index, num_nodes, relation=relation, num_relations=num_relations)

    @classmethod
    def union(cls, graphs: Sequence[AttentionGraph]) -> AttentionGraph:
        """The disjoint union: nodes, edges and own edges numbered one graph after the other.

        Args:
            graphs: At least one graph; all on one device; all or none with relations, all or none with own edges. The
                union has as many relations as the graph that has the most.

        Raises:
            InputError: No graphs, or graphs that do not go together.

        Example:
            >>> graph = AttentionGraph.from_edge_index(torch.tensor([[0], [1]]), num_nodes=2)
            >>> AttentionGraph.union([graph, graph]).edge_index
            tensor([[0, 2],
                    [1, 3]])
        """
        return keep(lambda: unite(graphs, cls))

    # ---------------------------------------------------------------- sizes

    @property
    def num_queries(self) -> int:
        """Number of queries N."""
        return self._num_queries

    @property
    def num_keys(self) -> int:
        """Number of keys M."""
        return self._num_keys

    @property
    def size(self) -> tuple[int, int]:
        """(num_keys, num_queries), PyG's (source, target)."""
        return self._num_keys, self._num_queries

    @property
    def num_edges(self) -> int:
        """Number of pairs E, duplicates counted."""
        return self._by_query.num_pairs

    @property
    def num_relations(self) -> int:
        """Number of relations R, 0 where the graph carries none."""
        return self._num_relations

    @property
    def num_own_edges(self) -> int:
        """Number of edges of the node set that :attr:`own_edge` refers to."""
        return self._num_own_edges

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self._by_query.ptr.device

    # ---------------------------------------------------------------- pairs

    @property
    def edge_index(self) -> Tensor:
        """The pairs in the order of their ids: row 0 keys, row 1 queries. Shape `[2, E]`, int64.

        Made when first asked for and kept; like every tensor of a graph it is for reading, so clone before you write.
        """
        if self._edge_index is None:
            self._edge_index = keep(self._list_pairs)
        return self._edge_index

    def _list_pairs(self) -> Tensor:
        ptr, index, edge_id = self.by_query
        pairs = torch.stack((index.long(), expand_rows(ptr, index.shape[0])))
        return pairs if edge_id is None else torch.empty_like(pairs).index_copy_(1, edge_id.long(), pairs)

    @property
    def relation(self) -> Tensor | None:
        """The integer of each pair, by edge id. Shape `[E]`, int32 or int64, or None."""
        return self._relation

    @property
    def own_edge(self) -> Tensor | None:
        """Which edge of the node set each pair is (-1: none of them), by edge id. Shape `[E]`, int64, or None."""
        return self._own_edge

    @property
    def degree(self) -> Tensor:
        """Number of keys of each query, duplicates counted. Shape `[N]`, int64."""
        return self._by_query.ptr.diff()

    @property
    def by_query(self) -> Layout:
        """The pairs grouped by query (CSR), keys ascending in a row; a graph held as runs makes them when asked."""
        return self._by_query.layout

    @property
    def by_key(self) -> Layout:
        """The pairs grouped by key (CSC), queries ascending in a row; made when first asked for."""
        return self.key_side.layout

    @property
    def query_side(self) -> Side:
        """The rows of the queries, as they are held."""
        return self._by_query

    @property
    def key_side(self) -> Side:
        """The rows of the keys; made when first asked for."""
        if self._by_key is None:
            self._by_key = self._by_query.transpose()
        return self._by_key

    @property
    def tiles_by_query(self) -> Tiles | None:
        """Windows of 32 queries with the keys that they share, or None where no window shares enough.

        Made when first asked for and kept. Only a graph on the CPU has them, with the compiled library; torch.compile
        uses those that are there and makes none.
        """
        return self._by_query.tiles

    @property
    def tiles_by_key(self) -> Tiles | None:
        """Windows of 32 keys with the queries that they share; otherwise as :attr:`tiles_by_query`."""
        return self.key_side.tiles

    def prepare(self) -> AttentionGraph:
        """Make what a kernel otherwise makes when first called: the keys' side, tiles, work lists. Returns the graph.

        Layers share both, and both travel with the graph: call it where a batch is collated in a worker process of a
        data loader (a union has them anew, so in the members' transform it helps only graphs that are used alone).

        Example:
            >>> graph = AttentionGraph.from_dense(torch.ones(40, 40).bool()).prepare()
            >>> graph.tiles_by_key.segments.tolist()
            [[0, 40, -1], [0, 40, 255]]
        """
        self.query_side.prepare(self._relation, self._num_relations)
        self.key_side.prepare()
        return self

    # ---------------------------------------------------------------- moving

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> AttentionGraph:
        """The same graph on another device (itself, where it is there already)."""
        target = torch.empty(0, device=device).device
        if target == self.device:
            return self
        return self._map(lambda tensor: tensor.to(target, non_blocking=non_blocking), tiles=target.type == "cpu")

    def cpu(self) -> AttentionGraph:
        """The graph in host memory."""
        return self.to("cpu")

    def cuda(self, device: int | str | None = None, *, non_blocking: bool = False) -> AttentionGraph:
        """The graph on a CUDA device, the current one by default."""
        return self.to("cuda" if device is None else torch.device(device), non_blocking=non_blocking)

    def pin_memory(self) -> AttentionGraph:
        """A copy in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def share_memory_(self) -> AttentionGraph:
        """Move the tensors to shared memory, in place, for other processes."""
        return self._map(lambda tensor: tensor.share_memory_())

    def _map(self, move: Any, *, tiles: bool = True) -> AttentionGraph:
        out = AttentionGraph.__new__(AttentionGraph)
        state = _map_tensors(self.__getstate__(), move)
        for side in (state["_by_query"], state["_by_key"]):
            if side is not None and not tiles:
                side["tiles"] = None
        out.__setstate__(state)
        return out

    def __getstate__(self) -> dict[str, Any]:
        by_key = None if self._by_key is None else self._by_key.state()
        return dict(self.__dict__, _edge_index=None, _by_query=self._by_query.state(), _by_key=by_key)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._by_query = Side.from_state(state["_by_query"])
        by_key = state["_by_key"]
        self._by_key = None if by_key is None else Side.from_state(by_key, self._by_query)

    # ---------------------------------------------------------------- telling

    def __eq__(self, other: object) -> bool:
        """Same sizes, pairs in the same order, relations and own edges, on the same device."""
        if not isinstance(other, AttentionGraph):
            return NotImplemented
        parts = ((graph.edge_index, graph.relation, graph.own_edge) for graph in (self, other))
        return self._facts() == other._facts() and all(
            a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in zip(*parts, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]  # compared by content

    def _facts(self) -> tuple[object, ...]:
        return (self.size, self.num_edges, self.num_relations, self.num_own_edges, self.device)

    def __repr__(self) -> str:
        return describe.one_line(self)

    stats = describe.stats
    explain = describe.explain
    draw = draw.draw

    # ---------------------------------------------------------------- for others

    to_dense = export.to_dense
    to_scipy = export.to_scipy
    to_torch_sparse = export.to_torch_sparse
    to_networkx = export.to_networkx
    to_block_mask = block_mask.to_block_mask


def _map_tensors(value: Any, move: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, dict):
        return {name: _map_tensors(part, move) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_map_tensors(part, move) for part in value)
    return move(value) if isinstance(value, Tensor) else value
