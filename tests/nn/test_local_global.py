import pytest
import torch
from torch_geometric.nn import GENConv

from graphformer import GraphformerError
from graphformer.nn import GatedGCN
from graphformer.nn.local_global import LocalConv, LocalGlobalLayer
from graphformer.testing import assert_close

EDGES = torch.tensor([[0, 1, 2, 2, 3, 3], [1, 0, 0, 0, 2, 3]])  # a repeated edge, a loop, a node that hears nobody
CHANNELS = 4


def standardised(norm, rows):
    """A batch norm of training, written out."""
    mean, variance = rows.mean(0), rows.var(0, unbiased=False)
    return (rows - mean) / (variance + norm.module.eps).sqrt() * norm.module.weight + norm.module.bias


def gated_gcn(layer, x, edges):
    """The formula of GatedGCN edge by edge."""
    (a, b, d, e), bias = layer.lin_node.weight.chunk(4), layer.lin_node.bias.chunk(4)
    moved = []
    above, below = torch.zeros_like(x), torch.zeros_like(x)
    for (source, target), edge in zip(EDGES.t().tolist(), edges, strict=True):
        new = layer.lin_edge(edge) + d @ x[target] + bias[2] + e @ x[source] + bias[3]
        above[target] += new.sigmoid() * (b @ x[source] + bias[1])
        below[target] += new.sigmoid()
        moved.append(new)
    found = x @ a.t() + bias[0] + above / (below + 1e-6)
    edges_found = edges + standardised(layer.norm_edge, torch.stack(moved)).relu() if layer.norm_edge else edges
    return x + standardised(layer.norm_node, found).relu(), edges_found


@pytest.mark.parametrize("last", [False, True])
def test_gated_gcn_is_its_formula(last):
    layer = GatedGCN(CHANNELS, last=last).double()
    for norm in (layer.norm_node, layer.norm_edge):
        if norm is not None:
            torch.nn.init.normal_(norm.module.weight)
            torch.nn.init.normal_(norm.module.bias)
    x, edges = torch.randn(5, CHANNELS).double(), torch.randn(6, CHANNELS).double()
    out, out_edges = layer(x, EDGES, edges)
    expected, expected_edges = gated_gcn(layer, x, edges)
    assert_close(out, expected)
    assert_close(out_edges, expected_edges)
    assert repr(layer) == "GatedGCN(4)"


def test_gated_gcn_drops_in_training_and_is_drawn_anew():
    layer = GatedGCN(CHANNELS, dropout=0.5)
    x, edges = torch.randn(5, CHANNELS), torch.randn(6, CHANNELS)
    first, first_edges = layer(x, EDGES, edges)
    second, second_edges = layer(x, EDGES, edges)
    assert not torch.equal(first, second)
    assert not torch.equal(first_edges, second_edges)
    layer.eval()
    before = layer(x, EDGES, edges)[0]
    assert torch.equal(before, layer(x, EDGES, edges)[0])
    layer.reset_parameters()
    assert not torch.allclose(before, layer(x, EDGES, edges)[0])


@pytest.mark.parametrize("local", [LocalConv("gcn", CHANNELS), LocalConv("gatedgcn", CHANNELS), None])
def test_a_layer_is_its_formula(local):
    layer = LocalGlobalLayer(CHANNELS, local).double()
    x, edges, heard = (torch.randn(rows, CHANNELS).double() for rows in (5, 6, 5))
    out, out_edges = layer(x, EDGES, edges, heard=heard)
    h = standardised(layer.attention_norm, x + heard)
    if local is not None:
        near, edges = local(x, EDGES, edges)
        h = h + standardised(layer.local_norm, near)
    hidden = layer.feed_forward.lin_in(h).relu()
    assert_close(out, standardised(layer.norm, h + layer.feed_forward.lin_out(hidden)))
    assert_close(out_edges, edges)


def test_a_layer_of_pyg_is_taken_by_its_name():
    local = LocalConv("GENConv", CHANNELS)
    assert isinstance(local.conv, GENConv)
    assert local.reads_edges
    x, edges = torch.randn(5, CHANNELS), torch.randn(6, CHANNELS)
    out, same = local(x, EDGES, edges)
    assert same is edges
    assert_close(out, x + local.conv(x, EDGES, edges))
    assert not LocalConv("SAGEConv", CHANNELS).reads_edges


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "ginn",
            "name must be a convolution; got 'ginn'. Write gine, gin, gcn, gat, gatedgcn, or a class of torch_geo",
        ),
        ("Linear", "name must be a convolution; got 'Linear'"),
        ("GINConv", r"name must need no arguments but in_channels and out_channels; got \['nn'\]. Take another"),
    ],
)
def test_refuses_what_is_no_convolution(name, message):
    with pytest.raises(GraphformerError, match=f"LocalConv: {message}"):
        LocalConv(name, CHANNELS)


def test_refuses_numbers_out_of_range():
    with pytest.raises(GraphformerError, match="GatedGCN: channels must be at least 1; got 0"):
        GatedGCN(0)
    with pytest.raises(GraphformerError, match=r"GatedGCN: dropout must lie in \[0, 1\); got 1.0"):
        GatedGCN(4, dropout=1.0)
