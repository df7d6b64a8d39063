"""Handing attention graphs to other libraries; each function is a method of :class:`AttentionGraph`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphformer._checks import require

if TYPE_CHECKING:
    import networkx
    import scipy.sparse

    from graphformer.graphs.attention_graph import AttentionGraph


def to_dense(graph: AttentionGraph, *, counts: bool = False) -> Tensor:
    """The graph as a matrix [query, key]; takes N * M places, so it is for small graphs.

    Args:
        graph: The graph.
        counts: Give the number of copies of each pair rather than whether there is one.

    Returns:
        bool, or int64 with `counts`, shape `[N, M]`. Without copies, relations and own edges,
        `AttentionGraph.from_dense` reads the same pairs back.

    Example:
        >>> from graphformer.patterns import Causal
        >>> Causal().on(3).to_dense().int()
        tensor([[1, 0, 0],
                [1, 1, 0],
                [1, 1, 1]], dtype=torch.int32)
    """
    key, query = graph.edge_index
    dense = torch.zeros(
        graph.num_queries, graph.num_keys, dtype=torch.int64 if counts else torch.bool, device=key.device
    )
    return dense.index_put_((query, key), torch.ones((), dtype=dense.dtype, device=key.device), accumulate=counts)


def to_scipy(graph: AttentionGraph, values: Tensor | None = None) -> scipy.sparse.coo_array:
    """The graph as a scipy sparse array: rows are sources (keys), columns queries, entries in the order of edge ids.

    Args:
        graph: The graph.
        values: A number for each pair, for instance the attention weights of one head. Shape `[E]`, any numpy dtype.
            Default: float32 ones.

    Returns:
        Shape `[M, N]`. A repeated pair is an entry of its own, which `.tocsr()` adds up; `AttentionGraph.from_scipy`
        reads the same pairs back.

    Raises:
        InputError: `values` that are not one number a pair.

    Example:
        >>> import torch
        >>> from graphformer import AttentionGraph
        >>> AttentionGraph.from_edge_index(torch.tensor([[0, 1], [2, 2]])).to_scipy().toarray()
        array([[0., 0., 1.],
               [0., 0., 1.],
               [0., 0., 0.]], dtype=float32)
    """
    import scipy.sparse

    key, query = graph.edge_index.cpu().numpy()
    held = _read_values(graph, values, "AttentionGraph.to_scipy").detach().cpu().numpy()
    return scipy.sparse.coo_array((held, (key, query)), shape=graph.size)


def to_torch_sparse(graph: AttentionGraph, values: Tensor | None = None) -> Tensor:
    """The graph as a transposed adjacency in torch's CSR layout: rows are queries, as in PyG.

    `graph.to_torch_sparse(weights) @ x` sums, for each query, the weighted vectors of its keys.

    Args:
        graph: The graph.
        values: A number for each pair, by edge id. Shape `[E]`, on the graph's device. Default: float32 ones.

    Returns:
        Shape `[N, M]`, keys ascending in a row; a repeated pair is an entry of its own, for which torch's check of
        invariants is off here. `AttentionGraph.from_edge_index` reads the same pairs back, in this order.

    Raises:
        InputError: `values` that are not one number a pair.

    Notes:
        No gradient flows to `values`; :func:`graphformer.attend` is the differentiable product.

    Example:
        >>> import torch
        >>> from graphformer.patterns import Window
        >>> mean = Window(1).on(3).to_torch_sparse()
        >>> mean @ torch.tensor([[1.0], [10.0], [100.0]])
        tensor([[ 11.],
                [111.],
                [110.]])
    """
    ptr, index, edge_id = graph.by_query
    held = _read_values(graph, values, "AttentionGraph.to_torch_sparse").detach()
    if edge_id is not None:
        held = held[edge_id.long()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        shape = (graph.num_queries, graph.num_keys)
        return torch.sparse_csr_tensor(ptr, index.long(), held, shape, check_invariants=False)


def to_networkx(graph: AttentionGraph) -> networkx.DiGraph:
    """The graph as a networkx one: nodes 0 to N - 1, an edge from each key to each query that attends to it.

    Returns:
        A `DiGraph`, or a `MultiDiGraph` where pairs repeat. Where the graph has relations, edges carry the
        attribute `relation`, and the networkx graph `num_relations`. `AttentionGraph.from_networkx` reads all of it
        back, the pairs ordered by key.

    Raises:
        InputError: The graph is between two node sets of different sizes.

    Example:
        >>> from graphformer.patterns import Causal
        >>> Causal().on(3).to_networkx().edges
        OutEdgeView([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)])
    """
    import networkx

    require(
        graph.num_keys == graph.num_queries,
        "AttentionGraph.to_networkx",
        "graph",
        "have as many keys as queries",
        f"{graph.num_keys} and {graph.num_queries}",
        "networkx.bipartite.from_biadjacency_matrix(graph.to_scipy()) makes one with two kinds of nodes.",
    )
    pairs = graph.edge_index.t().tolist()
    kind = networkx.DiGraph if len(set(map(tuple, pairs))) == len(pairs) else networkx.MultiDiGraph
    out = kind()
    out.add_nodes_from(range(graph.num_queries))
    if graph.relation is None:
        out.add_edges_from(pairs)
    else:
        labels, out.graph["num_relations"] = graph.relation.tolist(), graph.num_relations
        out.add_edges_from((key, query, {"relation": r}) for (key, query), r in zip(pairs, labels, strict=True))
    return out


def _read_values(graph: AttentionGraph, values: Tensor | None, where: str) -> Tensor:
    if values is None:
        return torch.ones(graph.num_edges, device=graph.device)
    found = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
    rule = f"be a tensor of shape [E] = [{graph.num_edges}]"
    fits = isinstance(values, Tensor) and values.shape == (graph.num_edges,)
    require(fits, where, "values", rule, found, "Of attention weights [E, H], pass one head: weights[:, 0].")
    return values
