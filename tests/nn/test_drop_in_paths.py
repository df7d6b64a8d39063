"""Which path runs: the kernel, or PyG's messages for whoever asks for them."""

import inspect
import types

import pytest
import torch
import torch_geometric.nn as pyg
from drop_in_cases import (
    KERNEL,
    MESSAGES,
    C,
    D,
    E,
    F,
    N,
    assert_same,
    counted,
    distinct_edges,
    each_layer,
    no_skip,
    some_edges,
    twins,
)

from graphformer import nn as ours

pytestmark = pytest.mark.usefixtures("float64")


def own_message(layer):
    layer.message = types.MethodType(lambda self, **given: type(self).message(self, **given), layer)


def own_propagate(layer):
    def propagate(self, *arguments, **keywords):
        return type(self).propagate(self, *arguments, **keywords)

    layer.propagate = types.MethodType(propagate, layer)


def biased_map(layer):
    layer.lin_edge = pyg.Linear(F, layer.lin_edge.out_channels, bias_initializer="zeros")
    torch.nn.init.ones_(layer.lin_edge.bias)


STEPS = ("propagate", "message", "aggregate", "edge_update")
HOOKS = [f"{step}_forward_{kind}" for step in STEPS for kind in ("pre_hook", "hook")]
UNFUSED = {
    "explain": (lambda layer: setattr(layer, "explain", True), "an explainer asks for messages"),
    "own message": (own_message, "has a message of its own"),
    "own propagate": (own_propagate, "has a propagate of its own"),
    "own map": (lambda layer: setattr(layer, "lin_edge", torch.nn.Sequential(layer.lin_edge)), "lin_edge is no plain"),
    "map with a bias": (biased_map, "lin_edge is no plain"),
    "hook on the map": (lambda layer: layer.lin_edge.register_forward_hook(lambda *_: None), "lin_edge has hooks"),
    "pre-hook on the map": (
        lambda layer: layer.lin_edge.register_forward_pre_hook(lambda *_: None),
        "lin_edge has hoo",
    ),
    "hook on the sum": (lambda layer: layer.aggr_module.register_forward_hook(lambda *_: None), "aggr_module has hook"),
    "other sum": (lambda layer: setattr(layer, "aggr_module", pyg.MeanAggregation()), "is no sum"),
    "weight norm": (lambda layer: torch.nn.utils.parametrizations.weight_norm(layer.lin_edge), "lin_edge is no plain"),
}
for hook in HOOKS:
    step = hook.split("_forward")[0]
    UNFUSED[hook] = (lambda layer, hook=hook: getattr(layer, f"register_{hook}")(lambda *_: None), f"hooks on {step}")
FUSED = {
    "nothing": lambda layer: None,
    "explain off": lambda layer: (setattr(layer, "explain", True), setattr(layer, "explain", False)),
    "a hook that was removed": lambda layer: layer.register_message_forward_hook(lambda *_: None).remove(),
    "forward hook": lambda layer: layer.register_forward_hook(lambda *_: None),
    "weight norm of a map that is called": lambda layer: torch.nn.utils.parametrizations.weight_norm(first_map(layer)),
}


def first_map(layer):
    return next(module for name, module in layer.named_modules() if name in ("lin_key", "lin", "lin_l"))


@each_layer
@pytest.mark.parametrize("reason", UNFUSED)
def test_pygs_messages_are_sent(name, reason):
    theirs, mine = twins(name, edge_dim=F)
    x, edge_index, edge_attr = torch.randn(N, C), distinct_edges(), torch.randn(E, F)
    change, why = UNFUSED[reason]
    for layer in (theirs, mine):
        torch.manual_seed(1)
        change(layer)
        if reason == "explain":
            layer._edge_mask, layer._loop_mask = torch.linspace(-1, 1, E), edge_index[0] != edge_index[1]
    with counted() as paths:
        found = mine(x, edge_index, edge_attr, return_attention_weights=True)
    assert paths == MESSAGES
    (line,) = mine.why_unfused()
    assert why in line
    assert_same(found, theirs(x, edge_index, edge_attr, return_attention_weights=True))


@each_layer
@pytest.mark.parametrize("change", FUSED)
def test_the_kernel_runs(name, change):
    theirs, mine = twins(name, edge_dim=F)
    for layer in (theirs, mine):
        torch.manual_seed(0)
        FUSED[change](layer)
    x, edge_index, edge_attr = torch.randn(N, C), some_edges(), torch.randn(E, F)
    with counted() as paths:
        found = mine(x, edge_index, edge_attr)
    assert paths == KERNEL
    assert mine.why_unfused() == []
    assert_same(found, theirs(x, edge_index, edge_attr))


@each_layer
@pytest.mark.parametrize("aggr", ["sum", "add", "mean", "max", "min", "softmax", ["sum", "mean"]], ids=str)
def test_aggregations(name, aggr):
    theirs, mine = twins(name, aggr=aggr, heads=1, **no_skip(name))  # which is not as wide as two aggregations
    x, edge_index = torch.randn(N, C), some_edges()
    with counted() as paths:
        found = mine(x, edge_index)
    assert paths == (KERNEL if aggr in ("sum", "add") else MESSAGES)
    assert_same(found, theirs(x, edge_index))


def test_decomposed_layers_split_the_channels():
    """Which PyG does for none of the three; with ours it is PyG that says so."""
    for layer in twins("GATConv"):
        layer.decomposed_layers = 2
        with pytest.raises(AttributeError, match="'tuple' object has no attribute 'chunk'"):
            layer(torch.randn(N, C), some_edges())
    assert layer.why_unfused() == ["decomposed_layers splits the channels"]
    layer.decomposed_layers = 1
    assert layer.why_unfused() == []


def doubled(kind, step):
    """A subclass whose step gives twice what its parent's gives."""

    def run(self, *arguments, **keywords):
        return 2 * getattr(kind, step)(self, *arguments, **keywords)

    run.__name__, run.__signature__ = step, inspect.signature(getattr(kind, step))
    return type(f"Doubled{kind.__name__}", (kind,), {step: run})


@each_layer
@pytest.mark.parametrize("step", ["message", "aggregate", "update", "propagate"])
def test_steps_of_a_subclass_are_taken(name, step):
    x, edge_index = torch.randn(N, C), some_edges()
    options = {"bias": False, **no_skip(name)}
    torch.manual_seed(1)
    plain = getattr(ours, name)(C, D, **options)
    torch.manual_seed(1)
    layer = doubled(getattr(ours, name), step)(C, D, **options)
    with counted() as paths:
        found = layer(x, edge_index)
    assert paths["kernel"] == 0
    assert_same(found, 2 * plain(x, edge_index))
    assert layer.why_unfused() == [f"Doubled{name} has a {step} of its own"]


class Sharpened(ours.GATConv):
    """Squares its weights."""

    def edge_update(self, alpha_j, alpha_i, edge_attr, index, ptr, dim_size):
        return super().edge_update(alpha_j, alpha_i, edge_attr, index, ptr, dim_size).square()


class Loud:
    """A class beside, whose step comes first."""

    def message(self, x_j, alpha):
        return 3 * super().message(x_j, alpha)


class LoudGAT(Loud, ours.GATv2Conv):
    pass


class Renamed(ours.TransformerConv):
    """Changes nothing but the forward's arguments."""

    def forward(self, nodes, edges):
        return super().forward(nodes, edges)


def test_subclasses():
    x, edge_index = torch.randn(N, C), some_edges()
    sharpened = Sharpened(C, D)
    _, (_, alpha) = sharpened(x, edge_index, return_attention_weights=True)
    sharpened.__class__ = ours.GATConv
    assert_same(alpha, sharpened(x, edge_index, return_attention_weights=True)[1][1].square())
    loud = LoudGAT(C, D, bias=False)
    found = loud(x, edge_index)
    loud.__class__ = ours.GATv2Conv
    assert_same(found, 3 * loud(x, edge_index))
    renamed = Renamed(C, D)
    with counted() as paths:
        assert renamed(x, edge_index).shape == (N, D)
    assert paths == KERNEL
    assert repr(renamed) == "Renamed(6, 4, heads=1)"


@each_layer
def test_hooks_see_and_change_messages(name):
    theirs, mine = twins(name)
    x, edge_index, seen = torch.randn(N, C), some_edges(), []

    def message_hook(module, inputs, out):
        seen.append(sorted(inputs[0]))
        return 2 * out

    def propagate_hook(module, inputs, out):
        return out + 1

    for layer in (theirs, mine):
        layer.register_message_forward_hook(message_hook)
        layer.register_propagate_forward_hook(propagate_hook)
    assert_same(mine(x, edge_index), theirs(x, edge_index))
    assert seen[0] == seen[1]


@each_layer
def test_module_hooks_fire_as_for_pyg(name):
    calls = []
    x, edge_index = torch.randn(N, C, requires_grad=True), some_edges()
    for layer in twins(name):
        heard = []
        for place, module in layer.named_modules():
            if place not in ("lin_edge", "aggr_module", "lin_r"):
                module.register_forward_pre_hook(lambda *_, place=place, heard=heard: heard.append(("before", place)))
                module.register_forward_hook(lambda *_, place=place, heard=heard: heard.append(("after", place)))
                module.register_full_backward_hook(lambda *_, place=place, heard=heard: heard.append(("back", place)))
        layer(x, edge_index).sum().backward()
        calls.append(sorted(heard))
    assert calls[0] == calls[1]
