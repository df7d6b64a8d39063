"""What PyG takes for edges, read in one way: sizes, features, and the form that PyG's own path takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.index import ptr2index
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor

from graphformer.graphs import AttentionGraph


def is_sparse(edges: Any) -> bool:
    """Whether the edges are a matrix, whose rows are queries."""
    return isinstance(edges, SparseTensor) or is_torch_sparse_tensor(edges)


def known_size(edges: Any) -> tuple[int, int] | None:
    """(num_keys, num_queries), where the edges know it."""
    if isinstance(edges, AttentionGraph):
        return edges.size
    if is_sparse(edges):
        return edges.size(1), edges.size(0)
    if isinstance(edges, EdgeIndex):
        num_keys, num_queries = edges.sparse_size()
        return None if num_keys is None or num_queries is None else (num_keys, num_queries)
    return None


def is_loose(edges: Any) -> bool:
    """Whether the edges are an uncoalesced matrix, whose entries can be read, copies too, but not with gradients."""
    return isinstance(edges, Tensor) and edges.layout == torch.sparse_coo and not edges.is_coalesced()


def stored_features(edges: Any) -> Tensor | None:
    """The values of a matrix that PyG takes for edge features: any of a SparseTensor, rows of others."""
    if isinstance(edges, SparseTensor):
        return edges.storage.value()
    if not is_torch_sparse_tensor(edges) or edges.dense_dim() == 0:
        return None
    return edges._values() if is_loose(edges) else edges.values()


def stored_pairs(edges: Any) -> Tensor:
    """The (source, target) pairs of a matrix in the order in which it stores its values. Shape `[2, E]`."""
    if isinstance(edges, SparseTensor):
        target, source, _ = edges.coo()
    elif edges.layout == torch.sparse_coo:
        target, source = edges._indices()
    elif edges.layout == torch.sparse_csr:
        target, source = ptr2index(edges.crow_indices()), edges.col_indices()
    else:
        target, source = edges.row_indices(), ptr2index(edges.ccol_indices())
    return torch.stack((source, target))


def own_pairs(edges: Any, attr: Tensor | None) -> tuple[Any, Tensor | None]:
    """An attention graph as PyG's edge index and the features of all its pairs; anything else as it is."""
    if not isinstance(edges, AttentionGraph):
        return edges, attr
    if attr is not None and edges.own_edge is not None:
        attr = torch.cat((attr, attr.new_zeros(1, *attr.shape[1:])))[edges.own_edge]
    return edges.edge_index, attr


def with_weights(edges: Any, alpha: Tensor, *, inside: bool) -> Any:
    """The weights beside the edges, in the form that PyG's layers give for each kind of adjacency.

    `inside` says whether a sparse matrix comes with the weights for values, as from GATConv and GATv2Conv.
    """
    if isinstance(edges, AttentionGraph):
        return edges.edge_index, alpha
    if isinstance(edges, SparseTensor):
        return edges.set_value(alpha, layout="coo")
    if inside and is_torch_sparse_tensor(edges):
        return _with_values(edges, alpha), alpha
    return edges, alpha


def _with_values(matrix: Tensor, values: Tensor) -> Tensor:
    size = (*matrix.shape[:2], *values.shape[1:])
    if matrix.layout == torch.sparse_coo:
        return torch.sparse_coo_tensor(matrix._indices(), values, size, is_coalesced=not is_loose(matrix) or None)
    if matrix.layout == torch.sparse_csr:
        return torch.sparse_csr_tensor(matrix.crow_indices(), matrix.col_indices(), values, size)
    return torch.sparse_csc_tensor(matrix.ccol_indices(), matrix.row_indices(), values, size)
