"""SetTransformerAggregation beside PyG's: values and every gradient for every option, without padding."""

import copy
import io
import itertools

import pytest
import torch
from aggregation_cases import collect_graphs, compare
from torch_geometric import nn as pyg

from graphformer.nn import SetTransformerAggregation
from graphformer.nn.aggr import set_transformer
from graphformer.testing import assert_close

C, B = 8, 6
FLAGS = (True, False)
OPTIONS = [
    {"num_seed_points": seeds, "num_encoder_blocks": encoders, "num_decoder_blocks": decoders, "heads": heads, **more}
    for seeds, encoders, decoders, heads, more in itertools.product(
        (1, 3),
        (0, 2),
        (0, 1),
        (1, 4),
        [{"concat": concat, "layer_norm": norm} for concat, norm in itertools.product(FLAGS, FLAGS)],
    )
]
SETS = {
    "ragged": [3, 1, 5, 2, 7, 4],
    "equal": [4] * B,
    "empty sets": [0, 3, 0, 5, 1, 0],
    "one set": [20, 0, 0, 0, 0, 0],
}
CASES = [(name, torch.float64, True) for name in SETS]
CASES += [("ragged", torch.float64, False), ("ragged", torch.float32, False), ("empty sets", torch.float32, True)]


@pytest.fixture
def calls(monkeypatch):
    """Every input counts as large, and the graphs that the kernel is called with are collected."""
    monkeypatch.setattr(set_transformer, "_BATCH", 0)
    return collect_graphs(monkeypatch, set_transformer, "attend_with", 4)


def twins(dtype=torch.float64, **options):
    theirs = pyg.SetTransformerAggregation(C, **options).to(dtype)
    for weight in theirs.parameters():
        if weight.dim() == 1:  # biases that start at zero would hide what they do
            torch.nn.init.normal_(weight, std=0.5)
    mine = SetTransformerAggregation(C, **options).to(dtype)
    mine.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(mine.state_dict())
    assert repr(mine) == repr(theirs)
    return theirs, mine


def make_sets(name):
    lengths = torch.tensor(SETS[name])
    return torch.repeat_interleave(torch.arange(B), lengths)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_same_numbers(options, calls):
    for name, dtype, training in CASES:
        theirs, mine = (layer.train(training) for layer in twins(dtype, **options))
        index = make_sets(name)
        x = torch.randn(index.numel(), C, dtype=dtype, requires_grad=True)
        before = len(calls)
        out = compare(theirs, mine, x, index, dim_size=B)
        assert len(calls) - before == options["num_encoder_blocks"] + 1
        with torch.no_grad():
            assert_close(mine(x, index, dim_size=B), out)


def test_a_fault_is_seen(calls):
    theirs, mine = twins(num_seed_points=2)
    with torch.no_grad():
        mine.encoders[0].mab.attn.out_proj.bias[0] += 1e-6
    index = make_sets("ragged")
    with pytest.raises(AssertionError):
        compare(theirs, mine, torch.randn(index.numel(), C, dtype=torch.float64, requires_grad=True), index)


def test_nothing_is_padded(calls):
    _, mine = twins(num_seed_points=3, num_encoder_blocks=2)
    index = make_sets("ragged")
    mine(torch.randn(index.numel(), C, dtype=torch.float64), index)
    lengths = SETS["ragged"]
    assert [graph.num_edges for graph in calls] == [sum(n * n for n in lengths)] * 2 + [3 * sum(lengths)]
    assert calls[0] is calls[1]


@pytest.mark.parametrize("most", [1, 3, 9])
def test_at_most_so_many_members(most, calls):
    theirs, mine = twins(num_seed_points=2, layer_norm=True)
    for name in SETS:
        index = make_sets(name)
        x = torch.randn(index.numel(), C, dtype=torch.float64, requires_grad=True)
        compare(theirs, mine, x, index, dim_size=B, max_num_elements=most)
        assert int(calls[-1].degree.max()) <= most


def test_without_an_index_there_is_one_set(calls):
    theirs, mine = twins()
    out = compare(theirs, mine, torch.randn(5, C, dtype=torch.float64, requires_grad=True))
    assert out.shape == (1, C)
    assert calls[-1].num_edges == 5


def test_only_batches_that_are_large_or_need_padding_go_to_the_kernel(calls, monkeypatch):
    theirs, mine = twins(torch.float32)
    monkeypatch.setattr(set_transformer, "_BATCH", 2**18)
    padding = 2**15 // C
    for lengths, most, expected in (
        ([1, padding], None, False),
        ([1, padding + 1], None, True),
        ([1, padding + 1], 99, False),
        ([2**9] * 63, None, False),
        ([2**9] * 64, None, True),
    ):
        calls.clear()
        index = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        x = torch.randn(index.numel(), C)
        with torch.no_grad():
            assert_close(mine(x, index, max_num_elements=most), theirs(x, index, max_num_elements=most))
        assert bool(calls) == expected


def test_what_is_not_finite_stays_in_its_set(calls):
    theirs, mine = twins(num_seed_points=2)
    index = make_sets("ragged")
    x = torch.randn(index.numel(), C, dtype=torch.float64)
    x[1] = torch.nan
    out = mine(x, index)
    assert_close(out, theirs(x, index))
    assert not out[0].any()
    assert out[1:].all()


def test_dropout_has_pygs_distribution(calls):
    """With the last map of the block cut off, outputs are linear in the weights that are dropped: moments tell."""
    theirs, mine = twins(num_encoder_blocks=0, num_decoder_blocks=0, heads=2, dropout=0.4)
    for layer in (theirs, mine):
        torch.nn.init.zeros_(layer.pma.mab.lin.weight)
        torch.nn.init.zeros_(layer.pma.mab.lin.bias)
    num_sets = 20_000
    x = torch.randn(3, C, dtype=torch.float64).repeat(num_sets, 1)
    index = torch.arange(num_sets).repeat_interleave(3)
    outs = [layer(x, index) for layer in (theirs, mine)]
    for moment in (lambda out: out.mean(0), lambda out: out.var(0), lambda out: (out - out.mean(0)).prod(1).sign()):
        expected, actual = (moment(out) for out in outs)
        torch.testing.assert_close(actual.mean(0), expected.mean(0), rtol=0.05, atol=0.05)
    torch.testing.assert_close(outs[1].mean(0), mine.eval()(x[:3], index[:3])[0], rtol=0.05, atol=0.05)
    assert torch.unique(outs[1].round(decimals=9), dim=0).shape[0] == 2 ** (2 * 3)  # keep or drop, heads times members
    assert_close(mine(x[:9], index[:9]), theirs.eval()(x[:9], index[:9]))


def test_it_refuses_in_pygs_words(calls):
    mine = SetTransformerAggregation(C)
    x, index = torch.randn(4, C), torch.tensor([0, 1, 1, 3])
    with pytest.raises(ValueError, match="'index' tensor is not sorted"):
        mine(x, index.flip(0))
    with pytest.raises(ValueError, match="invalid 'dim_size' \\(got '2' but expected >= '4'\\)"):
        mine(x, index, dim_size=2)
    with pytest.raises(NotImplementedError, match="requires 'index' to be specified"):
        mine(x, ptr=torch.tensor([0, 1, 4]))
    with pytest.raises(ValueError, match="requires two-dimensional inputs \\(got '3'\\)"):
        mine(x.expand(2, 4, C), index)
    with pytest.raises(ValueError, match="in first dimension \\(got '1'\\)"):
        mine(x, index, dim=1)


def test_inside_message_passing(calls):
    layers = [pyg.SAGEConv(C, 5, aggr=aggr).double() for aggr in twins(num_seed_points=2, concat=False)]
    layers[1].load_state_dict(layers[0].state_dict())
    edge_index = torch.randint(9, (2, 30))
    edge_index = edge_index[:, edge_index[1].argsort()]
    x = torch.randn(9, C, dtype=torch.float64, requires_grad=True)
    compare(*layers, x, edge_index)
    x, edges = {"a": x, "b": x + 1}, {("a", "to", "b"): edge_index, ("b", "to", "a"): edge_index}
    outs = [pyg.HeteroConv(dict.fromkeys(edges, layer))(x, edges) for layer in layers]
    for side in "ab":
        assert_close(outs[1][side], outs[0][side])
    assert len(calls) == 2 * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast(dtype, calls):
    theirs, mine = twins(torch.float32, num_seed_points=2, heads=2, layer_norm=True)
    index = make_sets("ragged")
    x = torch.randn(index.numel(), C).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = (layer(x, index) for layer in (theirs, mine))
    assert actual.dtype == expected.dtype
    assert_close(actual, expected, torch.bfloat16)
    assert calls


def test_first_derivatives_are_those_of_the_numbers(calls):
    _, mine = twins(num_seed_points=2, heads=2)
    index = torch.tensor([0, 0, 2, 2, 2])
    x = torch.randn(5, C, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: mine(x, index), x)
    assert calls


def test_compiled(calls):
    """As PyG's, whose check of the index reads data, it compiles with breaks."""
    torch._dynamo.reset()
    theirs, mine = twins(num_decoder_blocks=0)
    index = make_sets("empty sets")
    x = torch.randn(index.numel(), C, dtype=torch.float64, requires_grad=True)
    compare(theirs, torch.compile(mine, dynamic=True, backend="aot_eager"), x, index, dim_size=B)
    assert len(calls) == 2


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
def test_torch_jit_takes_pygs_layer(calls):
    _, mine = twins(num_seed_points=2)
    index = make_sets("ragged")
    x = torch.randn(index.numel(), C, dtype=torch.float64)
    expected = mine(x, index)
    assert calls
    calls.clear()
    assert_close(torch.jit.script(mine)(x, index), expected)
    assert_close(torch.jit.trace(mine, (x, index), check_trace=False)(x, index), expected)
    assert calls == []


def test_copies(calls):
    _, mine = twins()
    index = make_sets("ragged")
    x = torch.randn(index.numel(), C, dtype=torch.float64)
    file = io.BytesIO()
    torch.save(mine, file)
    file.seek(0)
    for other in (copy.deepcopy(mine), torch.load(file, weights_only=False)):
        assert type(other) is SetTransformerAggregation
        assert torch.equal(other(x, index), mine(x, index))
    before = mine.pma.seed.clone()
    mine.reset_parameters()
    assert not torch.equal(before, mine.pma.seed)
