"""Rules that give each pair its relation: how far apart in a sequence, on a grid, in a graph, or by which edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.patterns.hops import distances
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import check_count
from graphformer.patterns.space import coordinates
from graphformer.patterns.terms import Relation


@dataclass(frozen=True)
class Distance(Relation):
    """Relative position in the set: clip(j - i, -clip, clip) + clip for query i and key j.

    The relative position representations of Shaw et al., "Self-attention with relative position representations", 2018.

    Args:
        clip: Farthest position told apart; 2 * clip + 1 relations, the middle one for a node and itself.

    Example:
        >>> from graphformer.patterns import Full
        >>> Full().as_relation(Distance(1)).on(3).relation.view(3, 3)
        tensor([[1, 2, 2],
                [0, 1, 2],
                [0, 0, 1]], dtype=torch.int32)
    """

    clip: int

    def __post_init__(self) -> None:
        check_count(self, "clip", "Pass a number of places.", minimum=0)

    @property
    def num_relations(self) -> int:
        """2 * clip + 1."""
        return 2 * self.clip + 1

    def of(self, sets: NodeSets, query: Tensor, key: Tensor, own_edge: Tensor) -> Tensor:
        """The relation of each pair."""
        return (sets.local_key[key] - sets.local_query[query]).clamp(-self.clip, self.clip) + self.clip


@dataclass(frozen=True)
class Offset2d(Relation):
    """Relative place on a grid: (dy + radius_y) * (2 * radius_x + 1) + dx + radius_x, key minus query, clipped.

    The table of relative position biases of Liu et al., "Swin transformer", 2021. Places are integer coordinates
    `pos` [N, 2] as (y, x).

    Args:
        radius_y: Farthest row told apart.
        radius_x: Farthest column told apart.

    Raises:
        InputError: Nodes without integer coordinates in two dimensions.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from graphformer.patterns import Full
        >>> row = Data(pos=torch.tensor([[0, 0], [0, 1]]), num_nodes=2)
        >>> Full().as_relation(Offset2d(1, 1)).on(row).relation
        tensor([4, 5, 3, 4], dtype=torch.int32)
    """

    radius_y: int
    radius_x: int

    def __post_init__(self) -> None:
        check_count(self, "radius_y", "Pass a number of rows.", minimum=0)
        check_count(self, "radius_x", "Pass a number of columns.", minimum=0)

    @property
    def num_relations(self) -> int:
        """(2 * radius_y + 1) * (2 * radius_x + 1)."""
        return (2 * self.radius_y + 1) * (2 * self.radius_x + 1)

    def of(self, sets: NodeSets, query: Tensor, key: Tensor, own_edge: Tensor) -> Tensor:
        """The relation of each pair."""
        of_query, of_key = coordinates(sets)
        found = of_query.shape[1]
        require(found == 2, sets.where, "nodes", "have coordinates in two dimensions", found, "Pass pos as (y, x).")
        dy, dx = (of_key[key] - of_query[query]).unbind(1)
        dy, dx = dy.clamp(-self.radius_y, self.radius_y), dx.clamp(-self.radius_x, self.radius_x)
        return (dy + self.radius_y) * (2 * self.radius_x + 1) + dx + self.radius_x


@dataclass(frozen=True)
class ShortestPath(Relation):
    """Hops from key to query along the node set's own edges: `max` for more, `max + 1` where there is no path.

    The spatial encoding of Ying et al., "Do transformers really perform badly for graph representation?" (Graphormer),
    2021. Only as far as `max` is searched; whether there is a longer path is told by connected components, and for
    pairs of a directed graph that those leave open by a search without limit.

    Args:
        max: Largest distance told apart, 0 or more; max + 2 relations.

    Raises:
        InputError: Nodes without edges.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from graphformer.patterns import Full
        >>> path = Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=4)
        >>> Full().as_relation(ShortestPath(5)).on(path).relation.view(4, 4)
        tensor([[0, 1, 2, 6],
                [1, 0, 1, 6],
                [2, 1, 0, 6],
                [6, 6, 6, 0]], dtype=torch.int32)
    """

    max: int

    def __post_init__(self) -> None:
        check_count(self, "max", "Pass a number of hops.", minimum=0)

    @property
    def num_relations(self) -> int:
        """max + 2."""
        return self.max + 2

    def of(self, sets: NodeSets, query: Tensor, key: Tensor, own_edge: Tensor) -> Tensor:
        """The relation of each pair."""
        hops = distances(sets, query, key, self.max)
        far = (hops < 0).nonzero().squeeze(1)
        hops[far] = torch.where(_has_path(sets, query[far], key[far]), self.max, self.max + 1)
        return hops


def _has_path(sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
    """Whether a path leads from each key to its query. Shape `[E]`, bool."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    source, target = sets.edge_index.cpu().numpy()
    size = (sets.num_keys, sets.num_queries)
    adjacency = coo_array((torch.ones(len(source)).numpy(), (source, target)), shape=size)
    labels = [connected_components(adjacency, connection=kind)[1] for kind in ("weak", "strong")]
    weak, strong = (torch.from_numpy(label).to(sets.device) for label in labels)
    out = strong[query] == strong[key]  # both ways, hence this way
    open_ = (~out & (weak[query] == weak[key])).nonzero().squeeze(1)
    out[open_] = distances(sets, query[open_], key[open_]) >= 0
    return out


@dataclass(frozen=True)
class EdgeType(Relation):
    """The type of the data's own edge that the pair is; `num_types` for a pair that is none of them.

    Args:
        num_types: How many types there are; num_types + 1 relations.
        attribute: Where the data holds the types of its edges. Shape `[E]`, any integer dtype, in [0, num_types). Each
            edge type of a `HeteroData` holds those of its own edges; where none holds `edge_type`, the i-th of
            `edge_types` is type i.

    Raises:
        InputError: Data without that attribute, or one of another shape, dtype or range.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from graphformer.patterns import Edges, Full
        >>> data = Data(edge_index=torch.tensor([[1, 0], [0, 1]]), edge_type=torch.tensor([2, 0]), num_nodes=2)
        >>> (Edges() | Full()).as_relation(EdgeType(3)).on(data).relation.view(2, 2)
        tensor([[3, 2],
                [0, 3]], dtype=torch.int32)
    """

    num_types: int
    attribute: str = "edge_type"

    def __post_init__(self) -> None:
        check_count(self, "num_types", "Pass the number of types of edges.", minimum=0)
        fits, found = isinstance(self.attribute, str), repr(self.attribute)
        require(fits, "EdgeType", "attribute", "be a name", found, "Pass for example 'edge_type'.")

    @property
    def num_relations(self) -> int:
        """num_types + 1."""
        return self.num_types + 1

    def of(self, sets: NodeSets, query: Tensor, key: Tensor, own_edge: Tensor) -> Tensor:
        """The relation of each pair."""
        types = own_edge.new_full((sets.edge_index.shape[1] + 1,), self.num_types)
        stores = sets.edge_stores
        numbered = self.attribute == "edge_type" and not any(hasattr(store, "edge_type") for store in stores.values())
        for number, (kind, place) in enumerate(sets.edge_places.items()):
            of_hetero_data = numbered and len(kind) == 3
            held = torch.full_like(place, number) if of_hetero_data else getattr(stores[kind], self.attribute, None)
            types[place] = self._check(held, kind, place.numel(), sets.where)
        return types[own_edge]  # -1 takes the last

    def _check(self, types: Any, kind: tuple[str, ...], num_edges: int, where: str) -> Tensor:
        name = f"nodes[{kind}].{self.attribute}" if kind else f"nodes.{self.attribute}"
        held = isinstance(types, Tensor)
        require(held, where, name, "be a tensor", type(types).__name__, "Set it on the data: one integer an edge.")
        integer = not (types.is_floating_point() or types.is_complex() or types.dtype == torch.bool)
        remedy = "Give one integer an edge, in the order of edge_index."
        fits = types.shape == (num_edges,)
        require(fits, where, name, f"have shape [E] = [{num_edges}]", list(types.shape), remedy)
        require(integer, where, name, "hold integers", types.dtype, remedy)
        types = types.long()
        low, high = (int(value) for value in torch.aminmax(types)) if types.numel() else (0, -1)
        fits, found = low >= 0 and high < self.num_types, low if low < 0 else high
        require(fits, where, name, f"lie in [0, {self.num_types})", found, "Raise num_types, or correct the types.")
        return types
