import model_laws
import networkx as nx
import pytest
import torch
from torch_geometric.data import Batch

from graphformer import GraphformerError
from graphformer.graphs import Features
from graphformer.models import Graphormer, GraphormerConfig, build
from graphformer.testing import assert_close

# Two components, one a ring of five, so that each pair has at most one shortest path.
ONE_PATH = torch.tensor([[0, 1, 2, 3, 4, 2, 5, 6, 8], [1, 2, 3, 4, 0, 5, 6, 7, 9]])
TWO_PATHS = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])


def in_plain_torch(model, data):
    """The published model on one graph: an [n + 1, n + 1] bias a head, made pair by pair; the graph's node last."""
    config, num_nodes = model.config, data.num_nodes
    heads, width = config.heads, config.channels // config.heads
    graph = nx.DiGraph()
    graph.add_nodes_from(range(num_nodes))
    for edge, pair in enumerate(data.edge_index.t().tolist()):
        graph.add_edge(*pair, id=edge)
    vectors = sum(
        table.weight[column] for table, column in zip(model.edges.embeddings, data.edge_attr.t(), strict=True)
    )
    vectors = vectors / data.edge_attr.shape[1]
    bias = torch.zeros(num_nodes + 1, num_nodes + 1, heads, dtype=vectors.dtype)
    bias[:, -1] = bias[-1] = model.relation_bias[config.max_distance + 2]
    for query in range(num_nodes):
        for key in range(num_nodes):
            if not nx.has_path(graph, key, query):
                bias[query, key] = model.relation_bias[config.max_distance + 1]
                continue
            paths = list(nx.all_shortest_paths(graph, key, query))
            hops = len(paths[0]) - 1
            bias[query, key] = model.relation_bias[min(hops, config.max_distance)]
            for path in paths:
                edges = [graph[a][b]["id"] for a, b in nx.utils.pairwise(path)][::-1][: config.max_hops]
                for place, edge in enumerate(edges):
                    bias[query, key] += vectors[edge] @ model.path_weight[place] / len(edges) / len(paths)
    x = sum(table.weight[column] for table, column in zip(model.nodes.embeddings, data.x.t(), strict=True))
    degree = torch.bincount(data.edge_index[0], minlength=num_nodes).clamp(max=config.max_degree)
    x = torch.cat((x + model.in_degree.weight[degree] + model.out_degree.weight[degree], model.graph_node))
    for layer in model.layers:
        query, key, value = layer.lin_in(layer.norm(x)).view(num_nodes + 1, 3, heads, width).unbind(1)
        scores = torch.einsum("ihd,jhd->ijh", query, key) / width**0.5 + bias
        x = x + layer.lin_out(torch.einsum("ijh,jhd->ihd", scores.softmax(1), value).flatten(1))
        hidden = torch.nn.functional.gelu(layer.feed_forward.lin_in(layer.feed_forward_norm(x)))
        x = x + layer.feed_forward.lin_out(hidden)
    return model.head.lin(model.norm(x)[-1:])


@pytest.mark.parametrize("bonds", [ONE_PATH, TWO_PATHS], ids=["one path", "two paths"])
@pytest.mark.parametrize("settings", [{}, {"max_distance": 2, "max_hops": 2, "max_degree": 2}], ids=str)
def test_it_is_the_published_formula(bonds, settings):
    model, prepare = model_laws.make(model_laws.small(GraphormerConfig, **settings))
    model.double().eval()
    for weight in model.parameters():  # the published spread hardly tells the biases
        torch.nn.init.normal_(weight, std=0.4)
    data = model_laws.sample(10, bonds)
    batch = Batch.from_data_list([prepare(model_laws.sample(4, TWO_PATHS, seed=1)), prepare(data)])
    assert_close(model(batch)[1:], in_plain_torch(model, data))


def test_parameters_are_as_many_as_published():
    """Ying et al. 2021, ZINC, slim: 489,321, which leaves the last norm (2 * 80) out.

    Its tables have 64 atoms, 64 bonds and 40 distances, and 40 places along a path, of which 20 are ever read.
    """
    config = GraphormerConfig(max_distance=38, max_hops=20)
    model = build(config, Features((64,), 0, (64,)), 1)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 489_321 + 2 * 80 - 20 * 8 * 8
    assert abs(count / 489_321 - 1) < 0.02


def test_parameters_of_the_base_model_are_as_many_as_published():
    """Ying et al. 2021, PCQM4M, base: 47.1 million, with tables of 512 values for each feature, degree and distance."""
    config = GraphormerConfig(channels=768, heads=32, max_degree=511, max_distance=510)
    with torch.device("meta"):
        model = build(config, Features((512,) * 9, 0, (512,) * 3), 1)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert abs(count / 47.1e6 - 1) < 0.005


def test_without_edge_features_no_bias_of_pairs_is_made():
    for features, hops in ((Features((5, 3)), 5), (model_laws.FEATURES, 0)):
        config = model_laws.small(GraphormerConfig, max_hops=hops)
        model, prepare = model_laws.make(config, features=features)
        assert model.edges is None
        assert model(prepare(model_laws.sample(4, TWO_PATHS))).shape == (1, model_laws.OUTPUTS)
    model_laws.check_permutation(config, "node")


def test_nodes_are_those_of_the_samples():
    model, prepare = model_laws.make(model_laws.small(GraphormerConfig), "node")
    model.eval()
    samples = [model_laws.random_sample(size, 9, size) for size in (5, 1, 7)]
    batch = Batch.from_data_list([prepare(data) for data in samples])
    out = model(batch)
    assert out.shape == (13, model_laws.OUTPUTS)
    batch.target_index = torch.tensor([0, 4, 6, 8, 14])  # each graph before has one node more
    assert_close(model(batch), out[[0, 4, 5, 6, 12]])


@pytest.mark.parametrize("setting", ["dropout", "attention_dropout"])
def test_dropout_is_drawn_in_training_only(setting):
    model, prepare = model_laws.make(model_laws.small(GraphormerConfig, **{setting: 0.5}))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    data = prepare(model_laws.sample(10, ONE_PATH))
    assert len({tuple(model(data)[0].tolist()) for _ in range(4)}) == 4
    model.eval()
    assert len({tuple(model(data)[0].tolist()) for _ in range(4)}) == 1


def test_refuses_samples_that_were_not_prepared():
    model, prepare = model_laws.make(model_laws.small(GraphormerConfig))
    with pytest.raises(GraphformerError, match="Graphormer: batch must carry attention_graph; got none"):
        model(model_laws.sample(4, model_laws.EMPTY))
    data = prepare(model_laws.sample(4, model_laws.EMPTY))
    del data.path_num_steps
    with pytest.raises(GraphformerError, match="Graphormer: batch must carry path_num_steps; got none"):
        model(data)
    with pytest.raises(GraphformerError, match="num_outputs must be at least 1; got 0"):
        Graphormer(model.config, model.features, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 60}, "GraphormerConfig: channels must be a multiple of heads = 8; got 60"),
        ({"max_degree": 0}, "max_degree must be at least 1; got 0"),
        ({"max_distance": 2.0}, "max_distance must be an integer; got 2.0"),
        ({"max_hops": -1}, "max_hops must not be negative; got -1. Pass 0 to do without"),
        ({"attention_dropout": -0.1}, r"attention_dropout must lie in \[0, 1\); got -0.1"),
    ],
    ids=str,
)
def test_settings_refuse_bad_values(settings, message):
    with pytest.raises(GraphformerError, match=message):
        GraphormerConfig(**settings)
