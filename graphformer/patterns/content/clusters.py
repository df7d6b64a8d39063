"""Clusters of queries and keys."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphformer.patterns.content.content import Content
from graphformer.patterns.content.groups import pairs_of_one_label, sets_by_size
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_count, check_seed

_CHUNK = 2**22  # similarities that are held at a time


@dataclass(frozen=True)
class Clusters(Content):
    """Each query attends to the keys of its cluster: spherical k-means for each head and set (Routing Transformer).

    The queries and keys of a set, scaled to length 1, are clustered together. The centroids start at distinct vectors
    of the set, drawn by the seed and the size of the set alone, and take the direction of their members' sum a few
    times (Lloyd); a vector belongs to the centroid of the largest dot product, of equal ones to the first.

    A query whose cluster holds no key has an empty row; where queries are the keys it meets at least itself. Input that
    is constant falls into one cluster and is attended to in full. A set with fewer vectors than clusters has one
    centroid a vector. The clusters of a set are made from all of it, so that `pattern=Causal()` keeps later values from
    a query but not later vectors from the choice; :class:`graphformer.nn.LearnedClusters` keeps out both.

    Args:
        num_clusters: Centroids for each head and set; the paper takes about sqrt(N).
        iterations: Lloyd steps, 0 or more. Default 4: the choice need not be the optimum of k-means.
        seed: Of the start, any 64-bit integer.

    Raises:
        InputError: An argument is out of range.

    Example:
        >>> x = torch.tensor([[2.0, 0.1], [0.0, 1.0], [1.0, 0.0]]).view(3, 1, 2)
        >>> Clusters(2).select(x, x, 3).edge_index
        tensor([[0, 2, 1, 0, 2],
                [0, 0, 1, 2, 2]])

    References:
        Roy et al., "Efficient Content-Based Sparse Attention with Routing Transformers", TACL 2021.
    """

    num_clusters: int
    iterations: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        check_count(self, "num_clusters")
        check_count(self, "iterations", minimum=0)
        check_seed(self)

    def _pairs(self, query: Tensor, key: Tensor, sets: NodeSets, pattern: Pattern | None) -> tuple[Tensor, Tensor]:
        query, key = (torch.nn.functional.normalize(x, dim=-1).transpose(0, 1) for x in (query, key))
        labels = [torch.zeros(x.shape[:2], dtype=torch.int64, device=x.device) for x in (query, key)]
        for query_ids, key_ids in sets_by_size(sets):
            num_queries = query_ids.shape[1]
            points = torch.cat((query[:, query_ids], key[:, key_ids]), dim=2)  # [H, S, n + m, D]
            label = self._cluster(points.flatten(0, 1)).view(points.shape[:3])
            labels[0][:, query_ids], labels[1][:, key_ids] = label.split((num_queries, key_ids.shape[1]), dim=2)
        return pairs_of_one_label(labels[0], labels[1], self.num_clusters, sets)

    def _cluster(self, points: Tensor) -> Tensor:
        """The cluster of each of P points in each of G groups; takes `[G, P, D]`, gives `[G, P]`."""
        order = torch.randperm(points.shape[1], generator=torch.Generator().manual_seed(self.seed))
        centroids = points[:, order[: self.num_clusters].to(points.device)]
        for _ in range(self.iterations):
            centroids = follow_members(centroids, points, nearest(points, centroids))
        return nearest(points, centroids)


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """The centroid of the largest dot product with each point: `[G, P, D]` and `[G, c, D]` give `[G, P]`, int64."""
    num_groups, num_points, _ = points.shape
    count = centroids.shape[1]
    out = torch.empty(num_groups, num_points, dtype=torch.int64, device=points.device)
    some, few = max(_CHUNK // max(num_points * count, 1), 1), max(_CHUNK // count, 1)
    for first in range(0, num_groups, some):
        for start in range(0, num_points, few):
            here = slice(first, first + some), slice(start, start + few)
            out[here] = (points[here] @ centroids[here[0]].transpose(1, 2)).argmax(-1)
    return out


def follow_members(centroids: Tensor, points: Tensor, label: Tensor, decay: float = 0.0) -> Tensor:
    """Unit centroids moved towards the direction of their members' sum; where there is none they stay.

    Args:
        centroids: Shape `[G, c, D]`.
        points: Shape `[G, P, D]`; those that are not finite are left out.
        label: The centroid of each point. Shape `[G, P]`, int64.
        decay: How much of the old centroid is kept before the new one is scaled to length 1.
    """
    num_groups, count, _ = centroids.shape
    member = (torch.arange(num_groups, device=points.device)[:, None] * count + label).flatten()
    points = points.where(points.isfinite().all(-1, keepdim=True), 0.0)
    total = torch.zeros_like(centroids).flatten(0, 1).index_add(0, member, points.flatten(0, 1)).view_as(centroids)
    there = (total != 0).any(-1, keepdim=True)
    direction = torch.nn.functional.normalize(total, dim=-1)
    moved = torch.nn.functional.normalize(decay * centroids + (1 - decay) * direction, dim=-1)
    return torch.where(there, moved, centroids)
