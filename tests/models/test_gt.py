import math

import model_laws
import pytest
import torch

from graphformer import GraphformerError
from graphformer.graphs import Features
from graphformer.models import GT, GTConfig, build
from graphformer.testing import assert_close

VARIANTS = [{"full_graph": True}, {"norm": "layer"}, {"update_last_edges": True, "pooling": "sum"}]


def layer_in_plain_torch(layer, x, edges, pairs):
    """One layer of the paper's section 3 on a list of (key, query, row of `edges`), node by node."""
    num_nodes, channels = x.shape
    heads, width = layer.heads, channels // layer.heads
    of_query, of_key, of_value = layer.lin_node.weight.chunk(3)
    gated = torch.zeros(len(pairs), channels, dtype=x.dtype)
    for row, (key, query, edge) in enumerate(pairs):
        gated[row] = (
            (of_query @ x[query]) * (of_key @ x[key]) / math.sqrt(width) * (layer.lin_edge.weight @ edges[edge])
        )
    found = torch.zeros_like(x)
    for query in range(num_nodes):
        into = [row for row, pair in enumerate(pairs) if pair[1] == query]
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = [gated[row, part].sum().clamp(-5, 5).exp() for row in into]
            for row, score in zip(into, scores, strict=True):
                found[query, part] += score / sum(scores) * (of_value @ x[pairs[row][0]])[part]

    def update(part, before, found):
        middle = part.norm(before + part.lin(found))
        hidden = part.feed_forward.lin_in(middle).relu()
        return part.feed_forward_norm(middle + part.feed_forward.lin_out(hidden))

    return update(layer.node_update, x, found), update(layer.edge_update, edges[[pair[2] for pair in pairs]], gated)


@pytest.mark.parametrize("factor", [1.0, 30.0], ids=["plain", "clipped"])
def test_a_layer_is_the_published_formula(factor):
    model, prepare = model_laws.make(model_laws.small(GTConfig))
    layer = model.layers[0].double()
    data = prepare(model_laws.sample(10, model_laws.BONDS))
    graph = data.attention_graph
    x, edges = torch.randn(10, 32).double() * factor, torch.randn(graph.num_edges, 32).double()
    out, out_edges = layer(x, edges, graph)
    pairs = [(*pair, row) for row, pair in enumerate(graph.edge_index.t().tolist())]
    expected, expected_edges = layer_in_plain_torch(layer, x, edges, pairs)
    assert_close(out, expected)
    assert_close(out_edges, expected_edges)


def test_pairs_carry_the_vector_of_their_edge_and_the_others_one_of_their_own():
    model, prepare = model_laws.make(model_laws.small(GTConfig, full_graph=True))
    data = prepare(model_laws.sample(10, model_laws.BONDS))
    graph, edges = data.attention_graph, model.edges(data)
    assert graph.num_edges == 100
    place = {tuple(pair): row for row, pair in enumerate(data.edge_index.t().tolist())}
    of_pairs = model._of_pairs(edges, graph)
    for row, pair in enumerate(graph.edge_index.t().tolist()):
        assert torch.equal(of_pairs[row], edges[place[tuple(pair)]] if tuple(pair) in place else model.no_edge[0])


def test_parameters_are_as_many_as_published():
    """Dwivedi and Bresson 2021, ZINC, sparse graph: 588,929; their map of the eigenvectors has 64 biases, ours none."""
    config = GTConfig(update_last_edges=True)
    model = build(config, Features((28,), 0, (4,)), 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == 588_929 - 64


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_the_laws_hold_for_every_setting(settings):
    config = model_laws.small(GTConfig, **settings)
    model_laws.check_permutation(config, "graph")
    model_laws.check_batching(config)
    model_laws.check_degenerate(config)
    model_laws.check_without_edge_features(config)


def test_signs_of_eigenvectors_are_drawn_in_training_only():
    model, prepare = model_laws.make(model_laws.small(GTConfig, layers=1, norm="layer"))
    data = prepare(model_laws.sample(10, model_laws.BONDS))
    assert len({tuple(model(data)[0].tolist()) for _ in range(8)}) > 1
    model.eval()
    assert len({tuple(model(data)[0].tolist()) for _ in range(8)}) == 1


def test_only_the_last_edge_update_is_without_gradients():
    model, prepare = model_laws.make(model_laws.small(GTConfig, update_last_edges=True))
    model(prepare(model_laws.sample(10, model_laws.BONDS))).sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {f"layers.1.edge_update.{name}" for name, _ in model.layers[1].edge_update.named_parameters()}
    assert without == {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def test_distributed_training_takes_parameters_that_never_train(tmp_path):
    """DDP waits for the gradient of every parameter that has one; its second step tells of one that never came."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model, prepare = model_laws.make(model_laws.small(GTConfig, update_last_edges=True))
        before = {name: value.clone() for name, value in model.layers[1].edge_update.named_parameters()}
        shared = torch.nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
        for _ in range(2):
            shared(prepare(model_laws.sample(10, model_laws.BONDS))).sum().backward()
            optimizer.step()
    finally:
        torch.distributed.destroy_process_group()
    after = dict(model.layers[1].edge_update.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_refuses_samples_that_were_not_prepared():
    model, prepare = model_laws.make(model_laws.small(GTConfig))
    data = model_laws.sample(4, model_laws.EMPTY)
    with pytest.raises(GraphformerError, match="GT: batch must carry attention_graph; got none. Pass each sample"):
        model(data)
    data = prepare(data)
    del data.laplacian_eigenvectors
    with pytest.raises(GraphformerError, match="GT: batch must carry laplacian_eigenvectors; got none"):
        model(data)
    data.edge_index = None
    with pytest.raises(GraphformerError, match="GT: batch must carry edge_index; got None. Give edges; torch.empty"):
        model(data)
    with pytest.raises(GraphformerError, match="num_outputs must be at least 1; got 0"):
        GT(model.config, model.features, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 60}, "GTConfig: channels must be a multiple of heads = 8; got 60"),
        ({"layers": 0}, "layers must be at least 1; got 0"),
        ({"laplacian": -1}, "laplacian must not be negative; got -1. Pass 0 to do without"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\); got 1.0"),
        ({"full_graph": "yes"}, "full_graph must be a bool; got 'yes'. Pass True or False"),
        ({"norm": "none"}, "norm must be one of batch, layer; got 'none'"),
        ({"pooling": "last"}, "pooling must be one of sum, mean, max; got 'last'"),
    ],
    ids=str,
)
def test_settings_refuse_bad_values(settings, message):
    with pytest.raises(GraphformerError, match=message):
        GTConfig(**settings)
