"""The attention weights that a layer returns, and dropout, which acts on them."""

import pytest
import torch
from drop_in_cases import C, D, N, assert_same, each_layer, no_skip, some_edges, twins, values_of

from graphformer import nn as ours
from graphformer.testing import assert_close

pytestmark = pytest.mark.usefixtures("float64")


@each_layer
def test_weights_are_returned_as_pyg_returns_them(name):
    theirs, mine = twins(name)
    x, edge_index = torch.randn(N, C), some_edges()
    for asked in (None, False, True):
        expected, found = (layer(x, edge_index, return_attention_weights=asked) for layer in (theirs, mine))
        assert type(found) is type(expected)
        assert isinstance(found, tuple) == (asked is True or (asked is False and name == "TransformerConv"))
        assert_same(found, expected)
    out, (pairs, alpha) = mine(x, edge_index, return_attention_weights=True)
    assert torch.equal(out, mine(x, edge_index))
    assert float(alpha.detach().min()) >= 0
    assert float(alpha.detach().max()) <= 1
    total = torch.zeros(N, 2).index_add(0, pairs[1], alpha)
    has_pairs = torch.bincount(pairs[1], minlength=N) > 0
    assert_close(total, has_pairs.to(total.dtype)[:, None].expand(-1, 2))
    assert bool(has_pairs.all()) == (name != "TransformerConv")


@each_layer
def test_gradients_flow_through_the_weights(name):
    """Of a loss on the weights, such as their entropy, and of one on the output and the weights together."""
    x, edge_index, found = torch.randn(N, C, requires_grad=True), some_edges(), []
    for layer in twins(name):
        out, (_, alpha) = layer(x, edge_index, return_attention_weights=True)
        entropy = -(alpha * (alpha + 1e-9).log()).sum()
        leaves = [x, *layer.parameters()]
        grads = [
            torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
            for loss in (entropy, entropy + out.square().sum())
        ]
        found.append(grads)
    assert_same(found[1], found[0])
    assert float(found[1][0][0].abs().max()) > 0


@each_layer
@pytest.mark.parametrize("training", [True, False])
def test_the_weights_are_those_of_the_output(name, training):
    drops = training and name != "TransformerConv"  # whose weights are those before dropout
    layer = getattr(ours, name)(C, D, heads=2, dropout=0.5 if drops else 0.0, bias=False, **no_skip(name))
    x, edge_index = torch.randn(N, C), some_edges()
    out, (pairs, alpha) = layer.train(training)(x, edge_index, return_attention_weights=True)
    assert_close(
        out.view(N, 2, D),
        torch.zeros(N, 2, D).index_add(0, pairs[1], alpha[:, :, None] * values_of(layer, x)[pairs[0]]),
    )
    assert bool((alpha == 0).any()) == drops


@each_layer
def test_dropout_has_its_probability_and_keeps_the_mean(name):
    """Over many targets that attend alike, the share of weights dropped and the mean are those of the probability."""
    count, p = 4000, 0.3
    layer = getattr(ours, name)(1, 1, dropout=p, bias=False, **no_skip(name))
    x = torch.ones(2 * count, 1)
    edge_index = torch.stack((torch.arange(count) + count, torch.arange(count)))
    if name != "TransformerConv":
        layer.add_self_loops = False
    with torch.no_grad():
        whole = layer.eval()(x, edge_index)[:count]
        first, second = layer.train()(x, edge_index)[:count], layer(x, edge_index)[:count]
    ratio = first / whole
    kept = ratio != 0
    assert_close(ratio[kept], torch.full_like(ratio[kept], 1 / (1 - p)))
    assert abs(float((~kept).double().mean()) - p) < 4 * (p * (1 - p) / count) ** 0.5
    assert not torch.equal(first, second)
    assert torch.equal(layer.eval()(x, edge_index)[:count], whole)


@each_layer
def test_dropout_follows_torchs_seed(name):
    layer, x, edge_index = getattr(ours, name)(C, D, dropout=0.5), torch.randn(N, C), some_edges()
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(layer(x, edge_index))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


@each_layer
def test_dropout_of_everything_leaves_what_pyg_leaves(name):
    theirs, mine = twins(name, dropout=1.0)
    x, edge_index = torch.randn(N, C), some_edges()
    assert_same(mine(x, edge_index), theirs(x, edge_index))
    assert mine.why_unfused() == ["dropout leaves no weight"]
