"""Self loops as PyG's GAT layers add them, once for all layers that see an edge index."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.typing import SparseTensor, torch_sparse
from torch_geometric.utils import add_self_loops, is_torch_sparse_tensor, remove_self_loops
from torch_geometric.utils.loop import compute_loop_attr

from graphformer.nn.conv.cache import cached

Fill = float | Tensor | str | None


class Looped(NamedTuple):
    """Edges with one self loop for each node, after the others; those that were there are gone."""

    edges: Any
    attr: Tensor | None
    bias: Tensor | None = None  # [E], -inf for the loops that stay in the list under torch.compile


def add_loops(edges: Any, attr: Tensor | None, fill: Fill, num_nodes: int, num_targets: int) -> Looped:
    """One self loop for each of the first `num_nodes` nodes, in the order and with the features of PyG.

    A matrix has its features inside: `attr` is None then.
    """
    if isinstance(edges, SparseTensor):
        return Looped(torch_sparse.set_diag(edges), None)
    if is_torch_sparse_tensor(edges):
        if edges.dense_dim():  # features, which gradients may flow to
            return Looped(_replaced_in_matrix(edges, fill), None)
        return Looped(cached(edges, "loops", lambda: _replaced_in_matrix(edges, None)), None)
    if torch.compiler.is_compiling():
        return _masked(edges, attr, fill, num_nodes, num_targets)
    looped, kept = cached(edges, ("loops", num_nodes), lambda: _replaced(edges, num_nodes))
    if attr is not None:
        attr = attr if kept is None else attr[kept]
        others = looped[:, : looped.shape[1] - num_nodes]
        attr = torch.cat((attr, compute_loop_attr(others, attr, num_targets, False, fill)[:num_nodes]))
    return Looped(looped, attr)


def _replaced_in_matrix(edges: Tensor, fill: Fill) -> Tensor:
    # PyG writes to a flag of the matrix that it reads: not to the caller's, where nothing hangs on it.
    edges = edges if edges.requires_grad else edges.data
    return add_self_loops(remove_self_loops(edges)[0], fill_value=fill)[0]


def _replaced(edges: Tensor, num_nodes: int) -> tuple[Tensor, Tensor | None]:
    """The edges with loops, and which of the edges stayed (None: all)."""
    kept = edges[0] != edges[1]
    looped = add_self_loops(remove_self_loops(edges)[0], num_nodes=num_nodes)[0]
    return looped, None if bool(kept.all()) else kept


def _masked(edges: Tensor, attr: Tensor | None, fill: Fill, num_nodes: int, num_targets: int) -> Looped:
    """Loops that were there stay, at a score of -inf: the number of edges must not depend on data."""
    stays = edges[0] == edges[1]
    nodes = torch.arange(num_nodes, device=edges.device)
    bias = torch.zeros(edges.shape[1] + num_nodes, device=edges.device)
    bias[: edges.shape[1]].masked_fill_(stays, -torch.inf)
    if attr is not None:
        # One target more than there are takes the features of the loops that stay.
        target = torch.where(stays, num_targets, edges[1])
        found = compute_loop_attr(torch.stack((edges[0], target)), attr, num_targets + 1, False, fill)
        attr = torch.cat((attr, found[:num_nodes]))
    return Looped(torch.cat((edges, nodes.expand(2, -1)), dim=1), attr, bias)
