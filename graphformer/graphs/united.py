"""Several attention graphs held as one: what a batch stores, moves and sends between processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch

from graphformer.graphs.attention_graph import AttentionGraph
from graphformer.graphs.layout import Layout, index_dtype


@dataclass(frozen=True, eq=False)
class UnitedGraphs:
    """The union of some graphs, and where each of them lies in it; indexing gives a member again.

    A batch of B graphs is so a handful of tensors rather than a handful for each member: one copy when it moves, and
    few file descriptors when a worker process sends it.

    Attributes:
        union: The disjoint union.
        offsets: Running sums of the members' queries, keys, edges and own edges. B + 1 tuples, the first all 0.
        num_relations: Number of relations of each member.

    Example:
        >>> graphs = [AttentionGraph.from_edge_index(torch.tensor([[0], [i]]), num_nodes=i + 1) for i in (1, 2)]
        >>> united = UnitedGraphs.of(graphs)
        >>> united.union.num_queries, united[1] == graphs[1]
        (5, True)
    """

    union: AttentionGraph
    offsets: list[tuple[int, ...]]
    num_relations: list[int]

    @classmethod
    def of(cls, graphs: Sequence[AttentionGraph]) -> UnitedGraphs:
        """Unite the graphs; refuses what :meth:`AttentionGraph.union` refuses."""
        union = AttentionGraph.union(graphs)
        columns = [
            list(accumulate((getattr(graph, name) for graph in graphs), initial=0))
            for name in ("num_queries", "num_keys", "num_edges", "num_own_edges")
        ]
        return cls(union, list(zip(*columns, strict=True)), [graph.num_relations for graph in graphs])

    def __len__(self) -> int:
        return len(self.num_relations)

    def __getitem__(self, place: int) -> AttentionGraph:
        place = range(len(self))[place]
        query, key, edge, own = self.offsets[place]
        next_query, next_key, next_edge, next_own = self.offsets[place + 1]
        ptr, index, edge_id = self.union.by_query
        edges = slice(edge, next_edge)
        index = (index[edges] - key).to(index_dtype(max(next_query - query, next_key - key)))
        if edge_id is not None:
            edge_id = (edge_id[edges] - edge).to(index_dtype(next_edge - edge))
        relation, own_edge = self.union.relation, self.union.own_edge
        if own_edge is not None:
            own_edge = torch.where(own_edge[edges] < 0, own_edge[edges], own_edge[edges] - own)
        return AttentionGraph(
            Layout(ptr[query : next_query + 1] - edge, index, edge_id),
            next_key - key,
            # A view would take the whole batch along when the member is saved or sent.
            relation=None if relation is None else relation[edges].clone(),
            num_relations=self.num_relations[place],
            own_edge=own_edge,
            num_own_edges=next_own - own,
        )

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> UnitedGraphs:
        """The same graphs on another device."""
        return replace(self, union=self.union.to(device, non_blocking=non_blocking))

    def cpu(self) -> UnitedGraphs:
        """The graphs in host memory."""
        return replace(self, union=self.union.cpu())

    def cuda(self, device: int | str | None = None, *, non_blocking: bool = False) -> UnitedGraphs:
        """The graphs on a CUDA device, the current one by default."""
        return replace(self, union=self.union.cuda(device, non_blocking=non_blocking))

    def pin_memory(self) -> UnitedGraphs:
        """A copy in page-locked memory."""
        return replace(self, union=self.union.pin_memory())

    def share_memory_(self) -> UnitedGraphs:
        """Move the tensors to shared memory, in place, for other processes."""
        self.union.share_memory_()
        return self

    def __repr__(self) -> str:
        return f"UnitedGraphs({len(self)} graphs, {self.union!r})"
