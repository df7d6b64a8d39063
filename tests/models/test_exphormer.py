import math

import model_laws
import pytest
import torch
from torch_geometric.data import Batch

from graphformer import GraphformerError
from graphformer.graphs import Features
from graphformer.models import ExphormerConfig, build
from graphformer.patterns import Expander
from graphformer.testing import assert_close

MOLECULES = Features((119, 4, 12, 12, 10, 6, 6, 2, 2), 0, (5, 6, 2))
# Totals published for LRGB (Shirzad et al. 2023). The settings were inferred, as ones that add up to them; they are not
# checked against the authors' own files.
PUBLISHED = {
    "Peptides-func": (ExphormerConfig(), (MOLECULES, 10), 445_866),
    "Peptides-struct": (ExphormerConfig(channels=88, layers=4, virtual_nodes=8), (MOLECULES, 11), 426_427),
    "PascalVOC-SP": (
        ExphormerConfig(channels=96, layers=4, heads=8, head_hidden=(96, 96)),
        (Features((), 14, (), 2), 21, "node"),
        509_301,
    ),
}
VARIANTS = [
    {"expander": 0},
    {"virtual_nodes": 0},
    {"virtual_nodes": 3, "conv": "gcn"},
    {"expander": 0, "virtual_nodes": 0, "conv": "none", "laplacian": 0, "walk_steps": 4},
]


def small(**settings):
    narrow = {"channels": 16, "walk_channels": 4, "laplacian_channels": 4}
    return model_laws.small(ExphormerConfig, **narrow | settings)


@pytest.mark.parametrize("name", PUBLISHED)
def test_inferred_settings_add_up_to_the_published_totals(name):
    config, arguments, published = PUBLISHED[name]
    count = sum(parameter.numel() for parameter in build(config, *arguments).parameters())
    assert count == published - 2 * config.channels  # the norm of edges that nobody reads


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_with_and_without_its_parts_it_keeps_the_laws(settings):
    config = small(**settings)
    model_laws.check_batching(config, "node")
    model_laws.check_gradients(config, "node")
    model_laws.check_degenerate(config)


@pytest.mark.parametrize("settings", [{}, *VARIANTS], ids=str)
def test_attention_is_the_published_formula(settings):
    config = small(**{"virtual_nodes": 2, "expander": 4, "layers": 1, **settings})
    model, prepare = model_laws.make(config)
    model.double()
    samples = [prepare(model_laws.random_sample(*size, seed=3)) for size in [(13, 20), (1, 0), (5, 4)]]
    batch = Batch.from_data_list(samples)
    seen = []
    model.attentions[0].register_forward_hook(lambda module, given, out: seen.append((given[:2], out)))
    model(batch)
    (x, virtual), (heard, heard_by_virtual) = seen[0]
    everyone = x if virtual is None else torch.cat((x, virtual))
    expected = dense_attention(model.attentions[0], everyone, pairs_of(model, config, samples, batch))
    assert_close(heard, expected[: x.shape[0]])
    if virtual is not None:
        assert virtual.shape[0] == 3 * config.virtual_nodes
        assert_close(heard_by_virtual, expected[x.shape[0] :])


def pairs_of(model, config, samples, batch):
    """(key, query, vector) of every pair, written out one by one; virtual nodes follow the nodes."""
    pairs = [(*edge, vector) for edge, vector in zip(batch.edge_index.t().tolist(), model.edges(batch), strict=True)]
    start = 0
    for number, data in enumerate(samples):
        if config.expander:
            ends = Expander(config.expander).on(data.num_nodes).edge_index + start
            pairs += [(key, query, model.expander[0]) for key, query in ends.t().tolist()]
        for hub in range(config.virtual_nodes):
            place = batch.num_nodes + number * config.virtual_nodes + hub
            for node in range(start, start + data.num_nodes):
                pairs += [(place, node, model.from_virtual[hub]), (node, place, model.to_virtual[hub])]
        start += data.num_nodes
    return pairs


def dense_attention(attention, x, pairs):
    """Softmax of q . (k * W e) / sqrt(D) over the pairs of each query, head by head."""
    query, key, value = (lin(x) for lin in (attention.lin_query, attention.lin_key, attention.lin_value))
    width = x.shape[1] // attention.heads
    out = torch.zeros_like(x)
    for row in range(x.shape[0]):
        into = [(other, attention.lin_edge(vector)) for other, asks, vector in pairs if asks == row]
        for head in range(attention.heads) if into else ():
            part = slice(head * width, (head + 1) * width)
            products = [(query[row] * key[other] * vector)[part].sum() for other, vector in into]
            weights = (torch.stack(products) / math.sqrt(width)).softmax(0)
            out[row, part] = sum(w * value[other, part] for w, (other, _) in zip(weights, into, strict=True))
    return out


def test_virtual_nodes_become_what_they_hear():
    model, prepare = model_laws.make(small(virtual_nodes=2))
    batch = Batch.from_data_list([prepare(model_laws.random_sample(6, 9)), prepare(model_laws.random_sample(4, 5))])
    seen = []
    for attention in model.attentions:
        attention.register_forward_hook(lambda module, given, out: seen.append((given[1], out[1])))
    model(batch)
    assert torch.equal(seen[0][0], model.virtual.repeat(2, 1))
    assert torch.equal(seen[1][0], seen[0][1])


def test_nodes_far_apart_hear_one_another_through_expander_and_virtual_node():
    chain = torch.arange(29).repeat(2, 1) + torch.tensor([[0], [1]])
    data = model_laws.sample(30, chain)
    changed = data.clone()
    changed.x[0] = (changed.x[0] + 1) % torch.tensor(model_laws.FEATURES.node_categories)
    reaches = {}
    for settings in ({}, {"virtual_nodes": 0}, {"expander": 0}, {"expander": 0, "virtual_nodes": 0}):
        model, prepare = model_laws.make(small(**settings), "node")
        model.eval()
        moved = (model(prepare(data)) - model(prepare(changed))).abs().amax(1) > 1e-6
        reaches[tuple(settings)] = int(moved.sum())
    assert reaches[()] == reaches[("expander",)] == 30
    assert 3 < reaches[("virtual_nodes",)] < 30  # two layers, six neighbours
    assert reaches[("expander", "virtual_nodes")] == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expander": 3}, "expander must be even; got 3. Each random cycle gives a node two neighbours"),
        ({"expander": -2}, "expander must not be negative; got -2. Pass 0 to do without"),
        ({"virtual_nodes": 0.5}, "virtual_nodes must be an integer; got 0.5"),
        ({"channels": 62}, "channels must be a multiple of heads = 4; got 62"),
        ({"pooling": "max"}, "pooling must be one of mean, sum; got 'max'"),
    ],
    ids=str,
)
def test_config_refuses_bad_settings(settings, message):
    with pytest.raises(GraphformerError, match=f"ExphormerConfig: {message}"):
        ExphormerConfig(**settings)
