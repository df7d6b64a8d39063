"""AttentionalAggregation beside PyG's: values and every gradient, on the kernel's path and on PyG's own."""

import copy
import io

import pytest
import torch
from aggregation_cases import collect_graphs, compare
from torch.nn import Linear, Sequential, Tanh
from torch_geometric import nn as pyg
from torch_geometric.data import HeteroData

from graphformer.nn import AttentionalAggregation
from graphformer.nn.aggr import attentional
from graphformer.testing import assert_close

C, D, B = 6, 5, 7
GATES = {
    "member": lambda: Linear(C, 1),
    "channel": lambda: Sequential(Linear(C, 8), Tanh(), Linear(8, D)),
    "MLP": lambda: pyg.MLP([C, 8, 1], norm="batch_norm"),
    "MLP by set": lambda: pyg.MLP([C, 8, D], norm="graph_norm"),
}
VALUES = {
    "Linear": lambda: Linear(C, D),
    "MLP": lambda: pyg.MLP([C, 8, D], norm="graph_norm"),
}


@pytest.fixture
def calls(monkeypatch):
    """Every input counts as large, and the graphs that the kernel is called with are collected."""
    monkeypatch.setattr(attentional, "_LEAST_BYTES", 0)
    return collect_graphs(monkeypatch, attentional, "attend", 3)


def make_sets(form, num_members=40):
    """How each member's set is told; sets 2 and the last are empty."""
    index = torch.tensor([0, 1, 3, 4, 5])[torch.randint(5, (num_members,))]
    index = index if form == "unsorted" else index.sort().values
    if form == "ptr":
        return {"ptr": torch.nn.functional.pad(torch.bincount(index, minlength=B).cumsum(0), (1, 0))}
    return {"index": index, "dim_size": B}


def twins(gate, value=None, dtype=torch.float64):
    theirs = pyg.AttentionalAggregation(gate(), None if value is None else value()).to(dtype)
    mine = AttentionalAggregation(
        copy.deepcopy(theirs.gate_nn or theirs.gate_mlp), copy.deepcopy(theirs.nn or theirs.mlp)
    )
    assert repr(mine) == repr(theirs)
    return theirs, mine


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("form", ["sorted", "unsorted", "ptr"])
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("gate", GATES)
def test_same_numbers(gate, value, form, dtype, calls):
    theirs, mine = twins(GATES[gate], VALUES[value], dtype)
    out = compare(theirs, mine, torch.randn(40, C, dtype=dtype, requires_grad=True), **make_sets(form))
    assert len(calls) == 1
    assert not out[[2, B - 1]].any()
    for one, other in ((theirs, mine), (mine, theirs)):
        other.load_state_dict(one.state_dict())


@pytest.mark.parametrize("width", [1, C])
@pytest.mark.parametrize("dim", [-2, 0])
def test_without_a_network_for_the_values(width, dim, calls):
    theirs, mine = twins(lambda: Linear(C, width))
    compare(theirs, mine, torch.randn(40, C, dtype=torch.float64, requires_grad=True), **make_sets("unsorted"), dim=dim)
    assert len(calls) == 1


def test_gates_of_many_channels_on_values_of_one(calls):
    theirs, mine = twins(lambda: Linear(C, 4), lambda: Linear(C, 1))
    compare(theirs, mine, torch.randn(40, C, dtype=torch.float64, requires_grad=True), **make_sets("sorted"))
    assert calls[0].num_edges == 40


def test_a_fault_is_seen(calls):
    theirs, mine = twins(GATES["member"])
    with torch.no_grad():
        mine.gate_nn.weight[0, 0] += 1e-6
    with pytest.raises(AssertionError):
        compare(theirs, mine, torch.randn(40, C, dtype=torch.float64, requires_grad=True), **make_sets("sorted"))


@pytest.mark.parametrize("num_members", [0, 1])
def test_few_members(num_members, calls):
    theirs, mine = twins(GATES["member"])
    x = torch.randn(num_members, C, dtype=torch.float64, requires_grad=True)
    compare(theirs, mine, x, index=torch.full((num_members,), 2), dim_size=4)
    assert len(calls) == 1
    assert mine(x).shape == (min(num_members, 1), C)  # neither index nor ptr: one set


def test_only_large_matrices_go_to_the_kernel(calls, monkeypatch):
    mine = AttentionalAggregation(Linear(64, 1))
    index = torch.zeros(2**17, dtype=torch.int64)
    monkeypatch.setattr(attentional, "_LEAST_BYTES", 2**25)
    small = mine(torch.ones(2**17 - 1, 64), index[1:])
    assert len(calls) == 0
    large = mine(torch.ones(2**17, 64), index)
    assert len(calls) == 1
    assert_close(small, large)


def test_what_the_kernel_does_not_know_is_pygs(calls):
    theirs, mine = twins(GATES["member"], VALUES["Linear"])
    batch = torch.randn(3, 40, C, dtype=torch.float64, requires_grad=True)
    compare(theirs, mine, batch, index=make_sets("sorted")["index"])
    compare(theirs, mine, batch, index=torch.tensor([0, 0, 1]), dim=0)
    assert calls == []


def test_it_refuses_in_pygs_words(calls):
    mine = AttentionalAggregation(Linear(C, 1))
    x, index = torch.randn(4, C), torch.tensor([0, 3, 1, 0])
    with pytest.raises(ValueError, match="invalid 'dim_size' \\(got '2' but expected >= '4'\\)"):
        mine(x, index, dim_size=2)
    with pytest.raises(ValueError, match="invalid dimension '2'"):
        mine(x, index, dim=2)
    with pytest.raises(IndexError, match="edge_index must hold ids in \\[0, 5\\); got -1"):
        mine(x, torch.tensor([0, -1, 1, 0]), dim_size=5)


def test_first_and_second_derivatives(calls):
    for gate in ("member", "channel"):
        _, mine = twins(GATES[gate], VALUES["Linear"])
        index = torch.tensor([2, 0, 2])
        names = [name for name, _ in mine.named_parameters()]

        def run(x, *weights, mine=mine, index=index, names=names):
            return torch.func.functional_call(mine, dict(zip(names, weights, strict=True)), (x, index))

        inputs = [torch.randn(3, C, dtype=torch.float64, requires_grad=True), *mine.parameters()]
        assert torch.autograd.gradcheck(run, inputs)
        assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)
    assert calls


def test_a_gate_of_minus_infinity_counts_for_nothing(calls):
    def gate():
        return pyg.Sequential("x", [(lambda x: x[:, :1].log(), "x -> x")])

    x = torch.tensor([[1.0, 2.0], [0.0, 3.0], [0.5, 5.0]])
    theirs, mine = twins(gate, lambda: Linear(2, 3), torch.float32)
    out = compare(theirs, mine, x.requires_grad_(), index=torch.tensor([0, 0, 0]))
    assert out.isfinite().all()
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes_under_autocast(dtype, calls):
    theirs, mine = twins(GATES["channel"], VALUES["Linear"], torch.float32)
    x = torch.randn(40, C).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = (layer(x, **make_sets("sorted")) for layer in (theirs, mine))
    assert actual.dtype == expected.dtype
    assert len(calls) == 1


def test_dtypes_of_gates_and_values_may_differ(calls):
    def halve(dtype):
        return pyg.Sequential("x", [(lambda x: x.to(dtype) / 2, "x -> x")])

    for kinds in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        theirs, mine = twins(*(lambda kind=kind: halve(kind) for kind in kinds))
        out = compare(theirs, mine, torch.randn(40, C, requires_grad=True), **make_sets("sorted"))
        assert out.dtype == torch.float64
    assert len(calls) == 2


def test_inside_message_passing(calls):
    theirs, mine = twins(lambda: Linear(C, 1))
    layers = [pyg.SAGEConv(C, D, aggr=aggr).double() for aggr in (theirs, mine)]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(9, C, dtype=torch.float64, requires_grad=True)
    compare(*layers, x, edge_index=torch.randint(8, (2, 30)))
    assert len(calls) == 1


def test_in_heterogeneous_models(calls):
    def model(kind):
        return pyg.HeteroConv(
            {
                ("a", "to", "b"): pyg.SAGEConv((C, C), D, aggr=kind(Linear(C, 1))),
                ("b", "to", "a"): pyg.SAGEConv((C, C), D),
            }
        )

    theirs, mine = model(pyg.AttentionalAggregation), model(AttentionalAggregation)
    mine.load_state_dict(theirs.state_dict())
    x = {"a": torch.randn(5, C), "b": torch.randn(4, C)}
    edges = {("a", "to", "b"): torch.randint(4, (2, 12)), ("b", "to", "a"): torch.randint(4, (2, 9))}
    actual = mine(x, edges)
    for name, expected in theirs(x, edges).items():
        assert_close(actual[name], expected)
    data = HeteroData()
    for name, value in x.items():
        data[name].x = value
    for name, value in edges.items():
        data[name].edge_index = value
    single = pyg.Sequential(
        "x, edge_index", [(pyg.SAGEConv((C, C), D, aggr=mine.convs["a", "to", "b"].aggr_module), "x, edge_index -> x")]
    )
    assert pyg.to_hetero(single, data.metadata())(x, edges)["b"].shape == (4, D)
    assert len(calls) == 1 + 2


@pytest.mark.parametrize("gate", ["member", "channel"])
@pytest.mark.parametrize("form", ["unsorted", "ptr"])
def test_compiled_without_breaks(gate, form, monkeypatch):
    monkeypatch.setattr(attentional, "_LEAST_BYTES", 0)
    torch._dynamo.reset()
    theirs, mine = twins(GATES[gate], VALUES["Linear"])
    traced = []

    def backend(module, inputs):
        traced.append(str(module.graph))
        return torch._dynamo.lookup_backend("aot_eager")(module, inputs)

    compiled = torch.compile(mine, backend=backend, fullgraph=True, dynamic=True)
    counts = []
    for num_members in (40, 31, 23):
        x = torch.randn(num_members, C, dtype=torch.float64, requires_grad=True)
        compare(theirs, compiled, x, **make_sets(form, num_members))
        counts.append(len(traced))
    assert all("graphformer.attend" in graph for graph in traced)
    assert counts[0] == counts[-1]


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
def test_torch_jit_takes_pygs_layer(calls):
    _, mine = twins(GATES["member"], VALUES["Linear"])
    x, index = torch.randn(40, C, dtype=torch.float64), make_sets("sorted")["index"]
    expected = mine(x, index, dim_size=B)
    assert len(calls) == 1
    assert_close(torch.jit.script(mine)(x, index, dim_size=B), expected)
    assert_close(torch.jit.trace(mine, (x, index), check_trace=False)(x, index), expected[: int(index.max()) + 1])
    assert len(calls) == 1


def test_copies(calls):
    _, mine = twins(GATES["channel"], VALUES["MLP"])
    x, sets = torch.randn(40, C, dtype=torch.float64), make_sets("sorted")
    file = io.BytesIO()
    torch.save(mine, file)
    file.seek(0)
    for other in (copy.deepcopy(mine), torch.load(file, weights_only=False)):
        assert type(other) is AttentionalAggregation
        assert torch.equal(other(x, **sets), mine(x, **sets))
    before = mine.gate_nn[0].weight.clone()
    mine.reset_parameters()
    assert not torch.equal(before, mine.gate_nn[0].weight)


def test_a_reused_index_is_read_anew_after_a_change(calls):
    mine = AttentionalAggregation(Linear(C, 1))
    x, index = torch.randn(4, C), torch.tensor([0, 0, 1, 1])
    before = mine(x, index, dim_size=2)
    assert mine(x, index, dim_size=2).equal(before)
    assert calls[0] is calls[1]
    assert mine(x, index, dim_size=3)[:2].equal(before)
    index[1] = 1
    assert not mine(x, index, dim_size=2).equal(before)
