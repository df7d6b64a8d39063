"""Reading other people's graphs: every orientation is converted here, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graphformer._checks import refuse, require
from graphformer._errors import InputError

if TYPE_CHECKING:
    import networkx
    import scipy.sparse

_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


def read_adjacency(edge_index: Any, where: str) -> tuple[Tensor, tuple[int, int] | None]:
    """A plain int64 edge index [2, E], and its (num_keys, num_queries) where the input says so."""
    if isinstance(edge_index, Tensor) and edge_index.layout in _SPARSE:
        return _read_torch_sparse(edge_index)
    if hasattr(edge_index, "sparse_sizes") and hasattr(edge_index, "coo"):  # torch_sparse.SparseTensor
        query, key, _ = edge_index.coo()
        num_queries, num_keys = edge_index.sparse_sizes()
        return torch.stack((key, query)), (num_keys, num_queries)
    if not isinstance(edge_index, Tensor):
        raise InputError(
            f"{where}: edge_index must be a tensor [2, E], a PyG EdgeIndex, a torch.sparse matrix or a SparseTensor; "
            f"got {type(edge_index).__name__}. Convert it with torch.as_tensor, or use from_scipy, from_networkx "
            "or from_dense."
        )
    known = _edge_index_size(edge_index)
    if hasattr(edge_index, "as_tensor"):  # PyG EdgeIndex
        edge_index = edge_index.as_tensor()
    if not (edge_index.dim() == 2 and edge_index.shape[0] == 2):
        refuse(
            where,
            "edge_index",
            "have shape [2, E]",
            list(edge_index.shape),
            "Row 0 holds keys (sources), row 1 queries (targets); transpose an [E, 2] list with .t().",
        )
    integer = not (edge_index.is_floating_point() or edge_index.is_complex() or edge_index.dtype == torch.bool)
    # An empty list, torch.tensor([[], []]), is float by torch's default; it holds no id that could be wrong.
    if not (integer or edge_index.numel() == 0):
        refuse(
            where,
            "edge_index",
            "have an integer dtype",
            edge_index.dtype,
            "Convert it with .long(); a boolean [N, M] mask goes to from_dense.",
        )
    return edge_index.long(), known


def resolve_size(
    edge_index: Tensor, num_nodes: int | None, size: tuple[int, int] | None, known: tuple[int, int] | None
) -> tuple[int, int]:
    """(num_keys, num_queries) from what the caller said, what the input knows, or the largest id."""
    where = "AttentionGraph.from_edge_index"
    if not (num_nodes is None or size is None):
        refuse(
            where,
            "num_nodes and size",
            "not both be given",
            f"num_nodes={num_nodes}, size={size}",
            "Pass size=(num_keys, num_queries) for a bipartite graph, num_nodes otherwise.",
        )
    if size is not None:
        pair = tuple(size)
        if not (len(pair) == 2 and all(count is not None and count >= 0 for count in pair)):
            refuse(where, "size", "be two counts (num_keys, num_queries)", size, "Name both, keys first.")
        return pair
    if num_nodes is not None:
        if not (num_nodes >= 0):
            refuse(where, "num_nodes", "not be negative", num_nodes, "Pass a count of nodes.")
        return num_nodes, num_nodes
    if known is not None:
        return known
    count = int(edge_index.max()) + 1 if edge_index.numel() else 0
    return count, count


def read_csr(query_ptr: Tensor, key_index: Tensor, num_keys: int) -> tuple[Tensor, Tensor]:
    """Check CSR rows; returns an own int64 copy of the offsets, and the keys."""
    where = "AttentionGraph.from_csr"
    for name, tensor in (("query_ptr", query_ptr), ("key_index", key_index)):
        require(tensor.dim() == 1, where, name, "have one dimension", list(tensor.shape), "Flatten it.")
        require(
            tensor.dtype in (torch.int32, torch.int64),
            where,
            name,
            "have dtype int32 or int64",
            tensor.dtype,
            "Convert it with .long().",
        )
    query_ptr = query_ptr.to(torch.int64, copy=True)
    fits = query_ptr.numel() > 0 and int(query_ptr[0]) == 0 and int(query_ptr[-1]) == key_index.numel()
    require(
        fits and bool((query_ptr.diff() >= 0).all()),
        where,
        "query_ptr",
        f"rise from 0 to E = {key_index.numel()} without falling",
        query_ptr.tolist() if query_ptr.numel() < 10 else f"{query_ptr.numel()} offsets",
        "Pass the running sum of the queries' degrees, with a leading 0.",
    )
    low, high = (int(v) for v in torch.aminmax(key_index)) if key_index.numel() else (0, -1)
    require(
        low >= 0 and high < num_keys,
        where,
        "key_index",
        f"lie in [0, {num_keys})",
        low if low < 0 else high,
        "Correct the ids or pass a larger num_keys.",
    )
    return query_ptr, key_index


def check_relation(relation: Tensor | None, num_relations: int | None, num_edges: int, device: torch.device) -> int:
    """Refuse relations that do not fit the edges; returns their number."""
    where = "AttentionGraph"
    if relation is None:
        if num_relations:
            refuse(where, "num_relations", "come with relation", num_relations, "Pass relation=, [E] ids.")
        return 0
    if relation.shape != (num_edges,):
        refuse(
            where,
            "relation",
            f"have shape [E] = [{num_edges}]",
            list(relation.shape),
            "Give one integer per edge, in the order of edge_index.",
        )
    if not (not relation.is_floating_point() and relation.dtype != torch.bool and not relation.is_complex()):
        refuse(
            where,
            "relation",
            "have an integer dtype",
            relation.dtype,
            "Continuous edge features go to attend as edge_attr.",
        )
    if relation.device != device:
        refuse(where, "relation", f"be on {device}", relation.device, "Move it where edge_index is.")
    low, high = (int(value) for value in torch.aminmax(relation)) if num_edges else (0, -1)
    limit = high + 1 if num_relations is None else num_relations
    wrong = low if low < 0 else high
    if not (low >= 0 and high < limit):
        refuse(
            where,
            "relation",
            f"lie in [0, {limit})",
            wrong,
            "Renumber the relations from 0, or pass a larger num_relations.",
        )
    return limit


def check_mask(mask: Tensor) -> None:
    """Refuse what is not a boolean [N, M] mask."""
    where = "AttentionGraph.from_dense"
    require(mask.dim() == 2, where, "mask", "have shape [N, M]", list(mask.shape), "Rows are queries, columns keys.")
    require(
        mask.dtype == torch.bool,
        where,
        "mask",
        "be boolean",
        mask.dtype,
        "Compare first, for example mask != 0; a mask of scores is a bias.",
    )


def read_scipy(matrix: scipy.sparse.spmatrix) -> tuple[Tensor, tuple[int, int]]:
    """Edge index and size of a scipy matrix whose rows are sources."""
    coo = matrix.tocoo()
    edge_index = torch.from_numpy(np.stack((coo.row, coo.col)).astype(np.int64, copy=False))
    return edge_index, (int(coo.shape[0]), int(coo.shape[1]))


def read_networkx(graph: networkx.Graph) -> tuple[Tensor, int]:
    """Edge index and node count of a networkx graph, both directions of an undirected edge."""
    number = {node: position for position, node in enumerate(graph.nodes)}
    pairs = [(number[u], number[v]) for u, v in graph.edges()]
    if not graph.is_directed():
        pairs += [(v, u) for u, v in pairs if u != v]
    edge_index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t().contiguous()
    return edge_index, len(number)


def _read_torch_sparse(matrix: Tensor) -> tuple[Tensor, tuple[int, int]]:
    num_queries, num_keys = matrix.shape[:2]
    if matrix.layout == torch.sparse_coo:
        query, key = matrix.coalesce().indices()
    else:
        # CSC is read in the row-major order of its entries, so that one matrix gives one order whatever its layout.
        csr = matrix.to_sparse_csr() if matrix.layout == torch.sparse_csc else matrix
        key = csr.col_indices()
        rows = torch.arange(num_queries, device=key.device)
        query = torch.repeat_interleave(rows, csr.crow_indices().diff(), output_size=key.numel())
    return torch.stack((key.long(), query.long())), (num_keys, num_queries)


def _edge_index_size(edge_index: Tensor) -> tuple[int, int] | None:
    sparse_size = getattr(edge_index, "sparse_size", None)  # PyG EdgeIndex; (None, None) where it was not told
    if not callable(sparse_size):
        return None
    num_keys, num_queries = sparse_size()
    return None if num_keys is None or num_queries is None else (num_keys, num_queries)
