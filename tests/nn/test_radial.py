"""Radial features: their formula, their fade-out, and the refusals."""

import math

import pytest
import torch

from graphformer import GraphformerError
from graphformer.nn import RadialBasis
from graphformer.testing import assert_close


def written_out(distance, num, cutoff):
    """Gasteiger et al., equations 7 and 8 with p = 6, for one distance."""
    x = distance / cutoff
    envelope = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    return [math.sqrt(2 / cutoff) * envelope * math.sin(n * math.pi * x) / distance for n in range(1, num + 1)]


def test_is_the_papers_formula():
    distance = torch.tensor([0.3, 1.0, 2.5, 3.9, 3.999], dtype=torch.float64)
    expected = torch.tensor([written_out(float(d), 5, 4.0) for d in distance], dtype=torch.float64)
    basis = RadialBasis(5, 4.0)
    assert_close(basis(distance), expected)
    first = torch.tensor([written_out(float(d), 1, 4.0)[0] for d in distance], dtype=torch.float64)
    wave = (math.pi * distance / 4).sin() * math.sqrt(0.5) / distance
    assert_close(basis.log_envelope(distance).exp(), first / wave)


def test_fades_out_smoothly_and_stays_zero():
    cutoff, step = 4.0, 1e-3
    basis = RadialBasis(3, cutoff)
    near = torch.tensor([cutoff - step, cutoff, cutoff + 1], dtype=torch.float64, requires_grad=True)
    out = basis(near)
    assert not out[1:].any()
    (slope,) = torch.autograd.grad(out.sum(), near, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), near)
    for value, size in ((out[0], 1e-9), (slope[0], 1e-6), (bend[0], 1e-2)):
        assert 0 < value.abs().max() < size
    assert basis.log_envelope(near)[1:].tolist() == [-math.inf, -math.inf]


def test_the_envelope_is_not_lost_in_rounding():
    """Written out, 1 - 28 x^6 + ... is negative or zero here in float32, and has no logarithm."""
    distance = torch.linspace(3.97, 3.9999, 200)
    found = RadialBasis(1, 4.0).log_envelope(distance)
    expected = RadialBasis(1, 4.0).log_envelope(distance.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=0)  # 1 - x itself is rounded


def test_has_two_derivatives_everywhere():
    basis = RadialBasis(4, 2.0)
    distance = torch.tensor([0.05, 0.7, 1.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(basis, distance)
    assert torch.autograd.gradgradcheck(basis.log_envelope, distance)
    ends = torch.tensor([0.0, 2.0, 5.0], dtype=torch.float64, requires_grad=True)
    for out in (basis(ends), basis.log_envelope(ends).exp()):
        (slope,) = torch.autograd.grad(out.sum(), ends, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), ends)
        assert all(bool(tensor.isfinite().all()) for tensor in (out, slope, bend))


def test_nothing_is_smaller_than_a_processor_likes():
    out = RadialBasis(32, 5.0)(torch.linspace(0, 4.99, 500))
    tiny = torch.finfo(torch.float32).tiny
    assert not bool(((out != 0) & (out.abs() < tiny)).any())


@pytest.mark.parametrize("num", [0, -1, 2.5, True])
def test_refuses_a_number_of_waves(num):
    with pytest.raises(GraphformerError, match="^RadialBasis: num must"):
        RadialBasis(num, 1.0)


@pytest.mark.parametrize("cutoff", [0, -1.0, math.inf, math.nan, "5", True])
def test_refuses_a_cutoff(cutoff):
    with pytest.raises(GraphformerError, match="^RadialBasis: cutoff must be a positive number; got"):
        RadialBasis(4, cutoff)


@pytest.mark.parametrize("distance", [torch.ones(2, 1), torch.ones(3).long(), [1.0]], ids=str)
def test_refuses_distances(distance):
    for encode in (RadialBasis(4, 1.0), RadialBasis(4, 1.0).log_envelope):
        with pytest.raises(GraphformerError, match="^RadialBasis: distance must be floating, of shape"):
            encode(distance)


def test_repr():
    assert repr(RadialBasis(4, 2.5)) == "RadialBasis(4, cutoff=2.5)"
