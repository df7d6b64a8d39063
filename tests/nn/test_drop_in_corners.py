"""The corners of PyG's attention layers: edges that are odd or none, features, two node sets and sizes."""

import pytest
import torch
from drop_in_cases import (
    C,
    D,
    E,
    F,
    N,
    assert_same,
    counted,
    distinct_edges,
    each_gat,
    each_layer,
    some_edges,
    sparse_warnings,
    twins,
    values_of,
)
from torch_geometric import EdgeIndex

from graphformer import nn as ours
from graphformer.testing import assert_close

pytestmark = [pytest.mark.usefixtures("float64"), sparse_warnings]


# ---------------------------------------------------------------- edges that are odd, and none at all


ODD = {
    "no edges": lambda: torch.empty(2, 0, dtype=torch.int64),
    "one loop": lambda: torch.tensor([[2], [2]]),
    "only loops": lambda: torch.arange(N).expand(2, N),
    "loops twice and others": lambda: torch.tensor([[0, 0, 1, 2, 3], [0, 0, 1, 1, 2]]),
    "one pair five times": lambda: torch.tensor([[3] * 5, [1] * 5]),
    "all to one": lambda: torch.stack((torch.arange(N), torch.full((N,), 4))),
    "int32": lambda: some_edges().int(),
    "not contiguous": lambda: some_edges().t().contiguous().t(),
    "every second": lambda: some_edges()[:, ::2],
}


@each_layer
@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("edge_dim", [None, F])
def test_odd_edges(name, odd, edge_dim):
    edge_index, x = ODD[odd](), torch.randn(N, C, requires_grad=True)
    edge_attr = None if edge_dim is None else torch.randn(edge_index.shape[1], F, requires_grad=True)
    found = []
    theirs, mine = twins(name, edge_dim=edge_dim)
    # torch 2.15 gives PyG's layers wrong gradients for int32 indices; ours are those of the same indices in int64.
    for layer, edges in ((theirs, edge_index.long()), (mine, edge_index)):
        out, (pairs, alpha) = layer(x, edges, edge_attr, return_attention_weights=True)
        assert pairs.dtype == (torch.int64 if layer is theirs or name != "TransformerConv" else edge_index.dtype)
        leaves = [x, *([] if edge_attr is None else [edge_attr])]
        grads = torch.autograd.grad(out.square().sum(), leaves, allow_unused=True, materialize_grads=True)
        found.append((out, pairs.long(), alpha, *grads))
    assert_same(found[1], found[0])
    assert all(bool(tensor.isfinite().all()) for tensor in found[1])


@each_layer
def test_no_nodes(name):
    for options in ({}, {"edge_dim": F}):
        theirs, mine = twins(name, **options)
        edge_attr = torch.empty(0, F) if options else None
        arguments = torch.empty(0, C), torch.empty(2, 0, dtype=torch.int64), edge_attr
        assert mine(*arguments).shape == (0, 2 * D)
        assert_same(mine(*arguments, return_attention_weights=True), theirs(*arguments, return_attention_weights=True))


@each_layer
def test_an_empty_list_of_edges_is_float_by_torchs_default(name):
    layer, x = getattr(ours, name)(C, D), torch.randn(N, C)
    assert_same(layer(x, torch.tensor([[], []])), layer(x, torch.empty(2, 0, dtype=torch.int64)))


@each_layer
def test_isolated_nodes_get_what_is_left_of_them(name):
    layer, x = getattr(ours, name)(C, D, heads=2), torch.randn(N, C)
    out = layer(x, torch.tensor([[0], [1]]))
    left = layer.lin_skip(x) if name == "TransformerConv" else values_of(layer, x).flatten(1) + layer.bias
    keep = torch.arange(N) != 1
    assert_close(out[keep], left[keep])


@each_layer
def test_target_to_source_reads_row_0_as_targets(name):
    (_, forward), (_, backward) = twins(name, edge_dim=F), twins(name, edge_dim=F, flow="target_to_source")
    backward.load_state_dict(forward.state_dict())
    x, edge_index, edge_attr = torch.randn(N, C), distinct_edges(), torch.randn(E, F)
    if name != "TransformerConv":
        forward.fill_value = backward.fill_value = 0.5  # a mean is taken over row 1, whatever the flow, as in PyG
    out, (_, alpha) = forward(x, edge_index, edge_attr, return_attention_weights=True)
    reverse, (_, alpha_back) = backward(x, edge_index.flip(0), edge_attr, return_attention_weights=True)
    assert_same((reverse, alpha_back), (out, alpha))


# ---------------------------------------------------------------- edge features


@each_gat
def test_one_feature_an_edge_may_come_as_a_vector(name):
    for fill in ("mean", "max", 0.5):
        theirs, mine = twins(name, edge_dim=1, fill_value=fill)
        x, edge_index, length = torch.randn(N, C), some_edges(), torch.rand(E)
        assert_same(mine(x, edge_index, length), theirs(x, edge_index, length))
        assert_same(mine(x, edge_index, length), mine(x, edge_index, length[:, None]))


def test_transformer_conv_takes_a_vector_too():
    _, layer = twins("TransformerConv", edge_dim=1)
    x, edge_index, length = torch.randn(N, C), some_edges(), torch.rand(E)
    assert_same(layer(x, edge_index, length), layer(x, edge_index, length[:, None]))


def test_transformer_conv_adds_features_that_it_has_no_map_for():
    """PyG adds them to the values as they are; so do we, by PyG's own messages."""
    theirs, mine = twins("TransformerConv")
    x, edge_index = torch.randn(N, C), some_edges()
    for shape in ((E, 2, D), (E, 1, 1)):
        edge_attr = torch.randn(shape)
        with counted() as paths:
            found = mine(x, edge_index, edge_attr)
        assert paths == {"messages": 1}
        assert_same(found, theirs(x, edge_index, edge_attr))


def test_gat_conv_does_not_read_features_without_edge_dim():
    theirs, mine = twins("GATConv")
    x, edge_index, edge_attr = torch.randn(N, C), some_edges(), torch.randn(E, F)
    assert_same(mine(x, edge_index, edge_attr), theirs(x, edge_index, edge_attr))
    assert_same(mine(x, edge_index, edge_attr), mine(x, edge_index))


@each_gat
def test_gats_do_without_features_that_are_not_given(name):
    theirs, mine = twins(name, edge_dim=F)
    x, edge_index = torch.randn(N, C), some_edges()
    assert_same(mine(x, edge_index), theirs(x, edge_index))


@each_gat
def test_loops_of_more_targets_than_sources(name):
    """PyG leaves its room when it fills the loops' features; they are those of the first targets."""
    _, layer = twins(name, (C, 5), edge_dim=F)
    x, edge_attr = (torch.randn(3, C), torch.randn(N, 5)), torch.randn(E, F)
    edge_index = distinct_edges(3, N, E - 1)
    loop_free = edge_index[:, edge_index[0] != edge_index[1]]
    edge_attr = torch.randn(loop_free.shape[1], F)
    mean = torch.stack(
        [edge_attr[loop_free[1] == i].mean(0) if (loop_free[1] == i).any() else torch.zeros(F) for i in range(3)]
    )
    looped = torch.cat((loop_free, torch.arange(3).expand(2, 3)), 1)
    expected = layer(x, loop_free, edge_attr)
    layer.add_self_loops = False
    assert_same(expected, layer(x, looped, torch.cat((edge_attr, mean))))


# ---------------------------------------------------------------- two node sets, sizes


@each_layer
def test_two_sets_of_any_sizes(name):
    for num_sources, num_targets in ((N, 5), (4, N), (N, N)):
        theirs, mine = twins(name, (C, 5))
        x = torch.randn(num_sources, C), torch.randn(num_targets, 5)
        edge_index = some_edges(num_sources, num_targets)
        for pair in (x, list(x)):
            assert_same(
                mine(pair, edge_index, return_attention_weights=True),
                theirs(pair, edge_index, return_attention_weights=True),
            )


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("widths", [(C, 5), C], ids=str)
def test_gat_conv_attends_without_targets(loops, residual, widths):
    theirs, mine = twins("GATConv", widths, add_self_loops=loops, residual=residual)
    x, edge_index = (torch.randn(N, C), None), distinct_edges(N, 5)
    for size in (None, (N, 5)):
        found, expected = (layer(x, edge_index, size=size, return_attention_weights=True) for layer in (mine, theirs))
        assert_same(found, expected)
    matrix = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(E), (5, N)).coalesce()
    for adjacency in (matrix, matrix.to_sparse_csr()):
        assert_same(mine(x, adjacency), theirs(x, adjacency))
        assert mine(x, adjacency).shape[0] == 5
    if not loops:
        known = EdgeIndex(edge_index, sparse_size=(N, 5))
        assert_same(mine(x, known), theirs(x, known))


def test_gat_conv_reads_size():
    theirs, mine = twins("GATConv", (C, 5))
    x, edge_index = (torch.randn(N, C), torch.randn(4, 5)), some_edges(N, 4)
    for size in ((N, 4), [N, 4]):
        assert_same(mine(x, edge_index, size=size), theirs(x, edge_index, size=size))
