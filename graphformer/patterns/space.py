"""Patterns in space: the nearest keys, and all keys within a distance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.graphs.layout import make_layout
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_whole
from graphformer.patterns.terms import RunTerm, Term

_CHUNK = 2**20  # candidates that a step holds at a time
_WIDEST = 1e140  # so that the squares of distances, and of the gaps between sets, stay finite
_SLACK = 1 + 1e-9  # the tree rounds otherwise than we do: it proposes a little more, and our distances decide


@dataclass(frozen=True, repr=False)
class Within(Pattern):
    """Each query attends to the keys of its set at most this far away, the node itself included.

    What `torch_geometric.nn.radius_graph(loop=True)` gives, without a limit on the neighbours; on a bipartite
    (key data, query data) what `radius` gives. Distances are Euclidean, between rows of `pos` [N, D], floating or
    integer, and computed in float64. A k-d tree over all sets finds the pairs; memory is that of the pairs.

    Args:
        distance: In the units of `pos`; finite, 0 or more. A key at exactly this distance is within.

    Raises:
        InputError: A distance out of range; nodes without `pos`, or one that is not finite, or too wide to square.

    Example:
        >>> from torch_geometric.data import Data
        >>> line = Data(pos=torch.tensor([[0.0], [1.0], [3.0]]))
        >>> Within(1).on(line).edge_index
        tensor([[0, 1, 0, 1, 2],
                [0, 0, 1, 1, 2]])
    """

    distance: float

    def __post_init__(self) -> None:
        real = isinstance(self.distance, Real) and not isinstance(self.distance, bool)
        try:
            number = float(self.distance) if real else math.nan
        except OverflowError:  # of an integer
            number = math.inf
        remedy, fits = "Pass a distance in the units of pos.", 0 <= number < math.inf
        require(fits, "Within", "distance", "be a finite number, 0 or more", repr(self.distance), remedy)
        object.__setattr__(self, "distance", number)

    def _lower(self, sets: NodeSets) -> list[Term]:
        of_query, of_key = positions(sets)
        reach = min(self.distance, _span(of_query, of_key)) * _SLACK
        queries, keys = _trees(sets, of_query, of_key, gap=2 * reach + 1)
        near = queries.sparse_distance_matrix(keys, reach, output_type="ndarray")
        query, key = (torch.from_numpy(near[side].astype(np.int64)).to(sets.device) for side in "ij")
        kept = _between(of_query[query], of_key[key]) <= self.distance
        return [RunTerm(KeyRuns.from_pairs(query[kept], key[kept], sets.num_queries, sets.num_keys))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        of_query, of_key = positions(sets)
        return _between(of_query[query], of_key[key]) <= self.distance


@dataclass(frozen=True, repr=False)
class Nearest(Pattern):
    """Each query attends to the `k` nearest keys of its set; the node itself is the first of them.

    What `torch_geometric.nn.knn_graph(k, loop=True)` gives; on a bipartite (key data, query data) what `knn` gives.
    Distances are as in :class:`Within`. Of keys at the same distance the lower id comes first, so that the result is
    the same everywhere. A k-d tree finds the keys; ties among k-th keys cost a look at all of them.

    Args:
        k: Keys a query, 0 or more; a smaller set is seen as a whole.

    Raises:
        InputError: Nodes without `pos`, or one that is not finite, or too wide to square.

    Example:
        >>> from torch_geometric.data import Data
        >>> line = Data(pos=torch.tensor([[0.0], [1.0], [3.0]]))
        >>> Nearest(2).on(line).edge_index
        tensor([[0, 1, 0, 1, 1, 2],
                [0, 0, 1, 1, 2, 2]])
    """

    k: int

    def __post_init__(self) -> None:
        check_whole(self, "k", low=0)

    def _lower(self, sets: NodeSets) -> list[Term]:
        of_query, of_key = positions(sets)
        most = min(self.k, int(sets.set_keys.max()) if sets.num_queries else 0)
        query, key = (torch.zeros(0, dtype=torch.int64) for _ in range(2))
        if most:
            query, key = _nearest_places(sets, of_query, of_key, most)
            if not sets.is_bipartite:  # among coincident nodes the node itself may have been left out
                itself = torch.arange(sets.num_queries) * (sets.num_keys + 1)
                code = torch.cat((query * sets.num_keys + key, itself)).unique()
                query, key = code // sets.num_keys, code % sets.num_keys
            far = self._far(sets, of_query, of_key, query.to(sets.device), key.to(sets.device))
            query, key = _first(query, key, far.cpu(), self.k)
        runs = KeyRuns.from_pairs(query.to(sets.device), key.to(sets.device), sets.num_queries, sets.num_keys)
        return [RunTerm(runs)]

    def _far(self, sets: NodeSets, of_query: Tensor, of_key: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """What pairs are ranked by: their distance, and less than any for a node and itself."""
        far = _between(of_query[query], of_key[key])
        return far if sets.is_bipartite else far.masked_fill(query == key, -1.0)

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        of_query, of_key = positions(sets)
        every = torch.arange(sets.num_keys, device=sets.device)
        parts = [query.new_zeros(0, dtype=torch.bool)]
        step = max(_CHUNK // max(sets.num_keys, 1), 1)
        for asked, mine in zip(query.split(step), key.split(step), strict=True):
            far = self._far(sets, of_query, of_key, *torch.broadcast_tensors(asked[:, None], every))
            own = self._far(sets, of_query, of_key, asked, mine)[:, None]
            ahead = (far < own) | ((far == own) & (every < mine[:, None]))
            same_set = sets.query_set[asked, None] == sets.key_set
            parts.append((ahead & same_set).sum(1) < self.k)
        return torch.cat(parts)


def _nearest_places(sets: NodeSets, of_query: Tensor, of_key: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """(query, key) of the `most` nearest keys of each query by (distance, id), found once for each place of a query."""
    span = _span(of_query, of_key) * _SLACK
    queries, keys = _trees(sets, of_query, of_key, gap=2 * span + 1)
    places, one, place_of = np.unique(queries.data, axis=0, return_index=True, return_inverse=True)
    last = keys.query(places, k=[most])[0][:, 0]
    reach = np.minimum(last, span) * _SLACK  # the most-th key of a smaller set lies in another set
    count = keys.query_ball_point(places, reach, return_length=True)
    where = of_query[torch.from_numpy(one).to(of_query.device)].cpu()
    found = []
    for start, stop in _chunks(count):
        near = keys.query_ball_point(places[start:stop], reach[start:stop])
        key = torch.from_numpy(np.fromiter(chain.from_iterable(near), dtype=np.int64))
        place = torch.from_numpy(np.repeat(np.arange(start, stop), count[start:stop]))
        found.append(torch.stack(_first(place, key, _between(where[place], of_key.cpu()[key]), most)))
    place, key = torch.cat(found, dim=1)
    ptr, index, _ = make_layout(place, key, len(places), sets.num_keys)
    row = torch.from_numpy(place_of.reshape(-1))
    runs = KeyRuns.from_ranges(ptr[row], ptr[row + 1], key.numel())  # each query takes the list of its place
    query, turn = runs.expand()
    return query, index[turn].long()


def _first(row: Tensor, key: Tensor, far: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first k pairs of each row by (far, key)."""
    order = torch.from_numpy(np.lexsort((key.numpy(), far.numpy(), row.numpy())))
    row, key = row[order], key[order]
    count = torch.unique_consecutive(row, return_counts=True)[1]
    rank = torch.arange(row.numel()) - torch.repeat_interleave(count.cumsum(0) - count, count)
    return row[rank < k], key[rank < k]


def positions(sets: NodeSets) -> tuple[Tensor, Tensor]:
    """`pos` of the queries `[N, D]` and of the keys `[M, D]`, checked, as float64."""
    of_key, of_query = (
        _read_positions(data, count, sets).double()
        for data, count in zip(sets.nodes, (sets.num_keys, sets.num_queries), strict=True)
    )
    _check_widths(of_query, of_key, sets.where)
    finite = bool(of_query.isfinite().all()) and bool(of_key.isfinite().all())
    require(finite, sets.where, "nodes.pos", "be finite", "NaN or infinity", "Leave out nodes without a place.")
    span, remedy = _span(of_query, of_key), "Take a larger unit: squares of distances would overflow."
    require(span < _WIDEST, sets.where, "nodes.pos", f"span less than {_WIDEST}", span, remedy)
    return of_query, of_key


def coordinates(sets: NodeSets) -> tuple[Tensor, Tensor]:
    """Integer places: of the queries `[N, D]` and of the keys `[M, D]`, int64, on a grid or by an integer `pos`."""
    if not all(hasattr(data, "pos") for data in sets.nodes):
        return sets.query_place, sets.key_place
    of_key, of_query = (
        _read_positions(data, count, sets)
        for data, count in zip(sets.nodes, (sets.num_keys, sets.num_queries), strict=True)
    )
    for pos in (of_key, of_query):
        remedy = "Pass places on the grid, for example pos.long()."
        require(not pos.is_floating_point(), sets.where, "nodes.pos", "hold integers", pos.dtype, remedy)
    _check_widths(of_query, of_key, sets.where)
    return of_query.long(), of_key.long()


def _read_positions(data: Any, count: int, sets: NodeSets) -> Tensor:
    pos: Any = getattr(data, "pos", None)
    remedy = "Pass a PyG Data or Batch that has pos; a bipartite graph takes two of them."
    require(isinstance(pos, Tensor), sets.where, "nodes", "hold pos", "none", remedy)
    fits = pos.dim() == 2 and pos.shape[0] == count and pos.shape[1] > 0
    require(fits, sets.where, "nodes.pos", f"have shape [N, D] = [{count}, D]", list(pos.shape), "One row a node.")
    real = not (pos.is_complex() or pos.dtype == torch.bool)
    require(real, sets.where, "nodes.pos", "hold integers or floating-point numbers", pos.dtype, "Convert it.")
    return pos.detach()


def _check_widths(of_query: Tensor, of_key: Tensor, where: str) -> None:
    widths = [pos.shape[1] for pos in (of_key, of_query)]
    found = f"{widths[0]} and {widths[1]}"
    require(widths[0] == widths[1], where, "nodes.pos", "have one number of dimensions", found, "Use the same space.")


def _between(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distance of rows, added up dimension by dimension: the same bits wherever it is computed."""
    total = torch.zeros(first.shape[:-1], dtype=first.dtype, device=first.device)
    for offset in (first - second).unbind(-1):
        total = total + offset * offset
    return total.sqrt()


def _span(of_query: Tensor, of_key: Tensor) -> float:
    """More than the distance of any two nodes, at most the diagonal of the box around all of them."""
    every = torch.cat((of_query, of_key))
    return float((every.amax(0) - every.amin(0)).norm()) if every.numel() else 0.0


def _trees(sets: NodeSets, of_query: Tensor, of_key: Tensor, gap: float) -> tuple[Any, Any]:
    """k-d trees of queries and keys, in one more dimension that holds the sets `gap` apart."""
    from scipy.spatial import cKDTree

    sides = ((of_query, sets.query_set), (of_key, sets.key_set))
    places = (torch.cat((pos, of_set[:, None] * gap), dim=1).cpu().numpy() for pos, of_set in sides)
    queries, keys = (cKDTree(place) for place in places)
    return queries, keys


def _chunks(count: np.ndarray) -> list[tuple[int, int]]:
    """Ranges of rows whose counts add up to at most _CHUNK, or that are one row."""
    total, bounds = np.cumsum(count), [0]
    while bounds[-1] < len(count):
        before = total[bounds[-1] - 1] if bounds[-1] else 0
        bounds.append(max(int(np.searchsorted(total, before + _CHUNK, side="right")), bounds[-1] + 1))
    return list(zip(bounds, bounds[1:], strict=False))
