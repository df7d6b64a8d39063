"""torch's multi-head attention over attention graphs: the same numbers from the same weights."""

import pytest
import torch

from graphformer._errors import InputError
from graphformer.graphs import AttentionGraph
from graphformer.nn.multihead_attention import attend_with
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
        with pytest.raises(InputError, match="attn must attend to nodes alone"):
            attend_with(module(**option), query, key, key, FULL)
    with pytest.raises(InputError, match=r"value must have shape \[N, 12\]; got \[7, 3\]"):
        attend_with(module(), query, key, key[:, :3], FULL)
    with pytest.raises(InputError, match=r"query must have shape \[N, 12\]; got \[1, 5, 12\]"):
        attend_with(module(), query[None], key, key, FULL)
