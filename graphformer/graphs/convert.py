"""Reading other people's graphs: every orientation is converted here, once."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graphformer._checks import refuse, require
from graphformer._errors import InputError
from graphformer._transforms import plain
from graphformer.graphs.layout import Layout, expand_rows, index_dtype, make_layout, within_rows

if TYPE_CHECKING:
    import networkx
    import scipy.sparse

_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


def read_edges(
    edge_index: Any, num_nodes: int | None, size: tuple[int, int] | None, relation: Any, num_relations: Any
) -> tuple[Layout, int, Tensor | None, int]:
    """The layout by query, the number of keys, the relations and their number; see `AttentionGraph.from_edge_index`."""
    edge_index, known_size = read_adjacency(edge_index, "AttentionGraph.from_edge_index")
    num_keys, num_queries = resolve_size(edge_index, num_nodes, size, known_size)
    key, query = edge_index.unbind(0)
    by_query = make_layout(query, key, num_queries, num_keys)
    relation, num_relations = read_relation(relation, num_relations, edge_index.shape[1], edge_index.device)
    return by_query, num_keys, relation, num_relations


def read_adjacency(edge_index: Any, where: str) -> tuple[Tensor, tuple[int, int] | None]:
    """A plain int64 edge index [2, E], and its (num_keys, num_queries) where the input says so."""
    edge_index = plain(edge_index, where, "edge_index")
    if isinstance(edge_index, Tensor) and edge_index.layout != torch.strided:
        return _read_torch_sparse(edge_index, where)
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
        if not (isinstance(size, (tuple, list)) and len(size) == 2 and all(is_count(count) for count in size)):
            rule = "be two integers (num_keys, num_queries), 0 or more"
            refuse(where, "size", rule, repr(size), "Name both, keys first.")
        return size[0], size[1]
    if num_nodes is not None:
        if not is_count(num_nodes):
            refuse(where, "num_nodes", "be an integer, 0 or more", repr(num_nodes), "Pass a count, as x.shape[0] is.")
        return num_nodes, num_nodes
    if known is not None:
        return known
    count = int(edge_index.max()) + 1 if edge_index.numel() else 0
    return count, count


def is_count(value: Any) -> bool:
    """Whether the value is an integer, 0 or more; a size that torch.compile traces is one."""
    return isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool) and bool(value >= 0)


def read_csr(query_ptr: Any, key_index: Any, num_keys: Any) -> tuple[Tensor, Tensor]:
    """Check CSR rows; returns an own int64 copy of the offsets, and the keys."""
    where = "AttentionGraph.from_csr"
    require(is_count(num_keys), where, "num_keys", "be an integer, 0 or more", repr(num_keys), "Pass a count of keys.")
    for name, tensor in (("query_ptr", query_ptr), ("key_index", key_index)):
        _require_tensor(tensor, where, name)
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


def sort_rows(ptr: Tensor, index: Tensor, num_others: int) -> Layout:
    """The layout of checked rows whose entries come in any order; its index is an own copy."""
    num_rows, num_edges = ptr.numel() - 1, index.numel()
    if bool(((index[1:] < index[:-1]) & within_rows(ptr, num_edges)).any()):
        return make_layout(expand_rows(ptr, num_edges), index, num_rows, num_others)
    return Layout(ptr, index.to(index_dtype(max(num_rows, num_others)), copy=True), None)


def _require_tensor(value: Any, where: str, argument: str) -> None:
    if not isinstance(value, Tensor):
        refuse(where, argument, "be a tensor", type(value).__name__, "Convert it with torch.as_tensor.")


def read_relation(relation: Any, num_relations: Any, num_edges: int, device: torch.device) -> tuple[Tensor | None, int]:
    """An own copy of the relations, and their number; refuses those that do not fit the edges."""
    where = "AttentionGraph"
    if not (num_relations is None or is_count(num_relations)):
        refuse(where, "num_relations", "be an integer, 0 or more", repr(num_relations), "Pass a count of relations.")
    if relation is None:
        if num_relations:
            refuse(where, "num_relations", "come with relation", num_relations, "Pass relation=, [E] ids.")
        return None, 0
    _require_tensor(relation, where, "relation")
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
    return relation.to(index_dtype(limit), copy=True), limit


def check_mask(mask: Any) -> None:
    """Refuse what is not a boolean [N, M] mask."""
    where = "AttentionGraph.from_dense"
    _require_tensor(mask, where, "mask")
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
    require(
        hasattr(matrix, "tocoo") and len(matrix.shape) == 2,
        "AttentionGraph.from_scipy",
        "matrix",
        "be a scipy sparse matrix with two dimensions",
        type(matrix).__name__,
        "Wrap an array with scipy.sparse.coo_array.",
    )
    coo = matrix.tocoo()
    edge_index = torch.from_numpy(np.stack((coo.row, coo.col)).astype(np.int64, copy=False))
    return edge_index, (int(coo.shape[0]), int(coo.shape[1]))


def read_networkx(graph: networkx.Graph) -> tuple[Tensor, int, Tensor | None, int | None]:
    """Edge index, node count, relation and its number of a networkx graph, both directions of an undirected edge."""
    require(
        all(hasattr(graph, name) for name in ("nodes", "edges", "is_directed")),
        "AttentionGraph.from_networkx",
        "graph",
        "be a networkx graph",
        type(graph).__name__,
        "Make one with networkx, or pass an edge list to from_edge_index.",
    )
    number = {node: position for position, node in enumerate(graph.nodes)}
    edges = [(number[u], number[v], label) for u, v, label in graph.edges(data="relation")]
    if not graph.is_directed():
        edges += [(v, u, label) for u, v, label in edges if u != v]
    edge_index = torch.tensor([edge[:2] for edge in edges], dtype=torch.int64).reshape(-1, 2).t().contiguous()
    labels = [label for _, _, label in edges if label is not None]
    if not labels:
        return edge_index, len(number), None, None
    whole = len(labels) == len(edges) and all(isinstance(label, Integral) for label in labels)
    found = sorted({type(label).__name__ for _, _, label in edges})
    remedy = "Number the kinds from 0, or give the attribute another name."
    where = "AttentionGraph.from_networkx"
    require(whole, where, "the edges' attribute relation", "be an integer on every edge or on none", found, remedy)
    return edge_index, len(number), torch.tensor(labels, dtype=torch.int64), graph.graph.get("num_relations")


def _read_torch_sparse(matrix: Tensor, where: str) -> tuple[Tensor, tuple[int, int]]:
    plain = matrix.layout in _SPARSE and matrix.dim() == 2 and matrix.dense_dim() == 0
    found = f"{matrix.layout} with shape {list(matrix.shape)}"
    rule = "be a COO, CSR or CSC matrix of scalars where it is sparse"
    require(plain, where, "edge_index", rule, found, "Convert it with .to_sparse_coo(), one value an entry.")
    num_queries, num_keys = matrix.shape
    if matrix.layout == torch.sparse_coo:
        query, key = matrix._indices()  # indices() wants a coalesced matrix, which holds a duplicate entry once
    elif matrix.layout == torch.sparse_csr:
        query, key = expand_rows(matrix.crow_indices(), matrix._nnz()), matrix.col_indices()
    else:
        query, key = matrix.row_indices(), expand_rows(matrix.ccol_indices(), matrix._nnz())
    # Row-major, so that one matrix gives one order of edges whatever its layout.
    ptr, key, _ = make_layout(query, key, num_queries, num_keys)
    return torch.stack((key.long(), expand_rows(ptr, key.numel()))), (num_keys, num_queries)


def _edge_index_size(edge_index: Tensor) -> tuple[int, int] | None:
    sparse_size = getattr(edge_index, "sparse_size", None)  # PyG EdgeIndex; (None, None) where it was not told
    if not callable(sparse_size):
        return None
    num_keys, num_queries = sparse_size()
    return None if num_keys is None or num_queries is None else (num_keys, num_queries)
