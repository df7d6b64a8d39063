import model_laws
import pytest
import torch
from torch_geometric import nn as pyg
from torch_geometric.data import Batch

from graphformer import GraphformerError
from graphformer.graphs import Features
from graphformer.models import GPSConfig, build
from graphformer.testing import assert_close

# Sizes of OGB's node and bond features when the papers counted; the chirality has one value more by now.
MOLECULES = Features((119, 4, 12, 12, 10, 6, 6, 2, 2), 0, (5, 6, 2))
PERFORMER = {"channels": 256, "head_channels": 64, "walk_steps": 0}
# Appendix A of Rampasek et al. (2022), and configs/GPS of its repository for the settings.
PUBLISHED = {
    "ZINC": (
        GPSConfig(conv="gine", walk_steps=20, walk_channels=28, pooling="sum"),
        (Features((28,), 0, (4,)), 1),
        423_717,
    ),
    "ogbg-molhiv": (GPSConfig(), (MOLECULES, 1), 558_625),
    "ogbg-molpcba": (GPSConfig(channels=384, layers=5, walk_channels=20, head_hidden=()), (MOLECULES, 128), 9_744_496),
    "ogbg-ppa": (
        GPSConfig(layers=3, heads=8, head_hidden=(256,), **PERFORMER),
        (Features((), 0, (), 7), 37),
        3_434_533,
    ),
    "ogbg-code2": (
        GPSConfig(layers=4, heads=4, head_hidden=(), **PERFORMER),
        (Features((98, 10_030, 21), 0, (2, 2)), 5 * 5002),
        12_454_066,
    ),
    "Peptides-struct": (
        GPSConfig(channels=96, layers=4, walk_steps=0, laplacian=10, head_hidden=()),
        (MOLECULES, 11),
        504_459,
    ),
}
VARIANTS = [
    {"conv": "gine"},
    {"conv": "gin", "pattern": "Edges() | Expander(4)"},
    {"conv": "gcn", "head_hidden": ()},
    {"conv": "gat", "laplacian": 2, "walk_steps": 0},
    {"conv": "none", "pattern": "Edges(self_loops=True).as_relation(0) | Full().as_relation(1)"},
    {"conv": "TransformerConv", "head_channels": 7},
    {"conv": "SAGEConv", "pooling": "sum"},
]


def small(**settings):
    narrow = {"channels": 16, "walk_channels": 4, "laplacian_channels": 4}
    return model_laws.small(GPSConfig, **narrow | settings)


@pytest.mark.parametrize("name", PUBLISHED)
def test_has_the_published_number_of_parameters(name):
    config, arguments, published = PUBLISHED[name]
    count = sum(parameter.numel() for parameter in build(config, *arguments).parameters())
    unread = 2 * config.channels if config.conv == "gatedgcn" else 0  # the norm of edges that nobody reads
    more = 3 * config.layers * config.heads * config.head_channels  # biases that the Performer does not have
    assert count == published - unread + more
    assert abs(count / published - 1) < 0.002


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_every_convolution_and_pattern_keeps_the_laws(settings):
    config = small(**settings)
    model_laws.check_batching(config)
    model_laws.check_gradients(config)
    model_laws.check_degenerate(config)


def test_with_gine_and_full_attention_it_is_a_stack_of_pygs_layers():
    config = small(conv="gine")
    model, prepare = model_laws.make(config)
    batch = Batch.from_data_list([prepare(model_laws.random_sample(*size)) for size in [(6, 9), (1, 0), (9, 14)]])
    x, edges = model.nodes(batch).detach(), model.edges(batch).detach()
    expected = ours = x
    for attention, layer in zip(model.attentions, model.layers, strict=True):
        plain = pyg.GPSConv(16, pyg.GINEConv(layer.local.conv.nn), heads=4)
        maps = (attention.lin_query, attention.lin_key, attention.lin_value)
        with torch.no_grad():
            plain.attn.in_proj_weight.copy_(torch.cat([one.weight for one in maps]))
            plain.attn.in_proj_bias.copy_(torch.cat([one.bias for one in maps]))
        plain.attn.out_proj.load_state_dict(attention.lin_out.state_dict())
        feed_forward = {"0": layer.feed_forward.lin_in, "3": layer.feed_forward.lin_out}
        for place, lin in feed_forward.items():
            plain.mlp[int(place)].load_state_dict(lin.state_dict())
        expected = plain(expected, batch.edge_index, batch.batch, edge_attr=edges)
        ours, _ = layer(ours, batch.edge_index, edges, heard=attention(ours, batch.attention_graph))
        assert_close(ours, expected)


def test_the_default_head_halves_twice():
    widths = [[step.out_features for step in model_laws.make(config)[0].head.lin if hasattr(step, "out_features")]
              for config in (small(), small(head_hidden=[5]))]  # fmt: skip
    assert widths == [[8, 4, model_laws.OUTPUTS], [5, model_laws.OUTPUTS]]


def test_encodings_stand_beside_the_features():
    config = small(laplacian=2)
    model, prepare = model_laws.make(config)
    data = prepare(model_laws.sample(10, model_laws.BONDS))
    model.eval()
    x = model.nodes(data)
    assert x.shape == (10, 16)
    assert_close(x[:, :8], model.nodes.nodes(data))
    assert_close(x[:, 8:12], model.nodes.walk(data.random_walk))
    assert_close(x[:, 12:], model.nodes.laplacian(data.laplacian_eigenvectors, data.laplacian_eigenvalues))


@pytest.mark.parametrize("missing", ["attention_graph", "random_walk", "laplacian_eigenvalues"])
def test_refuses_samples_that_passed_no_transform(missing):
    config = small(laplacian=2)
    model, prepare = model_laws.make(config)
    data = prepare(model_laws.sample(10, model_laws.BONDS))
    del data[missing]
    with pytest.raises(GraphformerError, match=f"GPS: batch must carry {missing}; got none. Pass each sample through"):
        model(data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 62}, "channels must be a multiple of heads = 4; got 62"),
        ({"channels": 62, "head_channels": 8, "conv": "gat"}, "channels must be a multiple of heads = 4; got 62"),
        ({"head_channels": -1}, "head_channels must not be negative; got -1. Pass 0 for channels / heads"),
        ({"walk_channels": 64}, "channels must exceed the encodings' 64; got 64. Lower walk_channels or"),
        ({"laplacian": 3, "laplacian_channels": 48}, "channels must exceed the encodings' 64; got 64"),
        ({"layers": 0}, "layers must be at least 1; got 0"),
        ({"walk_steps": 1.5}, "walk_steps must be an integer; got 1.5. Pass 0 to do without"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\); got 1.0"),
        ({"attention_dropout": -0.1}, r"attention_dropout must lie in \[0, 1\); got -0.1"),
        ({"conv": None}, "conv must be a str; got None. Name a convolution"),
        ({"pattern": 3}, "pattern must be a str; got 3. Write it as text"),
        (
            {"head_hidden": 3},
            "head_hidden must be a list of widths; got 3. Pass a list of widths, .. for a linear head",
        ),
        ({"head_hidden": [4, 0]}, "head_hidden must be at least 1; got 0"),
        ({"pooling": "max"}, "pooling must be one of mean, sum; got 'max'"),
    ],
    ids=str,
)
def test_config_refuses_bad_settings(settings, message):
    with pytest.raises(GraphformerError, match=f"GPSConfig: {message}"):
        GPSConfig(**settings)
