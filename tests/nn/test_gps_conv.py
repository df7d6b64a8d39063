"""PyG's GPSConv and ours from the same weights, and what does not fit."""

import copy
import io
import pickle

import pytest
import torch
import torch_geometric.nn as pyg
from gps_cases import C, F, check, gatv2, gine, molecules, nothing, pair

from graphformer._errors import InputError
from graphformer.nn import GPSConv, MultiheadAttention, TransformerConv
from graphformer.patterns import (
    Full,
    Window,
)
from graphformer.testing import assert_close


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


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
def test_torch_jit_traces_pygs_forward():
    """A trace of the kernel would hold one batch's offsets; a smaller batch would then read what is not there."""
    ours, theirs = (layer.eval() for layer in pair(norm="layer_norm", norm_kwargs={"mode": "node"}))
    data, other = molecules(), molecules([4, 6, 2])
    traced = torch.jit.trace(ours, (data.x, data.edge_index, data.batch), check_trace=False)
    assert_close(traced(other.x, other.edge_index, other.batch), theirs(other.x, None, other.batch))
    layer = GPSConv(C, None, pattern=Window(1)).double()
    with pytest.raises(InputError, match="must meet attention on pairs; got torch.jit traces no graph of nodes"):
        torch.jit.trace(layer, (data.x, data.edge_index, data.batch), check_trace=False)


# ---------------------------------------------------------------- refusals


def test_what_does_not_fit_is_refused():
    data = molecules()
    with pytest.raises(InputError, match="pattern must be a pattern or None; got str"):
        GPSConv(C, None, pattern="full")
    with pytest.raises(InputError, match="edge_dim must be at least 1; got 0"):
        GPSConv(C, None, edge_dim=0)
    with pytest.raises(InputError, match="num_relations must be an integer"):
        GPSConv(C, None, num_relations=1.5)
    with pytest.raises(InputError, match="backend must be one of auto, native, sdpa, triton, reference"):
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
