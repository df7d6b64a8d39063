"""The layers in PyG's models and containers, and on sampled neighbourhoods."""

import pytest
import torch
import torch_geometric.nn as pyg
from drop_in_cases import (
    GATS,
    C,
    D,
    E,
    F,
    N,
    Net,
    assert_same,
    counted,
    each_layer,
    hetero_graph,
    no_loops,
    some_edges,
    twins,
)
from torch_geometric import typing
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn.models import basic_gnn
from torch_geometric.utils import trim_to_layer

from graphformer import nn as ours

pytestmark = pytest.mark.usefixtures("float64")


# ---------------------------------------------------------------- models and containers


@pytest.mark.parametrize("v2", [False, True])
def test_pygs_gat_model_with_the_class_replaced(v2, monkeypatch):
    options = {"v2": v2, "heads": 2, "edge_dim": F, "jk": "cat", "dropout": 0.0, "residual": True}
    theirs = pyg.GAT(C, 8, 3, 5, **options)
    for name in GATS:
        monkeypatch.setattr(basic_gnn, name, getattr(ours, name))
    mine = pyg.GAT(C, 8, 3, 5, **options)
    mine.load_state_dict(theirs.state_dict())
    x, edge_index, edge_attr = torch.randn(N, C), some_edges(), torch.randn(E, F)
    with counted() as paths:
        found = mine(x, edge_index, edge_attr=edge_attr)
    assert paths == {"kernel": 3}
    assert_same(found, theirs(x, edge_index, edge_attr=edge_attr))
    theirs.load_state_dict(mine.state_dict())


@each_layer
def test_pygs_sequential(name):
    models = []
    for module in (pyg, ours):
        torch.manual_seed(0)
        first, second = getattr(module, name)(C, D), getattr(module, name)(D, 2)
        weigh = "x, edge_index, None, return_weights -> x, a" if name != "GATConv" else ""
        weigh = weigh or "x, edge_index, None, None, return_weights -> x, a"
        steps = [(first, "x, edge_index -> x"), torch.nn.ReLU(), (second, weigh), (lambda x, a: (x, a), "x, a -> x, a")]
        models.append(pyg.Sequential("x, edge_index, return_weights", steps))
    x, edge_index = torch.randn(N, C), some_edges()
    with counted() as paths:
        found = models[1](x, edge_index, True)
    assert paths == {"kernel": 2}
    assert_same(found, models[0](x, edge_index, True))


@each_layer
def test_hetero_conv(name):
    x, edges = hetero_graph()
    convs = []
    for module in (pyg, ours):
        torch.manual_seed(0)
        each = {kind: getattr(module, name)((-1, -1), D, heads=2, **no_loops(name)) for kind in edges}
        conv = pyg.HeteroConv(each, aggr="sum")
        with torch.no_grad():
            torch.manual_seed(0)
            conv(x, edges)
        convs.append(conv)
    with counted() as paths:
        found = convs[1](x, edges)
    assert paths == {"kernel": 3}
    expected = convs[0](x, edges)
    assert_same([found[kind] for kind in x], [expected[kind] for kind in x])


@each_layer
def test_to_hetero(name):
    x, edges = hetero_graph()
    models = []
    for module in (pyg, ours):
        model = pyg.to_hetero(Net(module, name), (list(x), list(edges)))
        with torch.no_grad():
            model(x, edges)
        models.append(model)
    models[1].load_state_dict(models[0].state_dict())
    with counted() as paths:
        found = models[1](x, edges)
    assert paths == {"kernel": 6}
    expected = models[0](x, edges)
    assert_same([found[kind] for kind in x], [expected[kind] for kind in x])


# ---------------------------------------------------------------- sampled neighbourhoods


def sampled(num_layers=2, fanout=3, seeds=4, num_nodes=40):
    """What a NeighborLoader gives: nodes hop by hop, edges hop by hop, and how many each hop has."""
    edge_index = torch.randint(num_nodes, (2, 6 * num_nodes))
    nodes, frontier, hops = list(range(seeds)), list(range(seeds)), []
    num_sampled_nodes = [seeds]
    for _ in range(num_layers):
        pairs = []
        for target in frontier:
            sources = edge_index[0, edge_index[1] == target][:fanout].tolist()
            pairs += [(source, target) for source in sources]
        frontier = [source for source in dict.fromkeys(source for source, _ in pairs) if source not in nodes]
        nodes += frontier
        hops.append(pairs)
        num_sampled_nodes.append(len(frontier))
    place = {node: row for row, node in enumerate(nodes)}
    local = (
        torch.tensor([[place[source], place[target]] for pairs in hops for source, target in pairs]).t().contiguous()
    )
    return len(nodes), local, num_sampled_nodes, [len(pairs) for pairs in hops]


@each_layer
def test_trimmed_layers_give_the_seeds_what_untrimmed_ones_give(name):
    num_nodes, edge_index, nodes_per_hop, edges_per_hop = sampled()
    layers = [getattr(ours, name)(C, D, heads=2, edge_dim=F), getattr(ours, name)(2 * D, D, edge_dim=F)]
    x, edge_attr = torch.randn(num_nodes, C), torch.randn(edge_index.shape[1], F)
    whole = x
    for layer in layers:
        whole = layer(whole, edge_index, edge_attr)
    trimmed, edges, attr = x, edge_index, edge_attr
    with counted() as paths:
        for number, layer in enumerate(layers):
            trimmed, edges, attr = trim_to_layer(number, nodes_per_hop, edges_per_hop, trimmed, edges, attr)
            trimmed = layer(trimmed, edges, attr)
    assert paths == {"kernel": 2}
    assert edges.shape[1] < edge_index.shape[1]
    seeds = nodes_per_hop[0]
    assert_same(trimmed[:seeds], whole[:seeds])


@pytest.mark.parametrize("v2", [False, True])
def test_pygs_gat_model_trims(v2, monkeypatch):
    for name in GATS:
        monkeypatch.setattr(basic_gnn, name, getattr(ours, name))
    model = pyg.GAT(C, 8, 2, 5, v2=v2).eval()
    num_nodes, edge_index, nodes_per_hop, edges_per_hop = sampled()
    x = torch.randn(num_nodes, C)
    found = model(x, edge_index, num_sampled_nodes_per_hop=nodes_per_hop, num_sampled_edges_per_hop=edges_per_hop)
    assert_same(found[: nodes_per_hop[0]], model(x, edge_index)[: nodes_per_hop[0]])


@each_layer
@pytest.mark.filterwarnings("ignore:Using 'NeighborSampler' without:UserWarning")
def test_neighbor_loader(name):
    if not (typing.WITH_PYG_LIB or typing.WITH_TORCH_SPARSE):
        pytest.skip("neighbours are sampled by pyg-lib or torch-sparse; neither is installed here")
    data = Data(x=torch.randn(40, C), edge_index=torch.randint(40, (2, 240)))
    theirs, mine = twins(name)
    for batch in NeighborLoader(data, num_neighbors=[3, 3], batch_size=8):
        assert_same(mine(batch.x, batch.edge_index), theirs(batch.x, batch.edge_index))
