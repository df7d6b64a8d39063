"""`convert`: the class of a layer changes and nothing else, wherever the layer is held."""

import copy
import pickle

import pytest
import torch
import torch_geometric.nn as pyg
from torch.nn import ModuleList, MultiheadAttention
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode

from graphformer._errors import InputError
from graphformer.nn import Conversion, convert
from graphformer.nn.conversion import LAYERS
from graphformer.testing import assert_close

N, C, E, F = 12, 8, 40, 3
CALLS = {  # how a layer is made from PyG's class or ours, and called
    pyg.aggr.AttentionalAggregation: (
        lambda kind: kind(torch.nn.Linear(C, 1), torch.nn.Linear(C, C)),
        lambda layer, d: layer(d.x, d.batch),
    ),
    pyg.GATConv: (
        lambda kind: kind(C, 4, heads=2, edge_dim=F),
        lambda layer, d: layer(d.x, d.edges, d.attr),
    ),
    pyg.GATv2Conv: (
        lambda kind: kind(C, 4, heads=2, edge_dim=F),
        lambda layer, d: layer(d.x, d.edges, d.attr),
    ),
    pyg.GPSConv: (
        lambda kind: kind(C, pyg.GINConv(torch.nn.Linear(C, C)), heads=2),
        lambda layer, d: layer(d.x, d.edges, d.batch),
    ),
    pyg.aggr.SetTransformerAggregation: (
        lambda kind: kind(C, heads=2),
        lambda layer, d: layer(d.x, d.batch),
    ),
    pyg.TransformerConv: (
        lambda kind: kind(C, 4, heads=2, edge_dim=F),
        lambda layer, d: layer(d.x, d.edges, d.attr),
    ),
}
each_layer = pytest.mark.parametrize("kind", CALLS, ids=lambda kind: kind.__name__)


class Inputs:
    def __init__(self, dtype=torch.float64):
        self.x = torch.randn(N, C, dtype=dtype, requires_grad=True)
        self.edges = torch.randint(N, (2, E))
        self.attr = torch.randn(E, F, dtype=dtype)
        self.batch = torch.arange(N) // 5


class Held(torch.nn.Module):
    """A model that holds the layer beside another."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.out = torch.nn.Linear(C, C)


class Operators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.add(str(operator))
        return operator(*args, **(kwargs or {}))


def kernel_ran(call):
    with Operators() as seen:
        call()
    return any(name.startswith("graphformer") for name in seen.names)


def make(kind, dtype=torch.float64):
    layer = CALLS[kind][0](kind).to(dtype).eval()
    return layer, CALLS[kind][1], Inputs(dtype)


def test_every_layer_of_the_table_is_tested():
    assert CALLS.keys() == LAYERS.keys()
    assert all(issubclass(ours, original) for original, ours in LAYERS.items())


@each_layer
def test_only_the_class_changes(kind):
    layer, call, inputs = make(kind)
    model = Held(layer)
    before, keys = dict(model.named_parameters()), list(model.state_dict())
    expected = call(layer, inputs)
    grads = torch.autograd.grad(expected.sum(), inputs.x)

    report = convert(model)
    assert report.replaced == ("layer",)
    assert report.left == {}
    assert type(layer) is type(model.layer) is LAYERS[kind]
    assert layer.__dict__.keys() == CALLS[kind][0](LAYERS[kind]).__dict__.keys()
    assert list(model.state_dict()) == keys
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert not layer.training
    out = call(layer, inputs)
    assert_close(out, expected, torch.float64)
    assert_close(torch.autograd.grad(out.sum(), inputs.x)[0], grads[0], torch.float64)
    assert type(make(kind)[0]) is kind  # PyG's class itself is as it was


@each_layer
def test_a_converted_layer_runs_what_a_constructed_one_runs(kind):
    layer, call, inputs = make(kind)
    constructed = CALLS[kind][0](LAYERS[kind]).double().eval()
    runs = kernel_ran(lambda: call(constructed, inputs))
    assert not kernel_ran(lambda: call(layer, inputs))
    convert(layer)
    assert kernel_ran(lambda: call(layer, inputs)) == runs
    assert kernel_ran(lambda: call(copy.deepcopy(layer), inputs)) == runs


@each_layer
def test_copies_and_pickles_are_ours_too(kind):
    layer, call, inputs = make(kind)
    expected = call(layer, inputs)
    convert(layer)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(copied) is LAYERS[kind]
        assert_close(call(copied, inputs), expected, torch.float64)


@each_layer
def test_checkpoints_go_both_ways(kind):
    (layer, call, inputs), other = make(kind), make(kind)[0]
    expected = call(other, inputs)
    convert(layer)
    layer.load_state_dict(other.state_dict())
    assert_close(call(layer, inputs), expected, torch.float64)
    make(kind)[0].load_state_dict(layer.state_dict())


@each_layer
def test_an_optimizer_goes_on(kind):
    results = []
    for converted in (False, True):
        torch.manual_seed(1)
        layer, call, inputs = make(kind)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
        for step in range(6):
            if converted and step == 3:
                convert(layer)
            optimizer.zero_grad()
            call(layer, inputs).square().sum().backward()
            optimizer.step()
        results.append(call(layer, inputs))
    assert_close(results[1], results[0], torch.float64)


@each_layer
def test_hooks_mode_and_dtype_stay(kind):
    layer, call, inputs = make(kind, torch.float32)
    seen = []
    layer.train()
    layer.register_forward_pre_hook(lambda module, args: seen.append("pre"))
    layer.register_forward_hook(lambda module, args, out: seen.append("post"))
    assert convert(layer).replaced == ("",)
    assert layer.training
    assert call(layer, inputs).dtype == torch.float32
    assert seen == ["pre", "post"]


@each_layer
def test_a_layer_held_twice_has_one_row(kind):
    layer = make(kind)[0]
    model = ModuleList([layer, Held(layer)])
    assert convert(model).replaced == ("0",)
    assert type(model[1].layer) is LAYERS[kind]


@each_layer
def test_nothing_is_left_to_convert_the_second_time(kind):
    model = Held(make(kind)[0])
    convert(model)
    assert convert(model) == Conversion(())
    assert repr(convert(model)) == "0 replaced, 0 left"


@each_layer
def test_a_subclass_is_left(kind):
    layer = make(kind)[0]
    mine = type("Mine", (kind,), {})
    layer.__class__ = mine
    why = f"Mine is a subclass of {kind.__name__}; derive it from graphformer.nn.{LAYERS[kind].__name__}"
    assert convert(layer).left == {"": why}
    assert type(layer) is mine


@each_layer
def test_a_forward_of_its_own_is_left(kind):
    layer = make(kind)[0]
    layer.forward = lambda *args: None
    assert convert(layer).left == {"": "it has a forward of its own"}
    assert type(layer) is kind


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's own, while it traces PyG's layer
@each_layer
def test_a_compiled_model_compiles_anew(kind):
    torch._dynamo.reset()
    layer, call, inputs = make(kind)
    compiled = torch.compile(layer, backend="eager")
    expected = call(compiled, inputs)
    report = convert(compiled)
    assert report.replaced == ("_orig_mod",)
    assert kernel_ran(lambda: call(compiled, inputs)) == kernel_ran(lambda: call(layer, inputs))
    assert_close(call(compiled, inputs), expected, torch.float64)


def test_parametrized_layers_are_left():
    layer = pyg.GATConv(C, 4)
    torch.nn.utils.parametrize.register_parametrization(layer, "att_src", torch.nn.Identity())
    made = type(layer)
    assert convert(layer).left == {"": "parametrized, which made ParametrizedGATConv of it; convert the model first"}
    assert type(layer) is made


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda layer: layer.register_message_forward_hook(lambda *args: None), "hooks on message are registered"),
        (lambda layer: setattr(layer, "explain", True), "an explainer asks for messages"),
        (lambda layer: setattr(layer, "decomposed_layers", 2), "decomposed_layers splits the channels"),
        (lambda layer: parametrizations.weight_norm(layer.lin_edge), "lin_edge is no plain linear map"),
    ],
    ids=["hooks", "explain", "decomposed", "weight_norm"],
)
def test_what_sends_messages_is_left_as_it_was(change, why):
    layer = pyg.GATConv(C, 8, edge_dim=F)
    change(layer)
    assert convert(layer).left == {"": why}
    assert type(layer) is pyg.GATConv


def test_a_layer_is_replaced_once_its_hook_is_gone():
    layer = pyg.GATConv(C, 8)
    handle = layer.register_message_forward_hook(lambda *args: None)
    assert convert(layer).replaced == ()
    handle.remove()
    assert convert(layer).replaced == ("",)


def test_unknown_attention_is_told_and_the_rest_is_not():
    model = ModuleList(
        [
            pyg.SuperGATConv(C, C),
            pyg.GCNConv(C, C),
            torch.nn.TransformerEncoderLayer(C, 2),
            pyg.aggr.GraphMultisetTransformer(C, 3),  # with attention inside, which goes with it
        ]
    )
    report = convert(model)
    assert report.replaced == ()
    assert list(report.left) == ["0", "2.self_attn", "3"]
    assert report.left["0"] == report.left["3"] == "graphformer has no such layer"
    assert report.left["2.self_attn"].startswith("without a pattern torch's own is as good")
    assert type(model[2].self_attn) is MultiheadAttention


def test_what_is_no_model_is_refused():
    with pytest.raises(InputError, match=r"convert: model must be a torch.nn.Module; got OrderedDict"):
        convert(pyg.GATConv(C, C).state_dict())


def test_the_table():
    model = ModuleList([pyg.GATv2Conv(C, C), pyg.GATConv(C, C, aggr="max")])
    table = """\
1 replaced, 1 left
0  GATv2Conv  replaced
1  GATConv    left: aggr='max' is no sum"""
    assert repr(convert(model)) == table
    assert repr(convert(pyg.GATConv(C, C))) == "1 replaced, 0 left\n(model)  GATConv  replaced"
