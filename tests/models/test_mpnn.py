import model_laws
import pytest
import torch
from torch_geometric.data import Batch, Data

from graphformer import GraphformerError
from graphformer.graphs import Features
from graphformer.models import MPNNConfig, build
from graphformer.testing import assert_close

MOLECULES = Features((119, 4, 12, 12, 10, 6, 6, 2, 2), 0, (5, 6, 2))  # as OGB counted in 2020
KINDS = [{"conv": conv, "virtual_node": virtual} for conv in ("gin", "gcn") for virtual in (False, True)]
PUBLISHED = [1_885_206, 3_336_306, 527_701, 1_978_801]  # OGB's leaderboard of ogbg-molhiv


@pytest.mark.parametrize(("settings", "published"), list(zip(KINDS, PUBLISHED, strict=True)), ids=str)
def test_has_the_published_number_of_parameters(settings, published):
    model = build(MPNNConfig(**settings), MOLECULES, 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == published


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_every_kind_keeps_the_laws(settings):
    config = model_laws.small(MPNNConfig, **settings)
    model_laws.check_permutation(config, "node")
    model_laws.check_batching(config)
    model_laws.check_gradients(config)
    model_laws.check_degenerate(config)
    model_laws.check_ten_molecules(config)


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_is_the_published_formula_node_by_node(settings):
    config = model_laws.small(MPNNConfig, **settings, layers=3)
    model, _ = model_laws.make(config)
    model.double().eval()
    for norm in (part for part in model.modules() if isinstance(part, torch.nn.BatchNorm1d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    samples = [model_laws.random_sample(*size, seed=2) for size in [(7, 12), (1, 0), (4, 3)]]
    assert_close(model(Batch.from_data_list(samples)), torch.stack([outputs(model, data) for data in samples]))


def outputs(model, data):
    """The outputs for one graph, from the formulas of OGB's molecule baselines."""
    kinds = zip(model.edges.embeddings, data.edge_attr.unbind(1), strict=True)
    edges = sum(table(column) for table, column in kinds).chunk(len(model.convs), dim=1)
    x, state = model.nodes(data), model.state
    for number, (conv, norm) in enumerate(zip(model.convs, model.norms, strict=True)):
        last = number == len(model.convs) - 1
        if state is not None:
            x = x + state
            if not last:
                state = model.state_updates[number](x.sum(0, keepdim=True) + state)
        step = gin if model.config.conv == "gin" else gcn
        x = norm(step(conv, x, data.edge_index, edges[number]))
        x = x if last else x.relu()
    return model.head.lin(x.mean(0))


def gin(conv, x, edge_index, edges):
    heard = torch.zeros_like(x)
    for (source, target), edge in zip(edge_index.t().tolist(), edges, strict=True):
        heard[target] += (x[source] + edge).relu()
    return conv.nn((1 + conv.eps) * x + heard)


def gcn(conv, x, edge_index, edges):
    x = conv.lin(x)
    count = [1 + int((edge_index[0] == node).sum()) for node in range(x.shape[0])]
    out = torch.stack([(x[node] + conv.root[0]).relu() / count[node] for node in range(x.shape[0])])
    for (source, target), edge in zip(edge_index.t().tolist(), edges, strict=True):
        out[target] += (x[source] + edge).relu() / (count[source] * count[target]) ** 0.5
    return out


def test_refuses_a_batch_without_edges():
    model, _ = model_laws.make(model_laws.small(MPNNConfig))
    with pytest.raises(GraphformerError, match="MPNN: batch must carry edge_index; got None. Give edges; torch.empty"):
        model(Data(x=torch.zeros(2, 2).long()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conv": "gine"}, "conv must be one of gin, gcn; got 'gine'. Did you mean gin"),
        ({"channels": 0}, "channels must be at least 1; got 0"),
        ({"layers": "5"}, "layers must be an integer; got '5'"),
        ({"dropout": 1}, r"dropout must lie in \[0, 1\); got 1"),
        ({"virtual_node": 1}, "virtual_node must be a bool; got 1. Pass True or False"),
        ({"pooling": "max"}, "pooling must be one of mean, sum; got 'max'"),
    ],
    ids=str,
)
def test_config_refuses_bad_settings(settings, message):
    with pytest.raises(GraphformerError, match=f"MPNNConfig: {message}"):
        MPNNConfig(**settings)
