"""The layers among PyG's and torch's things: which path runs, models, loaders, explainers, compilers, processes."""

import inspect
import os
import subprocess
import sys
import types

import pytest
import torch
import torch._dynamo.testing
import torch_geometric.nn as pyg
from drop_in_cases import GATS, NAMES, C, D, E, F, N, assert_same, counted, distinct_edges, some_edges, twins
from torch_geometric import typing
from torch_geometric.data import Data
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn.models import basic_gnn
from torch_geometric.utils import trim_to_layer

from graphformer import nn as ours
from graphformer.nn.conv.fused import FusedConv
from graphformer.patterns import Window
from graphformer.testing import assert_close

each_layer = pytest.mark.parametrize("name", NAMES)
KERNEL, MESSAGES = {"kernel": 1}, {"messages": 1}


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def no_loops(name):
    return {} if name == "TransformerConv" else {"add_self_loops": False}


# ---------------------------------------------------------------- which path runs


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
    options = {"root_weight": False} if name == "TransformerConv" else {}  # which is not as wide as two aggregations
    theirs, mine = twins(name, aggr=aggr, heads=1, **options)
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
    options = {"bias": False, **({"root_weight": False} if name == "TransformerConv" else {})}
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


def hetero_graph():
    x = {"paper": torch.randn(N, C), "author": torch.randn(5, 3)}
    edges = {
        ("paper", "cites", "paper"): some_edges(),
        ("author", "writes", "paper"): some_edges(5, N),
        ("paper", "rev_writes", "author"): some_edges(N, 5),
    }
    return x, edges


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


class Net(torch.nn.Module):
    """Two layers, the second as wide as the first."""

    def __init__(self, module, name, **options):
        super().__init__()
        options = {**no_loops(name), **options}
        self.first = getattr(module, name)((-1, -1), D, heads=2, **options)
        self.second = getattr(module, name)((-1, -1), D, heads=2, **options)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


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


# ---------------------------------------------------------------- explainers


@each_layer
def test_attention_explainer(name):
    explanations, x, edge_index = [], torch.randn(N, C), distinct_edges()
    models = [Net(module, name) for module in (pyg, ours)]
    for model in models:
        model(x, edge_index)
    models[1].load_state_dict(models[0].state_dict())
    expected = models[0](x, edge_index)
    for model in models:
        explainer = Explainer(
            model,
            algorithm=AttentionExplainer(),
            explanation_type="model",
            edge_mask_type="object",
            model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
        )
        explanations.append(explainer(x, edge_index).edge_mask)
    assert explanations[1].shape == (E,)
    assert float(explanations[1].max()) > 0
    assert_close(explanations[1], explanations[0])
    with counted() as paths:
        assert_same(models[1](x, edge_index), expected)
    assert paths == {"kernel": 2}


@each_layer
def test_attention_explainer_of_a_hetero_model(name):
    x, edges = hetero_graph()
    found = []
    state = None
    for module in (pyg, ours):
        model = pyg.to_hetero(Net(module, name), (list(x), list(edges)))
        with torch.no_grad():
            model(x, edges)
        state = model.state_dict() if state is None else state
        model.load_state_dict(state)
        explainer = Explainer(
            HeteroOut(model),
            algorithm=AttentionExplainer(),
            explanation_type="model",
            edge_mask_type="object",
            model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
        )
        found.append(explainer(x, edges))
    for kind in edges:
        assert_close(found[1][kind].edge_mask, found[0][kind].edge_mask)


class HeteroOut(torch.nn.Module):
    """One node type of a model's output."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, edge_index):
        return self.model(x, edge_index)["paper"]


class Fresh(FusedConv, pyg.GATConv):
    """A layer that is made for the first time in the test below."""

    original = pyg.GATConv

    def forward(self, x, edge_index):
        return pyg.GATConv.forward(self, x, edge_index)


def test_explained_after_pygs_layer_was_made():
    """PyG writes propagate anew for each class when it is first made; a later class must not explain by that one."""
    layers = pyg.GATConv(C, D), Fresh(C, D)
    layers[1].load_state_dict(layers[0].state_dict())
    x, edge_index = torch.randn(N, C), distinct_edges()
    plain = layers[1](x, edge_index)
    for layer in layers:
        layer.explain, layer._apply_sigmoid = True, False
        layer._edge_mask, layer._loop_mask = torch.linspace(0, 1, E), edge_index[0] != edge_index[1]
    assert_same(layers[1](x, edge_index), layers[0](x, edge_index))
    assert not torch.allclose(layers[1](x, edge_index), plain)


@each_layer
def test_gnn_explainer(name):
    found, x, edge_index = [], torch.randn(N, C), distinct_edges()
    state = None
    for module in (pyg, ours):
        model = Net(module, name, **({} if name == "TransformerConv" else {"add_self_loops": True}))
        model(x, edge_index)
        state = model.state_dict() if state is None else state
        model.load_state_dict(state)
        torch.manual_seed(0)
        explainer = Explainer(
            model,
            algorithm=GNNExplainer(epochs=5),
            explanation_type="model",
            node_mask_type="attributes",
            edge_mask_type="object",
            model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
        )
        explanation = explainer(x, edge_index, index=1)
        found.append((explanation.edge_mask, explanation.node_mask))
    assert float(found[1][0].max()) > 0
    assert_same(found[1], found[0])
    with counted() as paths:
        model(x, edge_index)
    assert paths == {"kernel": 2}


# ---------------------------------------------------------------- torch.jit, torch.compile, torch.utils.checkpoint


class Scriptable(torch.nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor, edge_attr: torch.Tensor) -> torch.Tensor:
        return self.conv(x, edge_index, edge_attr)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_torch_jit_script_takes_pygs_layer():
    """PyG's own GATConv and GATv2Conv can no longer be scripted."""
    layer = ours.TransformerConv(C, D, heads=2, edge_dim=F)
    given = torch.randn(N, C), some_edges(), torch.randn(E, F)
    scripted = torch.jit.script(Scriptable(layer))
    assert_same(scripted(*given), layer(*given))
    assert scripted.conv.lin_key.weight.data_ptr() == layer.lin_key.weight.data_ptr()
    with counted() as paths:
        layer(*given)
    assert paths == KERNEL


COMPILED = [("TransformerConv", {}), *((name, {"add_self_loops": loops}) for name in GATS for loops in (True, False))]


def run_compiled(name, options, edge_dim, backend, sizes=((7, 19), (9, 30), (11, 31), (8, 23), (40, 90))):
    """Outputs and gradients of the compiled layer are those of the layer itself; counts programs after each size."""
    layer = getattr(ours, name)(C, D, heads=2, edge_dim=edge_dim, **options)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiled, programs = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter), []
    for num_nodes, num_edges in sizes:
        x = torch.randn(num_nodes, C, requires_grad=True)
        edge_index = torch.randint(num_nodes, (2, num_edges))
        edge_attr = None if edge_dim is None else torch.randn(num_edges, edge_dim, requires_grad=True)
        leaves = [x, *layer.parameters(), *([] if edge_attr is None else [edge_attr])]
        grads = []
        for call in (layer, compiled):
            out = call(x, edge_index, edge_attr)
            grads.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
        assert_same(grads[1], grads[0])
        programs.append(counter.frame_count)
    assert "graphformer.attend" in counter.graphs[-1].code
    return programs


@pytest.mark.parametrize(("name", "options"), COMPILED, ids=str)
@pytest.mark.parametrize("edge_dim", [None, F])
def test_compiles_whole_and_once_for_all_sizes(name, options, edge_dim):
    programs = run_compiled(name, options, edge_dim, "aot_eager")
    assert programs[0] == programs[-1]


@pytest.mark.parametrize(("name", "options"), COMPILED, ids=str)
def test_compiles_with_an_attention_graph(name, options):
    layer = getattr(ours, name)(C, D, heads=2, edge_dim=F, **options)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled, programs = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter), []
    for num_nodes in (9, 12, 17):
        graph, x = Window(2).on(num_nodes), torch.randn(num_nodes, C, requires_grad=True)
        edge_attr = torch.randn(graph.num_edges, F)
        found, expected = compiled(x, graph, edge_attr), layer(x, graph, edge_attr)
        assert_same(found, expected)
        assert_same(*(torch.autograd.grad(out.square().sum(), x) for out in (found, expected)))
        programs.append(counter.frame_count)
    assert "graphformer.attend" in counter.graphs[-1].code
    assert programs[0] == programs[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), COMPILED[:2], ids=str)
def test_compiles_with_inductor(name, options):
    programs = run_compiled(name, options, F, "inductor")
    assert programs[0] == programs[-1]


@each_layer
def test_compiled_layers_return_weights_and_stay_unfused(name):
    layer = getattr(ours, name)(C, D, heads=2)
    x, edge_index = torch.randn(N, C), distinct_edges()
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="eager")
    assert_same(
        compiled(x, edge_index, return_attention_weights=True), layer(x, edge_index, return_attention_weights=True)
    )
    expected = layer(x, edge_index)
    layer.aggr_module.register_forward_hook(lambda module, inputs, out: out)
    assert layer.why_unfused() == ["aggr_module has hooks"]
    torch._dynamo.reset()
    with torch.no_grad():
        assert_same(torch.compile(layer, backend="eager")(x, edge_index), expected.detach())


@each_layer
def test_checkpointed_layers_draw_the_same_dropout_again(name):
    layer = getattr(ours, name)(C, D, dropout=0.5)
    x, edge_index = torch.randn(N, C, requires_grad=True), some_edges()
    grads = []
    for call in (layer, lambda *given: torch.utils.checkpoint.checkpoint(layer, *given, use_reentrant=False)):
        torch.manual_seed(0)
        grads.append(torch.autograd.grad(call(x, edge_index).square().sum(), [x, *layer.parameters()]))
    assert_same(grads[1], grads[0])


# ---------------------------------------------------------------- processes

TWO = """
import sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from graphformer import nn as ours
rank, path, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
layers, parts = torch.load(out + "/given.pt", weights_only=False)
found = []
for layer in layers:
    model = DistributedDataParallel(layer)
    x, edge_index, edge_attr = parts[rank]
    for _ in range(2):  # gradients of two steps, with buckets made anew after the first
        model(x, edge_index, edge_attr).square().sum().backward()
    found.append([weight.grad for weight in layer.parameters()])
torch.save(found, f"{out}/found{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_have_the_gradients_of_one(tmp_path):
    layers = [getattr(ours, name)(C, D, heads=2, edge_dim=F) for name in NAMES]
    parts = [(torch.randn(N, C), some_edges(), torch.randn(E, F)) for _ in range(2)]
    torch.save((layers, parts), tmp_path / "given.pt")
    script = tmp_path / "two.py"
    script.write_text(TWO)
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    arguments = str(tmp_path / "meeting"), str(tmp_path)
    processes = [
        subprocess.Popen([sys.executable, script, str(rank), *arguments], env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    found = [torch.load(tmp_path / f"found{rank}.pt") for rank in range(2)]
    x, edge_attr = torch.cat([part[0] for part in parts]), torch.cat([part[2] for part in parts])
    edge_index = torch.cat((parts[0][1], parts[1][1] + N), 1)
    for number, layer in enumerate(layers):
        layer(x, edge_index, edge_attr).square().sum().backward()
        for rank in range(2):
            for weight, grad in zip(layer.parameters(), found[rank][number], strict=True):
                assert_close(grad, weight.grad)  # a mean over two processes, summed over two steps
