from __future__ import annotations

import pytest
import torch

from graphformer.nn.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_as_many_are_dropped_as_asked_and_the_mean_stays(p, dtype):
    torch.manual_seed(0)
    x = torch.ones(300, 1001, dtype=dtype)
    out = Dropout(p)(x)
    assert out.dtype == dtype
    assert (out == 0).double().mean().item() == pytest.approx(p, abs=5e-3)
    assert out.double().mean().item() == pytest.approx(1.0, abs=2e-2)
    assert out[out != 0].unique().numel() == 1


def test_the_gradient_passes_where_the_value_did():
    x = torch.randn(7, 13, requires_grad=True)
    out = Dropout(0.4)(x)
    out.sum().backward()
    kept = out != 0
    assert torch.equal(x.grad != 0, kept)
    assert torch.allclose(x.grad[kept], torch.tensor(1 / 0.6), rtol=1e-4)


def test_draws_follow_the_seed_and_differ_from_call_to_call():
    layer, x = Dropout(0.5), torch.ones(1000)
    torch.manual_seed(1)
    first, second = layer(x), layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)


def test_neighbours_are_dropped_apart_from_each_other():
    torch.manual_seed(0)
    dropped = (Dropout(0.5)(torch.ones(400_000)) == 0).double()
    for step in (1, 2, 3, 4):  # four elements share a random word
        together = (dropped[:-step] * dropped[step:]).mean().item()
        assert together == pytest.approx(0.25, abs=5e-3)


@pytest.mark.parametrize("p", [0.0, 1.0, 1e-9])
def test_the_ends_are_torchs(p):
    x = torch.randn(5)
    assert torch.equal(Dropout(p)(x), torch.nn.Dropout(p)(x))


def test_nothing_happens_in_evaluation():
    x = torch.randn(0, 3)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.5)(x).shape == (0, 3)


def test_compiled_it_is_torchs():
    x = torch.ones(1000)
    out = torch.compile(Dropout(0.5), fullgraph=True, backend="eager")(x)
    assert set(out.tolist()) == {0.0, 2.0}
