import model_laws
import pytest
import torch
from torch_geometric.data import Batch

from graphformer import GraphformerError
from graphformer.graphs import Features
from graphformer.models import GRIT, GRITConfig, build
from graphformer.testing import assert_close


def norm(layer, x):
    """A batch norm in training, over the rows."""
    return (x - x.mean(0)) / (
        x.var(0, unbiased=False) + layer.module.eps
    ).sqrt() * layer.module.weight + layer.module.bias


def layer_in_plain_torch(layer, x, pairs, degree):
    """One layer of the paper's equations 2 to 5 on one graph; `pairs` [query, key, C]."""
    num_nodes, channels = x.shape
    heads, width = layer.score_weight.shape
    query, key, value = (
        lin(x).view(num_nodes, heads, width) for lin in (layer.lin_query, layer.lin_key, layer.lin_value)
    )
    both = layer.lin_pair(pairs).view(num_nodes, num_nodes, 2, heads, width)
    factor, summand = both[:, :, 0], both[:, :, 1]
    product = (query[:, None] + key[None, :]) * factor
    active = (product.sign() * product.abs().sqrt() + summand).clamp(min=0)
    scores = torch.einsum("qkhd,hd->qkh", active, layer.score_weight).clamp(-5, 5)
    weights = scores.exp() / scores.exp().sum(1, keepdim=True)
    found = torch.einsum("qkh,khd->qhd", weights, value)
    found = found + torch.einsum("qkh,qkhd,hdc->qhc", weights, active, layer.pair_value)
    scaled = found.flatten(1) * (layer.scaler.offset + layer.scaler.slope * (1 + degree[:, None].double()).log())
    x = norm(layer.norm, x + layer.lin_out(scaled))
    x = norm(layer.feed_forward_norm, x + layer.feed_forward.lin_out(layer.feed_forward.lin_in(x).relu()))
    pairs = (pairs + layer.lin_pair_out(active.flatten(2))).flatten(0, 1)
    return x, norm(layer.pair_norm, pairs)


@pytest.mark.parametrize("factor", [1.0, 30.0], ids=["plain", "clipped"])
def test_a_layer_is_the_published_formula(factor):
    model, prepare = model_laws.make(model_laws.small(GRITConfig))
    layer = model.layers[0].double()
    for weight in (layer.scaler.slope, layer.norm.module.weight, layer.pair_norm.module.bias):
        torch.nn.init.normal_(weight)
    data = prepare(model_laws.sample(10, model_laws.BONDS))
    degree = data.edge_index[0].bincount(minlength=10)
    x, pairs = torch.randn(10, 32).double(), torch.randn(100, 32).double() * factor
    out, out_pairs = layer(x, pairs, degree, data.attention_graph)
    expected, expected_pairs = layer_in_plain_torch(layer, x, pairs.view(10, 10, 32), degree)
    assert_close(out, expected)
    assert_close(out_pairs, expected_pairs)


def test_pairs_start_as_walks_and_edges():
    model, prepare = model_laws.make(model_laws.small(GRITConfig, walk_steps=4))
    samples = [prepare(model_laws.random_sample(size, 12, size)) for size in (5, 1, 8)]
    samples[0].edge_index[:, 1] = samples[0].edge_index[:, 0]  # the same edge twice
    batch = Batch.from_data_list(samples)
    x, pairs = model._embed(batch, batch.attention_graph)
    start, node = 0, 0
    for data in samples:
        size = data.num_nodes
        expected = model.lin_pair_walk(data.relative_random_walk).view(size, size, -1).clone()
        for vector, (source, target) in zip(model.edges(data), data.edge_index.t().tolist(), strict=True):
            expected[target, source] += vector
        assert_close(pairs[start : start + size * size], expected.flatten(0, 1))
        walk = data.relative_random_walk.view(size, size, -1).diagonal().t()
        assert_close(x[node : node + size], model.nodes(data) + model.lin_node_walk(walk))
        start, node = start + size * size, node + size


def test_roots_have_no_gradient_at_zero():
    from graphformer.models.grit import _SignedSqrt

    x = torch.tensor([-4.0, 0.0, 9.0], requires_grad=True)
    out = _SignedSqrt.apply(x)
    assert out.tolist() == [-2, 0, 3]
    out.sum().backward()
    assert x.grad.tolist() == pytest.approx([0.25, 0, 1 / 6])


def test_parameters_are_as_many_as_published():
    """Ma et al. 2023, ZINC: 473,473, with a last update of the pairs that nothing reads: (64 + 1) * 64 + 2 * 64."""
    model = build(GRITConfig(), Features((21,), 0, (4,)), 1)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 473_473 - 65 * 64 - 2 * 64
    assert abs(count / 473_473 - 1) < 0.02


@pytest.mark.parametrize("settings", [{"norm": "layer"}, {"pooling": "mean", "walk_steps": 1}], ids=str)
def test_the_laws_hold_for_every_setting(settings):
    config = model_laws.small(GRITConfig, **settings)
    model_laws.check_permutation(config, "graph")
    model_laws.check_batching(config)
    model_laws.check_degenerate(config)


def test_dropout_is_drawn_in_training_only():
    model, prepare = model_laws.make(model_laws.small(GRITConfig, norm="layer", attention_dropout=0.5))
    data = prepare(model_laws.sample(10, model_laws.BONDS))
    assert len({tuple(model(data)[0].tolist()) for _ in range(4)}) == 4
    model.eval()
    assert len({tuple(model(data)[0].tolist()) for _ in range(4)}) == 1


def test_refuses_samples_that_were_not_prepared():
    model, prepare = model_laws.make(model_laws.small(GRITConfig))
    with pytest.raises(GraphformerError, match="GRIT: batch must carry attention_graph; got none. Pass each sample"):
        model(model_laws.sample(4, model_laws.EMPTY))
    data = prepare(model_laws.sample(4, model_laws.EMPTY))
    del data.relative_random_walk
    with pytest.raises(GraphformerError, match="GRIT: batch must carry relative_random_walk; got none"):
        model(data)
    with pytest.raises(GraphformerError, match="num_outputs must be at least 1; got 0"):
        GRIT(model.config, model.features, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 60}, "GRITConfig: channels must be a multiple of heads = 8; got 60"),
        ({"walk_steps": 0}, "walk_steps must be at least 1; got 0"),
        ({"attention_dropout": 1}, r"attention_dropout must lie in \[0, 1\); got 1"),
        ({"norm": "none"}, "norm must be one of batch, layer; got 'none'"),
        ({"pooling": "last"}, "pooling must be one of sum, mean, max; got 'last'"),
    ],
    ids=str,
)
def test_settings_refuse_bad_values(settings, message):
    with pytest.raises(GraphformerError, match=message):
        GRITConfig(**settings)
