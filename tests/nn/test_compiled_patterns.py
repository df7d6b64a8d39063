"""torch's doors with a pattern under torch.compile: one program a size, and clear words for what it cannot hold."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.exc import Unsupported
from torch._dynamo.testing import CompileCounterWithBackend

import graphformer as gf
from graphformer.nn import GPSConv, MultiheadAttention
from graphformer.patterns import Causal, Edges, Full, Window
from graphformer.testing import assert_close

PATTERN = Window(2) & Causal()


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(function):
    counter = CompileCounterWithBackend("aot_eager")
    return torch.compile(function, fullgraph=True, backend=counter), counter


def gradients(function, x):
    x = x.clone().requires_grad_()
    out = function(x)
    return out.detach(), torch.autograd.grad(out.sin().sum(), x)[0]


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention(need_weights):
    attn = MultiheadAttention(8, 2, batch_first=True, pattern=PATTERN)

    def function(x):
        out, weights = attn(x, x, x, need_weights=need_weights)
        return out if weights is None else out + weights.sum()

    program, counter = compiled(function)
    for length in (7, 9, 7, 9):
        x = torch.randn(2, length, 8)
        expected = gradients(function, x)  # lists the pairs where there are weights, before the program looks at them
        same(gradients(program, x), expected)
    assert counter.frame_count == 2  # one for each length


def test_scaled_dot_product_attention():
    def function(x):
        return gf.scaled_dot_product_attention(x, x, x, pattern=PATTERN)

    program, counter = compiled(function)
    for length in (7, 9, 7, 9):
        x = torch.randn(2, 3, length, 4)
        same(gradients(program, x), gradients(function, x))
    assert counter.frame_count == 2


def test_another_pattern_does_not_make_a_program_anew():
    first, second = (MultiheadAttention(8, 2, batch_first=True, pattern=p) for p in (PATTERN, Window(1)))
    programs = [compiled(lambda x, attn=attn: attn(x, x, x, need_weights=False)[0]) for attn in (first, second)]
    x = torch.randn(2, 7, 8)
    for _ in range(2):
        for (program, _), attn in zip(programs, (first, second), strict=True):
            assert_close(program(x), attn(x, x, x, need_weights=False)[0])
    assert [counter.frame_count for _, counter in programs] == [1, 1]


def test_a_pattern_made_inside_is_refused():
    program, _ = compiled(lambda x: gf.scaled_dot_product_attention(x, x, x, pattern=Window(2)))
    with pytest.raises(Exception, match="Window: the pattern must be made outside of what torch.compile compiles"):
        program(torch.randn(2, 3, 7, 4))


@pytest.mark.parametrize("pattern", [Window(1), Edges() | Full()], ids=str)
def test_gps_conv_wants_a_ready_graph(pattern):
    layer = GPSConv(8, None, heads=2, norm=None, pattern=pattern)
    x, edges, batch = torch.randn(5, 8), torch.tensor([[0, 3], [1, 4]]), torch.tensor([0, 0, 0, 1, 1])
    program, _ = compiled(lambda x: layer(x, edges, batch))
    with pytest.raises(Unsupported, match="(?s)GPSConv.*pattern.*be laid outside of what torch.compile compiles"):
        program(x)
    graph = pattern.on([3, 2]) if pattern == Window(1) else None
    if graph is not None:
        program, _ = compiled(lambda x: layer(x, edges, batch, graph=graph))
        assert_close(program(x), layer(x, edges, batch))
