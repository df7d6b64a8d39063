"""Vectors of named parts in the order of the whole, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.patterns.node_sets import NodeSets, read_nodes


def join_parts(parts: Mapping[Any, Tensor], nodes: Any) -> Tensor:
    """What the parts of a node set hold, in the order of a graph over the whole: set by set, in each set part by part.

    Args:
        parts: For the name of every part, the vectors of its nodes, as the part lists them. Shape
            `[nodes of the part, ...]`, any dtype, the same for all. Or, for every edge type (source, ..., target) that
            has edges, features of these: joined in the order that `graph.own_edge` counts, for `attend`'s `edge_attr`.
        nodes: The nodes that the graph is made on: a dict of named parts, a list of these, or a PyG `HeteroData` or
            `Batch`; see :class:`Between`.

    Returns:
        Shape `[N, ...]`, or `[E, ...]`. Differentiable.

    Raises:
        InputError: Nodes without parts; other names than theirs; tensors that fit neither the parts nor one another.

    Example:
        >>> nodes = {"text": [2, 1], "image": [1, 2]}
        >>> x = join_parts({"text": torch.tensor([1, 2, 3]), "image": torch.tensor([10, 20, 30])}, nodes)
        >>> x
        tensor([ 1,  2, 10,  3, 20, 30])
        >>> split_parts(x, nodes)["image"]
        tensor([10, 20, 30])
    """
    where = "join_parts"
    sets = _read(nodes, where)
    of_edges = isinstance(parts, Mapping) and any(isinstance(name, tuple) for name in parts)
    places: Mapping[Any, Tensor] = sets.edge_places if of_edges else sets.part_keys
    rule, found = f"hold a tensor for each of {list(places)}", type(parts).__name__
    require(isinstance(parts, Mapping), where, "parts", rule, found, "Pass a dict of tensors.")
    require(parts.keys() == places.keys(), where, "parts", rule, list(parts), "A part without nodes has 0 rows.")
    for name, part in parts.items():
        _check(part, next(iter(parts.values())), f"parts[{name!r}]", places[name].numel())
    place = torch.cat(list(places.values()))
    return torch.cat([parts[name] for name in places])[place.argsort()]


def split_parts(x: Tensor, nodes: Any) -> dict[str, Tensor]:
    """The inverse of :func:`join_parts`: the rows of each part, as the part lists its nodes.

    Args:
        x: Shape `[N, ...]`, any dtype.
        nodes: As there.

    Returns:
        From the name of each part to its rows. Shape `[nodes of the part, ...]`. Differentiable.

    Raises:
        InputError: Nodes without parts, or another number of rows.

    Example:
        >>> split_parts(torch.arange(5), {"text": 3, "image": 2})
        {'text': tensor([0, 1, 2]), 'image': tensor([3, 4])}
    """
    sets = _read(nodes, "split_parts")
    fits = isinstance(x, Tensor) and x.dim() > 0 and x.shape[0] == sets.num_keys
    found = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
    rule, remedy = f"have shape [N, ...] with N = {sets.num_keys}", "Pass a row for each node of all parts."
    require(fits, "split_parts", "x", rule, found, remedy)
    return {name: x[place] for name, place in sets.part_keys.items()}


def _read(nodes: Any, where: str) -> NodeSets:
    sets = read_nodes(nodes, where)
    remedy = 'For example {"text": 5, "image": Grid(2, 3)}, or a PyG HeteroData.'
    found = "a (keys, queries) tuple" if sets.is_bipartite else "nodes without parts"
    fits = bool(sets.key_parts) and not sets.is_bipartite
    require(fits, where, "nodes", "be a dict of named parts", found, remedy)
    return sets


def _check(part: Any, first: Any, argument: str, count: int) -> None:
    """Refuse what is not a tensor of so many rows, alike the first one otherwise."""
    found = list(part.shape) if isinstance(part, Tensor) else type(part).__name__
    fits = isinstance(part, Tensor) and part.dim() > 0 and part.shape[0] == count
    require(fits, "join_parts", argument, f"have {count} rows", found, "Give one for each, in the part's own order.")
    told, expected = ((tensor.shape[1:], tensor.dtype, tensor.device) for tensor in (part, first))
    rule = f"have rows {list(expected[0])} of {expected[1]} on {expected[2]}, as the first part has"
    found = f"{list(told[0])} of {told[1]} on {told[2]}"
    require(told == expected, "join_parts", argument, rule, found, "Map all parts to one width first.")
