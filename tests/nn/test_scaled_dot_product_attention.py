"""Scaled dot-product attention with a pattern equals torch's with the pattern's dense mask."""

from dataclasses import dataclass

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as torch_attention

import graphformer as gf
from graphformer._errors import InputError
from graphformer.nn.dense_batch import lay
from graphformer.patterns import BigBird, Causal, Full, Pattern, Random, Window
from graphformer.patterns.terms import RunTerm
from graphformer.testing import assert_close

DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def nodes(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def check(query, key, value, mask, **arguments):
    """Result and gradients against torch's function with a dense mask, floating ones included."""
    inputs = [tensor for tensor in (query, key, value) if tensor.requires_grad]
    options = {name: arguments[name] for name in ("scale", "enable_gqa") if name in arguments}
    wanted = torch_attention(query.double(), key.double(), value.double(), mask, **options)
    found = gf.scaled_dot_product_attention(query, key, value, **arguments)
    assert found.dtype == query.dtype
    assert_close(found, wanted)
    grad = torch.randn_like(wanted)
    wanted_grads = torch.autograd.grad(wanted, inputs, grad)
    for ours, torchs in zip(torch.autograd.grad(found, inputs, grad.to(found.dtype)), wanted_grads, strict=True):
        assert_close(ours, torchs, query.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pattern", [Window(2), BigBird(1, 2, 2) - Causal(), Full()], ids=repr)
@pytest.mark.parametrize("shape", [(2, 3, 11, 8), (3, 11, 8), (11, 8), (2, 2, 3, 11, 8)], ids=str)
def test_a_pattern_is_its_dense_mask(pattern, shape, dtype):
    query, key, value = (nodes(*shape, dtype=dtype) for _ in range(3))
    check(query, key, value, pattern.on(11).to_dense(), pattern=pattern)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_more_keys_than_queries_and_wider_values(dtype):
    query, key, value = nodes(2, 3, 5, 8, dtype=dtype), nodes(2, 3, 9, 8, dtype=dtype), nodes(2, 3, 9, 4, dtype=dtype)
    mask = Window(3).on((9, 5)).to_dense()
    assert mask.shape == (5, 9)
    check(query, key, value, mask, pattern=Window(3), scale=0.5)


def test_causal_is_torchs_own_also_where_the_sides_differ():
    query, key = nodes(2, 3, 5, 8), nodes(2, 3, 9, 8)
    causal = torch.ones(5, 9).bool().tril()
    check(query, key, key, causal, pattern=Full(), is_causal=True)
    check(query, key, key, causal & Window(2).on((9, 5)).to_dense(), pattern=Window(2), is_causal=True)


def test_groups_of_heads_share_keys():
    query, key, value = nodes(2, 6, 7, 8), nodes(2, 2, 7, 8), nodes(2, 2, 7, 8)
    check(query, key, value, Window(2).on(7).to_dense(), pattern=Window(2), enable_gqa=True)


def test_leading_dimensions_broadcast():
    query, key, value = nodes(2, 3, 7, 8), nodes(1, 3, 7, 8), nodes(3, 7, 8)
    check(query, key, value, Window(2).on(7).to_dense(), pattern=Window(2))


@pytest.mark.parametrize(
    "shape", [(7, 7), (1, 7), (7, 1), (3, 7, 7), (2, 1, 7, 7), (2, 3, 1, 7), (2, 3, 7, 7), (1, 1, 1, 1)], ids=str
)
def test_masks_of_every_shape_join_the_pattern(shape):
    query, key, value = (nodes(2, 3, 7, 8) for _ in range(3))
    window = Window(2).on(7).to_dense()
    bias = nodes(*shape)
    dense = bias.masked_fill(~window, -torch.inf)
    wanted = torch_attention(query, key, value, dense)
    found = gf.scaled_dot_product_attention(query, key, value, bias, pattern=Window(2))
    assert_close(found, wanted)
    grad = torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad(found, (query, bias), grad), torch.autograd.grad(wanted, (query, bias), grad), strict=True
    ):
        assert_close(one, other)
    kept = torch.rand(shape) < 0.6
    check(query, key, value, kept & window, attn_mask=kept, pattern=Window(2))


def test_masks_reach_every_leading_dimension():
    query, key, value = (nodes(2, 4, 3, 7, 8) for _ in range(3))
    window = Window(2).on(7).to_dense()
    for shape in ((4, 1, 7, 7), (2, 1, 3, 7, 7)):
        kept = torch.rand(shape) < 0.6
        check(query, key, value, kept & window, attn_mask=kept, pattern=Window(2))


def test_sets_share_a_graph_that_is_ready():
    query, key, value = (nodes(2, 3, 7, 8) for _ in range(3))
    graph = Window(2).on(7)
    check(query, key, value, graph.to_dense(), pattern=graph)
    check(query[:1], key[:1], value[:1], graph.to_dense(), pattern=graph)
    wide = gf.AttentionGraph.from_dense(torch.rand(5, 9) < 0.4)
    check(nodes(2, 3, 5, 8), *(nodes(2, 3, 9, 8) for _ in range(2)), wide.to_dense(), pattern=wide)


def test_without_a_pattern_it_is_torchs_function():
    query, key, value = (nodes(2, 3, 7, 8, dtype=torch.float32) for _ in range(3))
    assert torch.equal(
        gf.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3),
        torch_attention(query, key, value, is_causal=True, scale=0.3),
    )
    reference = gf.scaled_dot_product_attention(query, key, value, backend="reference")
    assert_close(reference, torch_attention(query, key, value))


def test_a_query_without_keys_gets_zeros():
    query, key, value = (nodes(1, 2, 3, 4) for _ in range(3))
    kept = torch.tensor([[True], [False], [True]])
    out = gf.scaled_dot_product_attention(query, key, value, kept, pattern=Full())
    assert (out[:, :, 1] == 0).all()
    assert (out[:, :, 0] != 0).all()


@pytest.mark.parametrize("shape", [(0, 3, 7, 8), (2, 3, 0, 8), (2, 0, 7, 8)], ids=str)
def test_nothing_gives_nothing(shape):
    query = nodes(*shape)
    assert gf.scaled_dot_product_attention(query, query, query, pattern=Window(1)).shape == shape


def test_dropout_drops_also_outside_of_training():
    query, key = nodes(1, 1, 4, 8), nodes(1, 1, 400, 8)
    value = torch.ones(1, 1, 400, 1, dtype=torch.float64)
    torch.manual_seed(0)
    out = gf.scaled_dot_product_attention(query, key, value, dropout_p=0.5, pattern=Full())
    assert not torch.allclose(out, torch.ones_like(out))
    assert 0.7 < out.mean() < 1.3


def test_the_graphs_of_the_last_patterns_are_kept_by_value():
    cpu = torch.device("cpu")
    assert lay(Random(2, seed=1), (9, 9), (9, 9), cpu) is lay(Random(2, seed=1), (9, 9), (9, 9), cpu)
    assert lay(Random(2, seed=1), (9, 9), (9, 9), cpu) is not lay(Random(2, seed=2), (9, 9), (9, 9), cpu)


def test_a_pattern_without_a_hash_is_laid_anew():
    @dataclass(frozen=True, repr=False)
    class Lengths(Pattern):
        length: list

        def _lower(self, sets):
            return [RunTerm(sets.runs(0, self.length[0]))]

    cpu = torch.device("cpu")
    pattern = Lengths([2])
    assert lay(pattern, (3,), (3,), cpu).num_edges == 6
    pattern.length[0] = 1
    assert lay(pattern, (3,), (3,), cpu).num_edges == 3


@pytest.mark.parametrize("pattern", [Full(), Window(33), Random(3), Window(33).on(40)], ids=repr)
def test_training_after_inference_mode(pattern):
    query = nodes(2, 3, 40, 8)
    with torch.inference_mode():
        wanted = gf.scaled_dot_product_attention(query, query, query, pattern=pattern)
    found = gf.scaled_dot_product_attention(query, query, query, pattern=pattern)
    found.sum().backward()
    assert_close(found, wanted)


def test_what_does_not_fit_is_refused():
    query, key = nodes(2, 6, 7, 8), nodes(2, 4, 7, 8)
    attention = gf.scaled_dot_product_attention
    with pytest.raises(InputError, match="pattern must be a pattern or an attention graph; got str"):
        attention(query, query, query, pattern="full")
    with pytest.raises(InputError, match="is_causal must come without a mask and without a ready graph"):
        attention(query, query, query, torch.ones(7, 7).bool(), is_causal=True, pattern=Full())
    with pytest.raises(InputError, match="is_causal must come without a mask and without a ready graph"):
        attention(query, query, query, is_causal=True, pattern=Full().on(7))
    with pytest.raises(InputError, match="key must have heads that divide the query's 6; got 4"):
        attention(query, key, key, enable_gqa=True, pattern=Full())
    with pytest.raises(InputError, match=r"have leading dimensions that broadcast.*enable_gqa=True"):
        attention(query, key, key, pattern=Full())
    with pytest.raises(InputError, match=r"query, key and value must have shapes \[\.\.\., H, N, D\]"):
        attention(query, query, query[..., :3, :], pattern=Full())
    with pytest.raises(InputError, match=r"attn_mask must be boolean or floating and broadcast to \[2, 6, 7, 7\]"):
        attention(query, query, query, torch.ones(3, 7).bool(), pattern=Full())
    with pytest.raises(InputError, match=r"attn_mask must be boolean or floating .* got torch.int64"):
        attention(query, query, query, torch.ones(7, 7).long(), pattern=Full())
    with pytest.raises(InputError, match=r"pattern must have \(keys, queries\) = \(7, 7\) where it is a graph"):
        attention(query, query, query, pattern=Full().on(8))
