"""The edges that node sets bring along: read from PyG's stores, checked, and numbered over the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.graphs.convert import read_adjacency

if TYPE_CHECKING:
    from graphformer.patterns.node_sets import NodeSets

Kind = tuple[str, ...]  # (source part, ..., target part) of edges between parts, () where there are no parts


def adjacency_of(store: Any) -> Any:
    """What holds the edges of PyG data or of one of its edge types: `edge_index`, else `adj_t`; None without edges."""
    edge_index = getattr(store, "edge_index", None)
    return edge_index if edge_index is not None else getattr(store, "adj_t", None)


def read_edges(sets: NodeSets) -> tuple[Tensor, dict[Kind, Tensor]]:
    """All edges, checked, and which of them those of each type are.

    Edges of one node set keep their order. Those of parts go set by set, and in each set type by type.

    Returns:
        The edges. Shape `[2, E]`, int64: row 0 keys, row 1 queries. For each type, ids of edges `[edges of the type]`.
    """
    where = sets.where
    if not sets.edge_stores:
        if sets.is_bipartite:
            rule, found = "be one node set with edges", "a (keys, queries) tuple, or two parts, without edges between"
        elif sets.key_parts:
            rule, found = "have a part that holds edge_index", "no edges"
        else:
            rule, found = "hold edge_index", "no edges"
        require(False, where, "nodes", rule, found, "Pass PyG data that has edge_index or adj_t.")
    if sets.key_parts:
        held = {kind: _between_parts(sets, kind) for kind in sets.edge_stores}
    else:
        held = {kind: _checked(sets, kind) for kind in sets.edge_stores}
    joint = torch.cat(list(held.values()), dim=1)
    order = torch.arange(joint.shape[1], device=joint.device)
    if sets.key_parts:
        order = torch.argsort(sets.key_set[joint[0]], stable=True)
        joint = joint[:, order]
    place = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
    places = place.split([edges.shape[1] for edges in held.values()])
    return joint, dict(zip(held, places, strict=True))


def _between_parts(sets: NodeSets, kind: Kind) -> Tensor:
    """The edges of one type, over the whole."""
    for name in (kind[0], kind[-1]):
        remedy = f"Give the data nodes of type {name!r}, or take these edges out."
        held = list(sets.key_parts)
        require(name in held, sets.where, f"edges {kind}", "join parts that the nodes hold", held, remedy)
    of_kind = replace(sets.link(kind[0], kind[-1]), edge_stores={kind: sets.edge_stores[kind]})
    key, query = of_kind.edge_index
    return torch.stack((sets.part_keys[kind[0]][key], sets.part_queries[kind[-1]][query]))


def _checked(sets: NodeSets, kind: Kind) -> Tensor:
    """The edges that one store holds."""
    where, name = sets.where, f"edge_index of {kind}" if kind else "edge_index"
    edge_index, _ = read_adjacency(adjacency_of(sets.edge_stores[kind]), where)
    for ids, limit in zip(edge_index, (sets.num_keys, sets.num_queries), strict=True):
        low, high = (int(value) for value in torch.aminmax(ids)) if ids.numel() else (0, -1)
        remedy = "Correct the ids, or set num_nodes on the data."
        wrong = low if low < 0 else high
        require(low >= 0 and high < limit, where, name, f"hold ids in [0, {limit})", wrong, remedy)
    crossing = int((sets.key_set[edge_index[0]] != sets.query_set[edge_index[1]]).sum())
    remedy = "Build the batch with Batch.from_data_list, or leave batch and ptr off."
    found = f"{crossing} edges between sets"
    require(crossing == 0, where, name, "stay inside each set of the batch", found, remedy)
    return edge_index
