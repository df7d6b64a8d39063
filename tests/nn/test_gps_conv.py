"""PyG's GPSConv and ours from the same weights; patterns, edges and relations in the global part; kept graphs."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
import torch_geometric.nn as pyg
from torch._dynamo.utils import counters
from torch_geometric.data import Batch, Data

from graphformer._errors import InputError
from graphformer.graphs import AttentionGraph
from graphformer.nn import GPSConv, GraphAttention, MultiheadAttention, TransformerConv
from graphformer.nn.node_facts import graph_of
from graphformer.patterns import (
    Distance,
    Edges,
    EdgeType,
    Expander,
    Full,
    Hops,
    Pairs,
    VirtualNode,
    Window,
    Within,
)
from graphformer.testing import assert_close

C, F = 8, 3
SIZES = [5, 1, 7]


def molecules(sizes=SIZES, dtype=torch.float64):
    graphs = []
    for size in sizes:
        edge_index = torch.randint(size, (2, 2 * size))
        attr = torch.randn(2 * size, F, dtype=dtype)
        graphs.append(Data(x=torch.randn(size, C, dtype=dtype), edge_index=edge_index, edge_attr=attr))
    return Batch.from_data_list(graphs)


def gine():
    return pyg.GINEConv(torch.nn.Linear(C, C), edge_dim=F)


def gatv2():
    return pyg.GATv2Conv(C, C, edge_dim=F)


def nothing():
    return None


def pair(conv=nothing, dtype=torch.float64, **options):
    options.setdefault("heads", 2)
    theirs = pyg.GPSConv(C, conv(), **options).to(dtype)
    ours = GPSConv(C, conv(), **options).to(dtype)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def check(ours, theirs, x, edge_index, batch, **arguments):
    """Results, all gradients and all running statistics."""
    x = x.clone().requires_grad_()
    outs = [layer(x, edge_index, batch, **arguments) for layer in (ours, theirs)]
    assert_close(*outs)
    grad = torch.randn_like(outs[0])
    leaves = [[x, *layer.parameters()] for layer in (ours, theirs)]
    pairs = [torch.autograd.grad(out, of, grad, allow_unused=True) for out, of in zip(outs, leaves, strict=True)]
    for one, other in zip(*pairs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(one, other)
    for one, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert_close(one.to(x.dtype), other.to(x.dtype))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["batch_norm", "layer_norm", "graph_norm", "instance_norm", "pair_norm", None])
@pytest.mark.parametrize("conv", [nothing, gine, gatv2])
def test_the_numbers_are_pygs(conv, norm, training):
    ours, theirs = (layer.train(training) for layer in pair(conv, norm=norm))
    data = molecules()
    arguments = {} if conv is nothing else {"edge_attr": data.edge_attr}
    check(ours, theirs, data.x, data.edge_index, data.batch, **arguments)


OPTIONS = [
    {"act": "elu", "act_kwargs": {"alpha": 0.3}},
    {"heads": 1},
    {"heads": 8},
    {"norm": "batch_norm", "norm_kwargs": {"momentum": 0.3}},
    {"attn_kwargs": {"bias": False}},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_options_are_pygs(options, dtype):
    ours, theirs = pair(gine, dtype, **options)
    data = molecules(dtype=dtype)
    check(ours.eval(), theirs.eval(), data.x, data.edge_index, data.batch, edge_attr=data.edge_attr)


def test_one_graph_needs_no_batch():
    ours, theirs = pair(gine)
    data = molecules([7])
    check(ours, theirs, data.x, data.edge_index, None, edge_attr=data.edge_attr)
    check(ours, theirs, data.x, data.edge_index, data.batch, edge_attr=data.edge_attr)


def test_graphs_without_nodes():
    ours, theirs = pair()
    data = molecules()
    batch = data.batch * 2  # every second graph has none
    check(ours, theirs, data.x, data.edge_index, batch)
    for none in (batch[:0], None):
        assert ours.eval()(data.x[:0], data.edge_index[:, :0], none).shape == (0, C)


def test_the_same_seed_gives_the_same_weights():
    layers = []
    for kind in (pyg.GPSConv, GPSConv):
        torch.manual_seed(3)
        layers.append(kind(C, gine(), heads=2))
    for first, second in zip(*(layer.state_dict().items() for layer in layers), strict=True):
        assert first[0] == second[0]
        assert torch.equal(first[1], second[1])


def test_dropout_is_drawn_in_training_only():
    layer = GPSConv(C, None, heads=2, norm=None, attn_kwargs={"dropout": 0.5}).double()
    data = molecules()
    assert not torch.equal(layer(data.x, None, data.batch), layer(data.x, None, data.batch))
    layer.eval()
    assert torch.equal(layer(data.x, None, data.batch), layer(data.x, None, data.batch))


def test_a_layer_like_any_other():
    ours, theirs = pair(gine)
    data = molecules()
    wanted = ours.eval()(data.x, data.edge_index, data.batch, edge_attr=data.edge_attr)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(twin(data.x, data.edge_index, data.batch, edge_attr=data.edge_attr), wanted)
    held = io.BytesIO()
    torch.save(ours.state_dict(), held)
    held.seek(0)
    theirs.load_state_dict(torch.load(held))
    assert repr(ours) == repr(theirs)
    assert repr(GPSConv(C, None, pattern=Window(2))) == repr(pyg.GPSConv(C, None))[:-1] + ", pattern=Window(radius=2))"
    before = ours.attn.in_proj_weight.clone()
    ours.reset_parameters()
    assert not torch.equal(ours.attn.in_proj_weight, before)


def test_what_no_kernel_does_is_pygs():
    data = molecules()
    for options in ({"attn_type": "performer"}, {"attn_kwargs": {"add_zero_attn": True}}):
        ours, theirs = (layer.eval() for layer in pair(**options))
        ours.load_state_dict(theirs.state_dict())
        assert len(ours.why_unfused()) == 1
        assert_close(ours(data.x, None, data.batch), theirs(data.x, None, data.batch))


def test_hooks_on_the_attention_are_called():
    ours, theirs = (layer.eval() for layer in pair())
    data, seen = molecules(), []
    assert ours.why_unfused() == []
    handle = ours.attn.register_forward_hook(lambda *call: seen.append(call))
    assert_close(ours(data.x, None, data.batch), theirs(data.x, None, data.batch))
    assert len(seen) == 1
    handle.remove()
    ours(data.x, None, data.batch)
    assert len(seen) == 1


# ---------------------------------------------------------------- patterns, edges, relations


def with_mask(theirs, data, mask):
    """PyG's layer with a dense mask, True for what is removed, over all nodes as one graph."""
    theirs.attn.register_forward_pre_hook(
        lambda _, inputs, options: (inputs, dict(options, attn_mask=mask, key_padding_mask=None)), with_kwargs=True
    )
    return theirs(data.x, data.edge_index, None)


@pytest.mark.parametrize(
    "pattern",
    [Window(1), Edges(self_loops=True), Edges() | Expander(2) | VirtualNode(), Hops(2) | Window(0)],
    ids=repr,
)
def test_any_pattern_is_its_dense_mask(pattern):
    data = molecules()
    ours = GPSConv(C, None, heads=2, pattern=pattern).double().eval()
    theirs = pyg.GPSConv(C, None, heads=2).double().eval()
    theirs.load_state_dict(ours.state_dict())
    dense = (pattern & Full()).on(data).to_dense(counts=True)
    assert dense.sum() < Full().on(data).num_edges
    mask = torch.log(dense.double())  # a pair that is there twice counts twice
    wanted = with_mask(theirs, data, mask)
    assert_close(ours(data.x, data.edge_index, data.batch), wanted)
    assert_close(ours(data.x, data.edge_index, data.batch, graph=pattern.on(data)), wanted)
    assert_close(ours(data.x, AttentionGraph.from_edge_index(data.edge_index, len(data.x)), data.batch), wanted)


@pytest.mark.parametrize("pattern", [None, Edges() | VirtualNode()], ids=repr)
def test_edge_features_reach_the_global_part(pattern):
    """The same attention as that of GraphAttention, which has the same maps."""
    data = molecules()
    layer = GPSConv(C, None, heads=2, norm=None, pattern=pattern, edge_dim=F).double()
    other = GraphAttention(C, C, 2, edge_dim=F).double()
    with torch.no_grad():
        for name, weight, bias in zip(
            ("query", "key", "value"), layer.attn.in_proj_weight.chunk(3), layer.attn.in_proj_bias.chunk(3), strict=True
        ):
            getattr(other, f"lin_{name}").weight.copy_(weight)
            getattr(other, f"lin_{name}").bias.copy_(bias)
        other.lin_out.load_state_dict(layer.attn.out_proj.state_dict())
        other.edge_key.copy_(layer.edge_key)
        other.edge_value.copy_(layer.edge_value)
    graph = (Edges() | Full() if pattern is None else pattern).on(data)
    x = other(data.x, graph, data.edge_attr) + data.x
    assert_close(layer(data.x, data.edge_index, data.batch, edge_attr=data.edge_attr), x + layer.mlp(x))
    one = GPSConv(C, None, heads=2, edge_dim=1).double()
    flat = one(data.x, data.edge_index, data.batch, edge_attr=data.edge_attr[:, 0])
    assert_close(flat, one(data.x, data.edge_index, data.batch, edge_attr=data.edge_attr[:, :1]))


def test_relations_shift_the_score():
    data = molecules([6])
    layer = GPSConv(C, None, heads=2, pattern=Full().as_relation(Distance(3)), num_relations=8).double().eval()
    theirs = pyg.GPSConv(C, None, heads=2).double().eval()
    theirs.load_state_dict(layer.state_dict(), strict=False)
    assert_close(layer(data.x, None, data.batch), theirs(data.x, None, data.batch))  # starts at zero
    torch.nn.init.normal_(layer.relation_bias)
    relation = Full().as_relation(Distance(3)).on(6).relation.view(6, 6).long()
    wanted = with_mask(theirs, data, layer.relation_bias.detach()[relation].permute(2, 0, 1))
    assert_close(layer(data.x, None, data.batch), wanted)
    layer.reset_parameters()
    assert (layer.relation_bias == 0).all()


def test_terms_are_parameters_only_where_asked_for():
    theirs = pyg.GPSConv(C, gine(), heads=2)
    assert GPSConv(C, gine(), heads=2, pattern=Window(1)).state_dict().keys() == theirs.state_dict().keys()
    asked = GPSConv(C, gine(), heads=2, edge_dim=F, num_relations=4)
    assert asked.state_dict().keys() - theirs.state_dict().keys() == {"edge_key", "edge_value", "relation_bias"}
    before = asked.edge_key.clone()
    asked.reset_parameters()
    assert not torch.equal(asked.edge_key, before)


def test_patterns_read_what_forward_is_given():
    data = molecules([6])
    pos, types = torch.randn(6, 2), torch.randint(4, (data.num_edges,))
    near = graph_of(Within(1.0), 6, data.edge_index, data.batch, {"pos": pos, "size": None})
    assert near == Within(1.0).on(Data(pos=pos))
    typed = graph_of(Edges().as_relation(EdgeType(4)), 6, data.edge_index, None, {"edge_type": types})
    assert torch.equal(typed.relation.long().sort().values, types.sort().values)


# ---------------------------------------------------------------- one graph a batch


def counted():
    """Full attention that tells how often it was laid."""
    laid = []

    def pairs(num_nodes):
        laid.append(num_nodes)
        return torch.cartesian_prod(torch.arange(num_nodes), torch.arange(num_nodes)).t()

    return Pairs(pairs), laid


def test_layers_share_one_graph_a_batch():
    pattern, laid = counted()
    layers = [GPSConv(C, gine(), pattern=pattern).double() for _ in range(3)]
    for data in (molecules([5, 7]), molecules([5, 7])):
        for batch in (data.batch, None):
            laid.clear()
            x = data.x
            for layer in layers:
                x = layer(x, data.edge_index, batch, edge_attr=2 * x[: data.num_edges].mean() * data.edge_attr)
            assert laid == ([5, 7] if batch is not None else [12])


def test_a_kept_graph_is_made_anew_when_what_it_was_made_from_changes():
    data = molecules([4, 3])
    edge_index, pos = data.edge_index.clone(), torch.randn(7, 2)

    def lay(pattern=None):
        return graph_of(Edges() if pattern is None else pattern, 7, edge_index, data.batch, {"pos": pos})

    first = lay()
    assert lay() is first
    edge_index[0, 0] = edge_index[1, 0]
    assert lay() is not first
    second, edge_index = lay(), edge_index.clone()
    assert lay() is not second
    near = lay(Within(1.0))
    assert lay(Within(1.0)) is near
    edge_index = edge_index.clone()  # which that pattern does not read
    assert lay(Within(1.0)) is near
    pos += 10 * torch.randn(7, 2)
    assert lay(Within(1.0)) is not near
    full = lay(Full())
    data.batch[2:] = 1
    assert lay(Full()).num_edges != full.num_edges


def test_a_kept_graph_holds_none_of_the_tensors():
    data = molecules()
    there = [weakref.ref(tensor) for tensor in (data.batch, data.edge_index)]
    kept = weakref.ref(graph_of(Edges() | Full(), 13, data.edge_index, data.batch, {}))
    alone = weakref.ref(graph_of(Edges() | Full(), 13, data.edge_index, None, {}))
    assert kept() is not None
    assert alone() is not None
    del data
    gc.collect()
    assert [tensor() for tensor in there] == [None, None]
    assert kept() is None
    assert alone() is None


def test_training_after_inference_mode():
    ours, theirs = pair(gine)
    data = molecules()
    with torch.inference_mode():
        ours.eval()(data.x, data.edge_index, data.batch, edge_attr=data.edge_attr)
    check(ours.train(), theirs, data.x, data.edge_index, data.batch, edge_attr=data.edge_attr)
    with torch.inference_mode():
        inside = molecules([7, 3])
        out = ours.eval()(inside.x, inside.edge_index, inside.batch, edge_attr=inside.edge_attr)
        assert_close(out, theirs.eval()(inside.x, inside.edge_index, inside.batch, edge_attr=inside.edge_attr))


# ---------------------------------------------------------------- torch.compile


def compile_of(layer):
    torch._dynamo.reset()
    counters.clear()
    return torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")


def test_compiled_with_a_batch():
    ours, theirs = pair(gine)
    compiled = compile_of(ours)
    for sizes in (SIZES, [3, 9, 2, 6]):
        data = molecules(sizes)
        check(compiled, theirs, data.x, data.edge_index, data.batch, edge_attr=data.edge_attr)
    assert counters["stats"]["unique_graphs"] == 1  # other sizes, same program
    data = molecules([8])
    check(compiled, theirs, data.x, data.edge_index, None, edge_attr=data.edge_attr)


def test_compiled_with_dropout_of_the_weights():
    layer = GPSConv(C, None, heads=2, norm=None, attn_kwargs={"dropout": 0.5}).double()
    data, compiled = molecules(), compile_of(layer)
    assert not torch.equal(compiled(data.x, None, data.batch), compiled(data.x, None, data.batch))


def test_compiled_with_a_graph():
    layer = GPSConv(C, None, heads=2, pattern=Edges() | Expander(2), edge_dim=F).double().eval()
    compiled = compile_of(layer)
    for sizes in (SIZES, [3, 9, 2, 6]):
        data = molecules(sizes)
        graph = layer.pattern.on(data)
        wanted = layer(data.x, data.edge_index, data.batch, edge_attr=data.edge_attr)
        assert_close(compiled(data.x, data.edge_index, data.batch, edge_attr=data.edge_attr, graph=graph), wanted)


@pytest.mark.slow
def test_compiled_without_the_library_is_pygs(monkeypatch):
    monkeypatch.setattr("graphformer.kernels.native.LIBRARY", None)
    ours, theirs = pair()
    data = molecules()
    assert_close(compile_of(ours)(data.x, None, data.batch), theirs(data.x, None, data.batch))


# ---------------------------------------------------------------- refusals


def test_what_does_not_fit_is_refused():
    data = molecules()
    with pytest.raises(InputError, match="pattern must be a pattern or None; got str"):
        GPSConv(C, None, pattern="full")
    with pytest.raises(InputError, match="edge_dim must be at least 1; got 0"):
        GPSConv(C, None, edge_dim=0)
    with pytest.raises(InputError, match="num_relations must be an integer"):
        GPSConv(C, None, num_relations=1.5)
    with pytest.raises(InputError, match="backend must be one of auto, native, reference"):
        GPSConv(C, None, backend="fast")
    for options in ({"pattern": Window(1)}, {"num_relations": 3}, {"edge_dim": F, "pattern": Full()}):
        with pytest.raises(InputError, match="must meet attention on pairs; got attn_type='performer' has no pairs"):
            GPSConv(C, None, attn_type="performer", **options)
    layer = GPSConv(C, None, attn_kwargs={"add_bias_kv": True}).double()
    with pytest.raises(InputError, match="must meet attention on pairs; got attn adds keys that are no nodes"):
        layer(data.x, None, data.batch, graph=Full().on(data))
    layer = GPSConv(C, None).double()
    layer.attn = MultiheadAttention(C, 1, batch_first=True, dtype=torch.float64)
    assert layer.why_unfused() == []
    layer.attn = type("Own", (torch.nn.MultiheadAttention,), {})(C, 1, batch_first=True, dtype=torch.float64)
    with pytest.raises(InputError, match="must meet attention on pairs; got attn is Own, not torch's"):
        layer(data.x, None, data.batch, graph=Full().on(data))
    layer = GPSConv(C, None, num_relations=1).double()
    with pytest.raises(InputError, match="pattern must carry at most num_relations = 1 relations; got none"):
        layer(data.x, None, data.batch)
    with pytest.raises(InputError, match="pattern must carry at most num_relations = 1 relations; got 3"):
        layer(data.x, None, data.batch, graph=Full().as_relation(2).on(data))
    layer = GPSConv(C, None, edge_dim=F).double()
    with pytest.raises(InputError, match="edge_attr must be given where edge_dim = 3"):
        layer(data.x, data.edge_index, data.batch)
    for conv in (gine(), TransformerConv(C, C, edge_dim=F)):  # which would say it in words of its own
        layer = GPSConv(C, conv, edge_dim=F).double()
        with pytest.raises(
            InputError, match=r"GPSConv: edge_attr must be given where edge_dim = 3; got None\. Pass edge"
        ):
            layer(data.x, data.edge_index, data.batch)
    with pytest.raises(InputError, match="pattern must know which pairs are edges where edge_dim is given"):
        layer(data.x, data.edge_index, data.batch, edge_attr=data.edge_attr, graph=Full().on(data))
    with pytest.raises(InputError, match="nodes.batch must be sorted"):
        GPSConv(C, None).double()(data.x, None, data.batch.flip(0))
