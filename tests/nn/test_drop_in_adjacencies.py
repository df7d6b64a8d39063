"""Every kind of adjacency that PyG takes, and attention graphs in its place."""

import pytest
import torch
from drop_in_cases import (
    GATS,
    C,
    D,
    E,
    F,
    N,
    as_matrix,
    assert_same,
    counted,
    distinct_edges,
    each_layer,
    no_loops,
    some_edges,
    sparse_warnings,
    twins,
)
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from graphformer import AttentionGraph, GraphformerError
from graphformer import nn as ours
from graphformer.patterns import Edges, Expander, Window

pytestmark = [pytest.mark.usefixtures("float64"), sparse_warnings]


# ---------------------------------------------------------------- EdgeIndex


@each_layer
def test_edge_index_of_every_kind(name):
    edge_index, x = distinct_edges(), torch.randn(N, C)
    by_source = edge_index[:, edge_index[0].argsort(stable=True)]
    theirs, mine = twins(name, edge_dim=F)
    for known in (
        EdgeIndex(edge_index),
        EdgeIndex(edge_index, sparse_size=(N, N)),
        EdgeIndex(edge_index, sparse_size=(N, N), sort_order="col"),
        EdgeIndex(edge_index, sparse_size=(N, N), sort_order="col").fill_cache_(),
        EdgeIndex(by_source, sparse_size=(N, N), sort_order="row").fill_cache_(),
        EdgeIndex(edge_index, sparse_size=(N, N)).sort_by("row").values,
        EdgeIndex(edge_index, sparse_size=(None, N)),
    ):
        edge_attr = torch.randn(E, F)
        expected, found = (layer(x, known, edge_attr, return_attention_weights=True) for layer in (theirs, mine))
        assert type(found[1][0]) is type(expected[1][0]) is EdgeIndex
        assert found[1][0].sparse_size() == expected[1][0].sparse_size()
        assert_same(
            [found[0], found[1][0].as_tensor(), found[1][1]], [expected[0], expected[1][0].as_tensor(), expected[1][1]]
        )
    assert_same(mine(x, known, edge_attr), mine(x, edge_index, edge_attr))


@each_layer
def test_what_is_written_to_the_tensor_in_an_edge_index_is_seen(name):
    layer, x, plain = getattr(ours, name)(C, D), torch.randn(N, C), distinct_edges()
    known = EdgeIndex(plain, sparse_size=(N, N))
    layer(x, known)
    plain.copy_(plain.flip(0))
    assert_same(layer(x, known), layer(x, plain.clone()))


# ---------------------------------------------------------------- torch's sparse matrices


@each_layer
@pytest.mark.parametrize("layout", ["coo", "csr"])
@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("edge_dim", [None, F])
def test_matrices_hold_edges_and_their_features(name, layout, loops, edge_dim):
    options = {} if name == "TransformerConv" else {"add_self_loops": loops}
    theirs, mine = twins(name, edge_dim=edge_dim, **options)
    edge_index, x = distinct_edges(), torch.randn(N, C)
    found = []
    # PyG cannot differentiate its loops in a matrix of this layout.
    has_grad = bool(edge_dim) and not (name in GATS and loops and layout == "coo")
    for layer in (theirs, mine):
        torch.manual_seed(5)
        values = torch.randn((E, F) if edge_dim else (E,), requires_grad=has_grad)
        matrix = as_matrix(edge_index, values, layout)
        # PyG cannot return weights in a matrix that holds features.
        asks = {} if edge_dim and name != "TransformerConv" else {"return_attention_weights": True}
        result = layer(x, matrix, **asks)
        out = result[0] if asks else result
        grads = torch.autograd.grad(out.square().sum(), values) if has_grad else ()
        found.append((result, *grads))
    assert_same(found[1], found[0])
    if asks:
        assert result[1][0].layout == matrix.layout
    else:
        out, (where, alpha) = mine(x, matrix, return_attention_weights=True)
        assert_same(out, result)
        assert where.layout == matrix.layout
        assert where.shape == (N, N, 2)
        assert_same(where.to_dense().sum(1), torch.zeros(N, 2) + (where.to_dense() > 0).any(1))
        assert torch.equal(where.values(), alpha)


@pytest.mark.parametrize("name", GATS)
def test_features_beside_a_matrix_go_by_its_entries(name):
    theirs, mine = twins(name, edge_dim=F, add_self_loops=False)
    edge_index, edge_attr, x = distinct_edges(), torch.randn(E, F), torch.randn(N, C)
    matrix = as_matrix(edge_index, torch.ones(E), "csr")
    assert_same(mine(x, matrix, edge_attr), theirs(x, matrix, edge_attr))
    assert_same(mine(x, matrix, edge_attr), mine(x, edge_index, edge_attr))


@each_layer
def test_matrices_that_pyg_does_not_read(name):
    """By columns and uncoalesced: features and weights are in the order in which the entries are stored."""
    layer = getattr(ours, name)(C, D, edge_dim=F, **no_loops(name))
    edge_index, x = distinct_edges()[:, torch.randperm(E)], torch.randn(N, C)
    values = torch.randn(E, F)
    expected, (_, alpha) = layer(x, edge_index, values, return_attention_weights=True)

    loose = torch.sparse_coo_tensor(edge_index.flip(0), values, (N, N, F))
    out, (_, found) = layer(x, loose, return_attention_weights=True)
    assert_same((out, found), (expected, alpha))
    assert not loose.is_coalesced()
    with pytest.raises(GraphformerError, match=f"{name}: edge_index must be coalesced where its values have gradients"):
        layer(x, loose.requires_grad_())

    order = (edge_index[0] * N + edge_index[1]).argsort()
    ptr = torch.zeros(N + 1, dtype=torch.int64)
    ptr[1:] = torch.bincount(edge_index[0], minlength=N).cumsum(0)
    by_column = torch.sparse_csc_tensor(ptr, edge_index[1, order], values[order], (N, N, F))
    out, (where, found) = layer(x, by_column, return_attention_weights=True)
    assert_same((out, found), (expected, alpha[order]))
    assert where.layout == torch.sparse_csc


@each_layer
def test_an_uncoalesced_matrix_stays_one_and_its_copies_count(name):
    # Loops would make copies one, as in PyG.
    layer, x = getattr(ours, name)(C, D, **no_loops(name)), torch.randn(N, C)
    edge_index = torch.tensor([[3, 3, 1, 0], [0, 0, 2, 5]])
    matrix = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(4), (N, N))
    assert_same(layer(x, matrix), layer(x, edge_index))
    assert not matrix.is_coalesced()


def test_transformer_conv_adds_stored_features_that_it_has_no_map_for():
    theirs, mine = twins("TransformerConv")
    edge_index, values, x = distinct_edges(), torch.randn(E, 1, 1), torch.randn(N, C)
    matrix = as_matrix(edge_index, values, "coo")
    with counted() as paths:
        found = mine(x, matrix)
    assert paths == {"messages": 1}
    assert_same(found, theirs(x, matrix))


@each_layer
def test_sparse_tensors(name):
    torch_sparse = pytest.importorskip("torch_sparse", reason="torch-sparse is built from source; not installed here")
    edge_index, x = distinct_edges(), torch.randn(N, C)
    plain = torch_sparse.SparseTensor.from_edge_index(edge_index, sparse_sizes=(N, N)).t()
    theirs, mine = twins(name)
    found, expected = (layer(x, plain, return_attention_weights=True) for layer in (mine, theirs))
    assert_same(found, expected)
    assert_same(mine(x, plain), mine(x, edge_index))
    bipartite = torch_sparse.SparseTensor.from_edge_index(some_edges(N, 5), sparse_sizes=(N, 5)).t()
    theirs, mine = twins(name, (C, 5))
    pair = (x, torch.randn(5, 5))
    assert_same(mine(pair, bipartite), theirs(pair, bipartite))
    if name == "GATConv":
        assert_same(mine((x, None), bipartite), theirs((x, None), bipartite))

    theirs, mine = twins(name, edge_dim=F, **no_loops(name))
    edge_attr = torch.randn(E, F, requires_grad=True)
    found = []
    for layer in (mine, theirs):
        valued = torch_sparse.SparseTensor.from_edge_index(edge_index, edge_attr, (N, N)).t()
        out = layer(x, valued)
        found.append((out, *torch.autograd.grad(out.square().sum(), edge_attr)))
    assert_same(*found)
    if name != "TransformerConv":
        for layer in twins(name, edge_dim=F):
            with pytest.raises(NotImplementedError):
                layer(x, valued)
    for layer in twins(name, flow="target_to_source"):
        with pytest.raises(ValueError, match='Flow direction "target_to_source" is invalid'):
            layer(x, plain)


# ---------------------------------------------------------------- attention graphs in the place of an edge index


def unfuse(layer):
    layer.register_propagate_forward_hook(lambda *_: None)
    return layer


@each_layer
@pytest.mark.parametrize("unfused", [False, True])
def test_an_attention_graph_is_its_pairs(name, unfused):
    layer, x = getattr(ours, name)(C, D, heads=2, edge_dim=F), torch.randn(N, C)
    graph = Window(2).on(N)
    edge_attr = torch.randn(graph.num_edges, F)
    expected = layer(x, graph.edge_index.clone(), edge_attr, return_attention_weights=True)
    if unfused:
        unfuse(layer)
    with counted() as paths:
        found = layer(x, graph, edge_attr, return_attention_weights=True)
    assert paths == ({"messages": 1} if unfused else {"kernel": 1})
    assert_same(found, expected)


@each_layer
@pytest.mark.parametrize("unfused", [False, True])
def test_features_follow_the_node_sets_own_edges(name, unfused):
    data = Data(edge_index=distinct_edges(), num_nodes=N)
    graph = (Edges() | Expander(degree=4, seed=1)).on(data)
    assert graph.num_edges > graph.num_own_edges == E
    layer, x, edge_attr = getattr(ours, name)(C, D, heads=2, edge_dim=F), torch.randn(N, C), torch.randn(E, F)
    dense = torch.zeros(N, N, F)  # by (source, target): the node set's features, zeros elsewhere
    dense[data.edge_index[0], data.edge_index[1]] = edge_attr
    pairs = graph.edge_index.clone()
    expected = layer(x, pairs, dense[pairs[0], pairs[1]])
    if unfused:
        unfuse(layer)
    assert_same(layer(x, graph, edge_attr), expected)
    with pytest.raises(AssertionError):
        assert_same(layer(x, graph, edge_attr.roll(1, 0)), expected)
    with pytest.raises(GraphformerError, match=rf"{name}: edge_attr must have E = {E} rows; got \[20, 3\]"):
        layer(x, graph, torch.randn(E + 1, F))


@each_layer
@pytest.mark.parametrize("unfused", [False, True])
def test_attention_graphs_that_do_not_fit(name, unfused):
    layer = getattr(ours, name)(C, D)
    reverse = getattr(ours, name)(C, D, flow="target_to_source")
    if unfused:
        unfuse(layer), unfuse(reverse)
    with pytest.raises(GraphformerError, match=rf"{name}: edge_index must have .* \(7, 7\) like x; got \(9, 9\)"):
        layer(torch.randn(N, C), Window(1).on(9))
    with pytest.raises(
        GraphformerError, match=f'{name}: edge_index must be an edge index .* "target_to_source"; got Att'
    ):
        reverse(torch.randn(N, C), Window(1).on(N))


def test_gat_conv_attends_over_a_graph_of_two_sets_without_targets():
    layer, x = ours.GATConv((C, 5), D), torch.randn(N, C)
    graph = AttentionGraph.from_edge_index(distinct_edges(N, 5), size=(N, 5))
    assert_same(layer((x, None), graph), layer((x, None), graph.edge_index.clone(), size=(N, 5)))
