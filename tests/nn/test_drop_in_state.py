"""What a layer says of itself and carries with it, and the laws that its outputs obey."""

import copy
import io
import pickle

import pytest
import torch
import torch_geometric.nn as pyg
from drop_in_cases import (
    C,
    D,
    E,
    F,
    N,
    assert_same,
    counted,
    each_layer,
    some_edges,
    tensors,
    twins,
)

from graphformer import nn as ours
from graphformer.testing import assert_close

pytestmark = pytest.mark.usefixtures("float64")


# ---------------------------------------------------------------- what a layer says of itself


@each_layer
def test_repr_is_pygs(name):
    assert repr(getattr(ours, name)(8, 32, heads=2)) == f"{name}(8, 32, heads=2)"
    assert repr(getattr(ours, name)((8, 16), 32)) == f"{name}((8, 16), 32, heads=1)"
    assert repr(getattr(ours, name)(-1, 4)) == f"{name}(-1, 4, heads=1)"


@each_layer
def test_one_seed_gives_pygs_weights(name):
    layers = []
    for module in (pyg, ours):
        torch.manual_seed(3)
        layers.append(getattr(module, name)((C, 5), D, heads=2, edge_dim=F))
    for theirs, mine in zip(*(layer.state_dict().items() for layer in layers), strict=True):
        assert theirs[0] == mine[0]
        assert torch.equal(theirs[1], mine[1])
    before = copy.deepcopy(layers[1].state_dict())
    layers[1].reset_parameters()
    assert not torch.equal(layers[1].lin_edge.weight, before["lin_edge.weight"])
    torch.manual_seed(3)
    layers[0].reset_parameters()
    torch.manual_seed(3)
    layers[1].reset_parameters()
    assert_same(list(layers[1].state_dict().values()), list(layers[0].state_dict().values()))


@each_layer
def test_state_travels_and_nothing_is_left_behind(name):
    layer, x, edge_index = getattr(ours, name)(C, D, heads=2, edge_dim=F), torch.randn(N, C), some_edges()
    edge_attr, before = torch.randn(E, F), dict(layer.__dict__)
    out = layer(x, edge_index, edge_attr, return_attention_weights=True)[0]
    assert {key: value for key, value in layer.__dict__.items() if value is not before.get(key)} == {}
    assert getattr(layer, "_alpha", None) is None
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    copies = [copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer)), loaded]
    for other in copies:
        assert type(other) is type(layer)
        with counted() as paths:
            assert torch.equal(other(x, edge_index, edge_attr), out)
        assert paths == {"kernel": 1}


@each_layer
def test_lazy_widths_are_taken_from_the_first_input(name):
    x, edge_index, edge_attr = (torch.randn(N, C), torch.randn(N, 5)), some_edges(), torch.randn(E, F)
    for widths, nodes in ((-1, x[0]), ((-1, -1), x)):
        layers = []
        for module in (pyg, ours):
            layer = getattr(module, name)(widths, D, heads=2, edge_dim=-1)
            twin = copy.deepcopy(layer)
            twin.load_state_dict(layer.state_dict())  # still without widths
            layer(nodes, edge_index, edge_attr)
            twin.load_state_dict(layer.state_dict())
            layers.append(twin)
        layers[1].load_state_dict(layers[0].state_dict())
        assert_same(layers[1](nodes, edge_index, edge_attr), layers[0](nodes, edge_index, edge_attr))
        assert layers[1].lin_edge.weight.shape == (2 * D, F)
        assert layers[1].why_unfused() == []


# ---------------------------------------------------------------- laws


@each_layer
def test_order_of_nodes_and_edges(name):
    layer = getattr(ours, name)(C, D, heads=2, edge_dim=F)
    x, edge_index, edge_attr = torch.randn(N, C), some_edges(), torch.randn(E, F)
    out = layer(x, edge_index, edge_attr)
    order = torch.randperm(N)
    assert_close(layer(x[order], order.argsort()[edge_index], edge_attr), out[order])
    shuffle = torch.randperm(E)
    assert_close(layer(x, edge_index[:, shuffle], edge_attr[shuffle]), out)
    with pytest.raises(AssertionError):
        assert_close(layer(x, edge_index, edge_attr[shuffle]), out)


@each_layer
def test_a_batch_is_its_graphs(name):
    layer, counts = getattr(ours, name)(C, D), (3, 1, 6)
    parts = [(torch.randn(n, C), torch.randint(n, (2, 2 * n))) for n in counts]
    starts = [0, 3, 4]
    together = torch.cat([edges + start for (_, edges), start in zip(parts, starts, strict=True)], 1)
    whole = layer(torch.cat([x for x, _ in parts]), together)
    assert_close(whole, torch.cat([layer(x, edges) for x, edges in parts]))


def test_same_can_fail():
    theirs, mine = twins("GATConv")
    x, edge_index = torch.randn(N, C), some_edges()
    with torch.no_grad():
        mine.att_src[0, 0, 0] += 1e-6
    with pytest.raises(AssertionError):
        assert_same(mine(x, edge_index), theirs(x, edge_index))
    with pytest.raises(AssertionError):
        assert_same(tensors(x), [x.float()])
