"""torch's multi-head attention over attention graphs: the same numbers from the same weights."""

import copy
import io
import pickle

import pytest
import torch

from graphformer._errors import InputError
from graphformer.graphs import AttentionGraph
from graphformer.nn import MultiheadAttention
from graphformer.nn.multihead_attention import attend_with
from graphformer.nn.sequence_batch import SequenceBatch
from graphformer.patterns import BigBird, Causal, Expander, Full, Window
from graphformer.testing import assert_close

FULL = AttentionGraph.from_dense(torch.ones(5, 7).bool())


def module(**options):
    attn = torch.nn.MultiheadAttention(12, 3, **options).double()
    for parameter in attn.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # torch starts biases at zero
    return attn


def rows(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 5, "vdim": 4}, {"kdim": 5, "bias": False}], ids=str)
def test_node_rows_agree_with_torch(options):
    attn = module(**options)
    query, key, value = rows(5, 12), rows(7, attn.kdim), rows(7, attn.vdim)
    wanted, found = attn(query, key, value)[0], attend_with(attn, query, key, value, FULL)
    inputs = (query, key, value, *attn.parameters())
    grad = torch.randn_like(wanted)
    assert_close(found, wanted)
    wanted_grads = torch.autograd.grad(wanted, inputs, grad)
    for ours, torchs in zip(torch.autograd.grad(found, inputs, grad), wanted_grads, strict=True):
        assert_close(ours, torchs)


def test_dropout_is_the_modules_own_in_training_only():
    attn = module(dropout=0.5)
    query, key = rows(5, 12), rows(7, 12)
    whole = attend_with(attn.eval(), query, key, key, FULL)
    assert not torch.equal(attend_with(attn.train(), query, key, key, FULL, seed=1), whole)
    assert_close(attend_with(attn, query, key, key, FULL, dropout=0.0), whole)


def test_terms_reach_the_kernel():
    attn = module()
    query, key = rows(5, 12), rows(7, 12)
    bias = torch.randn(35, dtype=torch.float64)
    wanted = attn(query, key, key, attn_mask=bias.view(5, 7))[0]
    assert_close(attend_with(attn, query, key, key, FULL, bias=bias), wanted)


def test_what_node_rows_cannot_be_is_refused():
    query, key = rows(5, 12), rows(7, 12)
    for option in ({"add_bias_kv": True}, {"add_zero_attn": True}):
        with pytest.raises(InputError, match="attn must attend to nodes alone along a graph"):
            attend_with(module(**option), query, key, key, FULL)
    with pytest.raises(InputError, match=r"value must have shape \[N, 12\]; got \[7, 3\]"):
        attend_with(module(), query, key, key[:, :3], FULL)
    with pytest.raises(InputError, match=r"query must have shape \[N, 12\]; got \[1, 5, 12\]"):
        attend_with(module(), query[None], key, key, FULL)


# ---------------------------------------------------------------- the module


def pair(pattern, **options):
    """torch's module and ours, with the same weights."""
    theirs = module(**options)
    ours = MultiheadAttention(12, 3, **options, pattern=pattern, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def check(ours, theirs, inputs, mask, rows=slice(None), **arguments):
    """Result, weights and all gradients against torch's module with the pattern's mask, where True removes."""
    found = ours(*inputs, **arguments)
    arguments.update(attn_mask=mask, is_causal=False)
    wanted = theirs(*inputs, **arguments)
    grads = [None if out is None else torch.randn_like(out[rows]) for out in wanted]
    asked = list(dict.fromkeys(inputs))
    for one, other, grad in zip(found, wanted, grads, strict=True):
        if other is None:
            assert one is None
            continue
        assert one.shape == other.shape
        assert_close(one[rows], other[rows])
        gradients = [
            torch.autograd.grad(out[rows], [*asked, *module.parameters()], grad, allow_unused=True, retain_graph=True)
            for out, module in ((one, ours), (other, theirs))
        ]
        for mine, torchs in zip(*gradients, strict=True):
            assert (mine is None) == (torchs is None)
            if mine is not None:
                assert_close(mine, torchs)


@pytest.mark.parametrize("shape", [(6, 12), (4, 6, 12)], ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("pattern", [None, Full(), Window(2), Causal(), BigBird(1, 1, 2, seed=3)], ids=repr)
def test_a_pattern_is_its_dense_mask(pattern, batch_first, shape):
    ours, theirs = pair(pattern, batch_first=batch_first)
    x = rows(*shape)
    length = 4 if len(shape) == 3 and not batch_first else 6
    mask = None if pattern is None else ~pattern.on(length).to_dense()
    for arguments in ({}, {"average_attn_weights": False}, {"need_weights": False}):
        check(ours, theirs, (x, x, x), mask, **arguments)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 5, "vdim": 4}, {"kdim": 5, "bias": False}], ids=str)
def test_two_sets_of_other_widths(options):
    ours, theirs = pair(Window(3), **options, batch_first=True)
    query, key, value = rows(2, 5, 12), rows(2, 9, theirs.kdim), rows(2, 9, theirs.vdim)
    check(ours, theirs, (query, key, value), ~Window(3).on((9, 5)).to_dense())


LENGTHS = torch.tensor([7, 4, 5])
PADDED = torch.arange(7) >= LENGTHS[:, None]
HOLES = torch.tensor([[0, 1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 0, 0]]).bool()


def as_scores(mask):
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask, -torch.inf)


@pytest.mark.parametrize("pattern", [Full(), Window(2), BigBird(1, 1, 2, seed=3), Expander(2) | Window(1)], ids=repr)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("floating", [False, True])
def test_padding_behind_the_sequences_leaves_shorter_ones(pattern, batch_first, floating):
    ours, theirs = pair(pattern, batch_first=batch_first)
    x = rows(3, 7, 12) if batch_first else rows(7, 3, 12)
    mask = torch.ones(3, 7, 7).bool()
    for one, length in zip(mask, LENGTHS, strict=True):
        one[:length, :length] = ~pattern.on(int(length)).to_dense()
    mask, padding = mask.repeat_interleave(3, 0), PADDED
    real = ~PADDED if batch_first else ~PADDED.t()
    if floating:
        mask, padding = as_scores(mask), as_scores(padding)
    check(ours, theirs, (x, x, x), mask, real, key_padding_mask=padding, need_weights=False)
    found, weights = ours(x, x, x, key_padding_mask=padding)
    assert_close(found[~real], ours.out_proj.bias.expand(5, 12))
    wanted = theirs(x, x, x, attn_mask=mask)[1]
    assert_close(weights, wanted.nan_to_num())


@pytest.mark.parametrize("pattern", [Full(), Window(2), BigBird(1, 1, 2, seed=3), Expander(2) | Window(1)], ids=repr)
@pytest.mark.parametrize("padding", [PADDED, HOLES], ids=["padded", "holes"])
@pytest.mark.parametrize("floating", [False, True])
def test_removed_keys_elsewhere_leave_the_places(pattern, padding, floating):
    ours, theirs = pair(pattern, batch_first=True)
    x = rows(3, 7, 12)
    memory = x if padding is HOLES else rows(3, 7, 12)
    mask = ~pattern.on(7).to_dense()
    asked = ~(mask | padding[:, None]).all(2)  # torch gives NaN where no key is left
    if floating:
        mask, padding = as_scores(mask), as_scores(padding)
    check(ours, theirs, (x, memory, memory), mask, asked, key_padding_mask=padding, need_weights=False)


def test_removed_keys_are_no_pairs_of_the_graph():
    ours, _ = pair(Window(2), batch_first=True)
    x = rows(3, 7, 12)
    batch = SequenceBatch(ours, x, x, x)
    graph, rest = batch.lay(Window(2), HOLES)
    wanted = Window(2).on(7).to_dense() & ~HOLES[:, None]
    assert torch.equal(graph.to_dense(), torch.block_diag(*wanted).bool())
    assert rest is None
    assert batch.lay(Window(2), HOLES)[0] is graph
    assert [len(side) for side in batch.rows] == [21, 21, 21]
    assert batch.lay(Window(2), PADDED)[0].num_queries == 16
    assert [len(side) for side in batch.rows] == [16, 16, 16]


def test_a_mask_that_says_more_than_what_it_removes_stays():
    ours, _ = pair(Window(2), batch_first=True)
    x = rows(3, 7, 12)
    batch = SequenceBatch(ours, x, x, x)
    scores = torch.zeros(3, 7).masked_fill(HOLES, -torch.inf)
    assert batch.lay(Window(2), scores)[1] is None
    scores[0, 0] = 1.0
    assert batch.lay(Window(2), scores)[1] is scores
    assert batch.lay(Window(2), torch.zeros(3, 7, requires_grad=True))[1] is not None


@pytest.mark.parametrize("shape", [(7, 7), (9, 7, 7)], ids=str)
@pytest.mark.parametrize("floating", [False, True])
def test_masks_join_the_pattern(shape, floating):
    ours, theirs = pair(Window(2))
    x = rows(7, 3, 12)
    window = ~Window(2).on(7).to_dense()
    if not floating:
        mask = torch.rand(shape) < 0.3
        mask[..., range(7), range(7)] = False
        found, wanted = ours(x, x, x, attn_mask=mask)[0], theirs(x, x, x, attn_mask=mask | window)[0]
        assert_close(found, wanted)
        return
    mask, scores = rows(*shape), rows(3, 7)
    added = scores.masked_fill(PADDED, -torch.inf)
    real = ~PADDED.t()
    found = ours(x, x, x, attn_mask=mask, key_padding_mask=added)[0][real]
    wanted = theirs(x, x, x, attn_mask=mask.masked_fill(window, -torch.inf), key_padding_mask=added, need_weights=False)
    wanted = wanted[0][real]
    assert_close(found, wanted)
    asked, grad = (x, mask, scores), torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad(found, [*asked, *ours.parameters()], grad, retain_graph=True),
        torch.autograd.grad(wanted, [*asked, *theirs.parameters()], grad),
        strict=True,
    ):
        assert_close(one, other)


def test_a_padding_mask_without_a_batch():
    ours, theirs = pair(Full())
    x = rows(7, 12)
    check(ours, theirs, (x, x, x), None, key_padding_mask=HOLES[0])


def test_a_causal_hint_becomes_the_pattern():
    ours, theirs = pair(Window(2), batch_first=True)
    x = rows(2, 7, 12)
    causal = torch.nn.Transformer.generate_square_subsequent_mask(7, dtype=torch.float64)
    wanted = theirs(x, x, x, attn_mask=~(Window(2) & Causal()).on(7).to_dense())[0]
    assert_close(ours(x, x, x, attn_mask=causal, is_causal=True)[0], wanted)
    assert_close(ours(x, x, x, attn_mask=causal)[0], wanted)


def test_a_graph_takes_the_place_of_the_pattern():
    x = rows(2, 7, 12)
    graph = Window(2).on([7, 7])
    for pattern in (None, Full()):
        ours, theirs = pair(pattern, batch_first=True)
        check_graph = ours(x, x, x, graph=graph)
        wanted = theirs(x, x, x, attn_mask=~Window(2).on(7).to_dense())
        assert_close(check_graph[0], wanted[0])
        assert_close(check_graph[1], wanted[1])
        padded = ours(x, x, x, graph=Full().on([7, 7]), key_padding_mask=HOLES[:2])[0]
        assert_close(padded, theirs(x, x, x, key_padding_mask=HOLES[:2])[0])
    across = Full().on(14)
    assert ours(x, x, x, graph=across, need_weights=False)[0].shape == x.shape


def test_a_query_without_keys_gets_the_last_bias():
    ours, _ = pair(Full(), batch_first=True)
    x = rows(2, 3, 12)
    out, weights = ours(x, x, x, key_padding_mask=torch.tensor([[True] * 3, [False] * 3]))
    assert_close(out[0], ours.out_proj.bias.expand(3, 12))
    assert (weights[0] == 0).all()


def test_weights_are_those_after_dropout():
    ours, _ = pair(Full(), dropout=0.5, batch_first=True)
    x = rows(1, 40, 12)
    torch.manual_seed(0)
    out, weights = ours(x, x, x, average_attn_weights=False)
    kept = weights != 0
    assert 0.4 < kept.double().mean() < 0.6
    value = torch.nn.functional.linear(x, ours.in_proj_weight[24:], ours.in_proj_bias[24:])
    heads = value.unflatten(2, (3, 4)).transpose(1, 2)
    mixed = (weights @ heads).transpose(1, 2).flatten(2)
    assert_close(out, ours.out_proj(mixed))
    whole = ours.eval()(x, x, x, average_attn_weights=False)[1]
    assert_close(weights, 2 * whole * kept)


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
def test_added_keys_are_torchs_without_a_pattern_and_refused_with_one(options):
    ours, theirs = pair(None, **options)
    x = rows(5, 2, 12)
    assert torch.equal(ours(x, x, x)[0], theirs(x, x, x)[0])
    with pytest.raises(InputError, match="attn must attend to nodes alone along a graph"):
        MultiheadAttention(12, 3, **options, pattern=Full())
    with pytest.raises(InputError, match="attn must attend to nodes alone along a graph"):
        ours(x, x, x, graph=Full().on([5, 5]))


# ---------------------------------------------------------------- torch's encoder


def encoders(pattern, late, **options):
    """torch's encoder, and one with our module: put into the layer before the encoder is made, or afterwards."""
    layer = torch.nn.TransformerEncoderLayer(12, 2, 20, batch_first=True, dropout=0.0, dtype=torch.float64, **options)
    theirs = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=not options)
    ours = copy.deepcopy(theirs)
    for part in ours.layers:
        attn = MultiheadAttention(12, 2, batch_first=True, dtype=torch.float64, pattern=pattern)
        attn.load_state_dict(part.self_attn.state_dict())
        part.self_attn = attn
    if not late:
        ours = torch.nn.TransformerEncoder(ours.layers[0], 2, enable_nested_tensor=not options)
        ours.load_state_dict(theirs.state_dict())
    return ours, theirs


PROTOTYPE = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")


@PROTOTYPE
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("with_grad", [False, True])
@pytest.mark.parametrize("options", [{}, {"norm_first": True}], ids=str)
def test_torchs_encoder_cannot_pass_the_pattern_by(options, with_grad, training, late):
    ours, theirs = (part.train(training) for part in encoders(Window(1), late, **options))
    mask = ~Window(1).on(7).to_dense()
    x = torch.randn(3, 7, 12, dtype=torch.float64)
    padding = torch.arange(7) >= torch.tensor([[7], [6], [6]])  # leaves a key to every query: torch's NaN would spread
    with torch.set_grad_enabled(with_grad):
        assert_close(ours(x), theirs(x, mask=mask))
        wanted = theirs(x, mask=mask, src_key_padding_mask=padding)
        found = ours(x, src_key_padding_mask=padding)
        passed_by = theirs(x, src_key_padding_mask=padding)
    assert_close(found[~padding], wanted[~padding])
    assert not torch.allclose(found[~padding], passed_by[~padding], atol=1e-3)


@PROTOTYPE
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
def test_nested_tensors_are_sets_of_their_own_lengths(layout):
    ours, theirs = pair(Window(1), batch_first=True)
    parts = [torch.randn(int(length), 12, dtype=torch.float64) for length in LENGTHS]
    x = torch.nested.as_nested_tensor(parts, layout=layout)
    out, weights = ours(x, x, x, need_weights=False)
    assert weights is None
    assert out.is_nested
    for one, part in zip((x + out).unbind(), parts, strict=True):
        mask = ~Window(1).on(part.shape[0]).to_dense()
        assert_close(one, part + theirs(part, part, part, attn_mask=mask)[0])
    graph = Window(1).on(LENGTHS.tolist())
    again = ours(x, x, x, need_weights=False, graph=graph)[0]
    assert_close(torch.cat(again.unbind()), torch.cat(out.unbind()))


# ---------------------------------------------------------------- a module like any other


def test_the_modules_facts():
    ours, theirs = pair(Window(2))
    assert repr(pair(None)[0]) == repr(theirs)
    assert "pattern=Window(radius=2)" in repr(ours)
    assert ours.pattern == Window(2)
    with pytest.raises(AttributeError, match="pattern"):
        ours.pattern = Full()
    theirs.load_state_dict(ours.state_dict())
    x = rows(5, 2, 12)
    wanted = ours(x, x, x)[0]
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert other.pattern == Window(2)
        assert torch.equal(other(x, x, x)[0], wanted)
    held = io.BytesIO()
    torch.save(ours.state_dict(), held)
    held.seek(0)
    theirs.load_state_dict(torch.load(held))


def test_half_precision_and_autocast():
    ours, theirs = pair(Window(2), batch_first=True)
    x = 0.3 * torch.randn(2, 7, 12)
    wanted = theirs(x.double(), x.double(), x.double(), attn_mask=~Window(2).on(7).to_dense())[0]
    half = copy.deepcopy(ours).bfloat16()
    assert_close(half(*[x.bfloat16()] * 3)[0], wanted)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(ours.float()(x, x, x)[0], wanted)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="pattern must be a pattern or None; got str"):
        MultiheadAttention(12, 3, pattern="full")
    with pytest.raises(InputError, match="backend must be one of auto, native, sdpa, triton, reference"):
        MultiheadAttention(12, 3, backend="fast")
    attn, x = MultiheadAttention(12, 3, batch_first=True, pattern=Full()), torch.randn(2, 7, 12)
    with pytest.raises(InputError, match="have two dimensions, or three with a batch"):
        attn(x[None], x, x)
    with pytest.raises(InputError, match="have one batch size, and as many keys as values"):
        attn(x, x[:1], x[:1])
    with pytest.raises(InputError, match="is_causal must come with attn_mask"):
        attn(x, x, x, is_causal=True)
    with pytest.raises(InputError, match=r"attn_mask must have shape \[7, 7\] or \[6, 7, 7\]; got \[2, 7, 7\]"):
        attn(x, x, x, attn_mask=torch.zeros(2, 7, 7))
    with pytest.raises(InputError, match="attn_mask must be boolean or floating; got torch.int64"):
        attn(x, x, x, attn_mask=torch.zeros(7, 7).long())
    with pytest.raises(InputError, match=r"key_padding_mask must have shape \[2, 7\]; got \[7, 2\]"):
        attn(x, x, x, key_padding_mask=torch.zeros(7, 2))
    with pytest.raises(InputError, match="graph must stay inside each sequence beside masks and weights"):
        attn(x, x, x, graph=Full().on(14))
    with pytest.raises(InputError, match="query must have one row for each of the graph's 7 queries"):
        attn(x, x, x, graph=Full().on(7))
    nested = torch.nested.as_nested_tensor(list(x), layout=torch.jagged)
    with pytest.raises(InputError, match="nested query must come without masks and weights"):
        attn(nested, nested, nested)
