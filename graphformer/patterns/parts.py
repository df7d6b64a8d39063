"""Node sets made of named parts, such as a text and an image: every accepted form as one dict."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.patterns.own_edges import Kind, adjacency_of

_REMEDY = 'For example {"text": 5, "image": Grid(2, 3)}; every part of a batch may be a list or a PyG Batch itself.'


def as_parts(nodes: Any, where: str) -> tuple[Any, dict[Kind, Any] | None]:
    """Named parts as a dict from name to node sets; any other nodes as they are. Then a HeteroData's edge stores."""
    nodes = _collate(nodes, where)
    if isinstance(nodes, list) and any(isinstance(entry, dict) for entry in nodes):
        nodes = _stack(nodes, where)
    typed = None
    if hasattr(nodes, "node_types"):
        typed = {kind: nodes[kind] for kind in nodes.edge_types if adjacency_of(nodes[kind]) is not None}
        nodes = {name: _store(nodes, name) for name in nodes.node_types}
    if not isinstance(nodes, dict):
        return nodes, None
    named = bool(nodes) and all(isinstance(name, str) for name in nodes)
    found = list(nodes) if nodes else "no part"
    require(named, where, "nodes", "name at least one part, by strings", found, _REMEDY)
    for name, part in nodes.items():
        single = not isinstance(part, (dict, tuple)) and not hasattr(part, "node_types")
        require(single, where, f"nodes[{name!r}]", "be one kind of nodes", type(part).__name__, _REMEDY)
    return {name: _collate(part, where) for name, part in nodes.items()}, typed


def _collate(nodes: Any, where: str) -> Any:
    """A list of PyG data as a batch; any other nodes as they are."""
    kinds = {type(entry) for entry in nodes if hasattr(entry, "stores")} if isinstance(nodes, list) else set()
    if not kinds:
        return nodes
    single = all(type(entry) in kinds and not hasattr(entry, "to_data_list") for entry in nodes)
    found = sorted({type(entry).__name__ for entry in nodes})
    remedy = "A list holds the sets of a batch, one Data each."
    require(single and len(kinds) == 1, where, "nodes", "hold one kind of single sets as a list", found, remedy)
    from torch_geometric.data import Batch

    return Batch.from_data_list(nodes)


def _stack(sets: list[Any], where: str) -> dict[str, list[Any]]:
    """A batch, given set by set, as one dict of lists."""
    names = list(sets[0]) if isinstance(sets[0], dict) else None
    for entry in sets:
        same = isinstance(entry, dict) and list(entry) == names
        found = list(entry) if isinstance(entry, dict) else type(entry).__name__
        remedy = "A part that is missing has 0 nodes."
        require(same, where, "nodes", f"have the same parts in all sets, in one order: {names}", found, remedy)
    return {name: [entry[name] for entry in sets] for name in names or ()}


def _store(data: Any, name: str) -> Any:
    """The nodes of one type of a HeteroData as data of their own."""
    store = data[name]
    held = {**store.to_dict(), "num_nodes": store.num_nodes}
    if store.num_nodes is not None and not {"batch", "ptr"} & held.keys():
        tensors = (value for part in (store, *data.edge_stores) for value in part.values() if isinstance(value, Tensor))
        device = next((tensor.device for tensor in tensors), None)  # a mere num_nodes does not tell it
        held["ptr"] = torch.tensor([0, store.num_nodes], device=device)
    return SimpleNamespace(**held)
