"""GPSConv lays one graph a batch, makes it anew when the batch changes, and none under torch.compile."""

import gc
import weakref

import pytest
import torch
from gps_cases import SIZES, C, F, check, gine, molecules, pair
from torch._dynamo.utils import counters

from graphformer.nn import GPSConv
from graphformer.nn.node_facts import graph_of
from graphformer.patterns import (
    Edges,
    Expander,
    Full,
    Pairs,
    Within,
)
from graphformer.testing import assert_close

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
