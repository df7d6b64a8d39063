"""`convert` on the models and containers that PyG's users hold attention layers in."""

import pytest
import torch
import torch_geometric.nn as pyg
from torch_geometric.nn.models import AttentiveFP

from graphformer.nn import convert
from graphformer.nn.conversion import LAYERS
from graphformer.testing import assert_close

N, C, E, F = 12, 8, 40, 3
OURS = tuple(LAYERS.values())
PAPER, CITES, WRITES = "paper", ("paper", "cites", "paper"), ("author", "writes", "paper")


def graph():
    return torch.randn(N, C), torch.randint(N, (2, E))


def hetero():
    nodes = {"paper": torch.randn(N, C), "author": torch.randn(N - 3, C)}
    edges = {CITES: torch.randint(N, (2, E)), WRITES: torch.stack((torch.randint(N - 3, (E,)), torch.randint(N, (E,))))}
    edges["paper", "rev_writes", "author"] = edges[WRITES].flip(0)
    return nodes, edges


def hetero_conv():
    back = ("paper", "rev_writes", "author")
    pair = {"add_self_loops": False}
    layers = {CITES: pyg.GATConv(C, C), WRITES: pyg.GATv2Conv((C, C), C, **pair), back: pyg.GATConv((C, C), C, **pair)}
    return pyg.HeteroConv(layers)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = pyg.GATConv((-1, -1), C, add_self_loops=False)
        self.second = pyg.TransformerConv((-1, -1), C)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


def to_hetero():
    nodes, edges = hetero()
    return pyg.to_hetero(Net(), (list(nodes), list(edges)))


def sequential():
    layers = [(pyg.GATConv(C, C), "x, e -> x"), torch.nn.ReLU(), (pyg.TransformerConv(C, C), "x, e -> x")]
    return pyg.Sequential("x, e", layers)


def infomax():
    def corrupt(x, edge_index):
        return x.flip(0), edge_index

    return pyg.DeepGraphInfomax(C, pyg.GATConv(C, C), lambda z, *_: z.mean(0), corrupt)


def gps():
    layers = [(pyg.GPSConv(C, pyg.GATConv(C, C), heads=2), "x, e -> x"), (pyg.GPSConv(C, None, heads=4), "x, e -> x")]
    return pyg.Sequential("x, e", layers)


class Readout(torch.nn.Module):
    """Layers of PyG that hold an aggregation, the second inside a readout."""

    def __init__(self):
        super().__init__()
        self.conv = pyg.SAGEConv(C, C, aggr=pyg.aggr.AttentionalAggregation(torch.nn.Linear(C, 1)))
        self.readout = pyg.aggr.MultiAggregation(["mean", pyg.aggr.SetTransformerAggregation(C, heads=2)])

    def forward(self, x, edge_index):
        return self.readout(self.conv(x, edge_index), torch.arange(N) // 5)


def molecules():
    x, edge_index = graph()
    return x, edge_index, torch.randn(E, F), torch.arange(N) // 5


MODELS = {
    "GAT": (lambda: pyg.GAT(C, C, 3, heads=2, jk="cat"), graph, ["convs.0", "convs.1", "convs.2"]),
    "GATv2": (lambda: pyg.GAT(C, C, 2, v2=True, norm="layer"), graph, ["convs.0", "convs.1"]),
    "HeteroConv": (
        hetero_conv,
        hetero,
        [
            f"convs.<{kind}>"
            for kind in ("paper___cites___paper", "author___writes___paper", "paper___rev_writes___author")
        ],
    ),
    "to_hetero": (
        to_hetero,
        hetero,
        [
            f"{layer}.{kind}"
            for layer in ("first", "second")
            for kind in ("paper__cites__paper", "author__writes__paper", "paper__rev_writes__author")
        ],
    ),
    "aggregations": (Readout, graph, ["conv.aggr_module", "readout.aggrs.1"]),
    "GPS": (gps, graph, ["module_0", "module_0.conv", "module_1"]),
    "Sequential": (sequential, graph, ["module_0", "module_2"]),
    "DeepGraphInfomax": (infomax, graph, ["encoder"]),
    "AttentiveFP": (lambda: AttentiveFP(C, C, 2, F, 2, 2), molecules, ["atom_convs.0", "mol_conv"]),
}


def flat(out):
    """The tensors of whatever a model returns, in a fixed order."""
    if isinstance(out, torch.Tensor):
        return [out]
    parts = [out[key] for key in sorted(out)] if isinstance(out, dict) else out
    return [tensor for part in parts for tensor in flat(part)]


@pytest.mark.parametrize("name", MODELS)
def test_same_numbers_from_the_same_model(name):
    make, inputs, paths = MODELS[name]
    model, args = make().eval(), inputs()
    with torch.no_grad():
        model(*args)  # gives lazy layers their widths
    model.double()
    args = [_double(arg) for arg in args]
    expected = flat(model(*args))
    report = convert(model)
    assert list(report.replaced) == paths
    assert sum(isinstance(module, OURS) for module in model.modules()) == len(paths)
    for found, wanted in zip(flat(model(*args)), expected, strict=True):
        assert_close(found, wanted, torch.float64)
    wrong = [1.001 * tensor for tensor in expected]
    with pytest.raises(AssertionError):
        assert_close(wrong[0], expected[0], torch.float64)


def _double(arg):
    if isinstance(arg, dict):
        return {key: _double(value) for key, value in arg.items()}
    return arg.double() if arg.is_floating_point() else arg


def test_attention_with_edge_gates_of_a_model_is_told():
    assert convert(AttentiveFP(C, C, 2, F, 2, 2)).left == {"gate_conv": "graphformer has no such layer"}


def test_global_attention_that_no_kernel_has_is_told():
    performer = pyg.GPSConv(C, pyg.GATConv(C, C), heads=2, attn_type="performer")
    report = convert(performer)
    assert report.replaced == ("conv",)
    assert report.left == {"": "attn_type='performer' has no pairs"}
    hooked = pyg.GPSConv(C, None, heads=2)
    hooked.attn.register_forward_hook(lambda *args: None)
    assert convert(hooked).left == {"": "hooks on attn are registered"}
    assert type(performer) is type(hooked) is pyg.GPSConv


def test_lazy_layers_stay_lazy():
    model, (x, edge_index) = pyg.GAT(-1, C, 2), graph()
    assert convert(model).replaced == ("convs.0", "convs.1")
    assert model(x, edge_index).shape == (N, C)
    model.load_state_dict(pyg.GAT(C, C, 2).state_dict())


class Adapter(torch.nn.Module):
    """A linear map with an update of low rank beside it."""

    def __init__(self, base):
        super().__init__()
        self.base, self.weight = base, base.weight
        self.down = torch.nn.Linear(base.in_channels, 2, bias=False)
        self.up = torch.nn.Linear(2, base.out_channels, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


@pytest.mark.parametrize("kind", [pyg.GATConv, pyg.GATv2Conv, pyg.TransformerConv], ids=lambda kind: kind.__name__)
def test_adapters_on_linear_maps_are_called(kind):
    x, edge_index = graph()
    layer = kind(C, C, edge_dim=F)
    attr = torch.randn(E, F)
    for name in ("lin", "lin_l", "lin_r", "lin_query", "lin_key", "lin_value"):
        if getattr(layer, name, None) is not None:
            setattr(layer, name, Adapter(getattr(layer, name)))
    expected = layer(x, edge_index, attr)
    assert convert(layer).replaced == ("",)
    assert_close(layer(x, edge_index, attr), expected, torch.float32)

    layer = kind(C, C, edge_dim=F)
    layer.lin_edge = Adapter(layer.lin_edge)
    assert convert(layer).left == {"": "lin_edge is no plain linear map"}
