"""First and second derivatives of the layers, half precision and autocast."""

import copy

import pytest
import torch
from drop_in_cases import (
    C,
    E,
    F,
    N,
    counted,
    distinct_edges,
    each_layer,
    some_edges,
    tensors,
    twins,
)

from graphformer import nn as ours
from graphformer.testing import assert_close

pytestmark = pytest.mark.usefixtures("float64")


@each_layer
def test_first_and_second_derivatives(name):
    layer = getattr(ours, name)(3, 2, heads=2, edge_dim=2)
    edge_index = torch.tensor([[0, 1, 2, 2, 1], [1, 0, 1, 1, 1]])
    x, edge_attr = torch.randn(4, 3, requires_grad=True), torch.randn(5, 2, requires_grad=True)
    names, weights = zip(*layer.named_parameters(), strict=True)

    def call(x, edge_attr, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x, edge_index, edge_attr))

    assert torch.autograd.gradcheck(call, (x, edge_attr, *weights))
    assert torch.autograd.gradgradcheck(lambda x, edge_attr: call(x, edge_attr, *weights), (x, edge_attr))
    with counted() as paths:
        call(x, edge_attr, *weights)
    assert paths == {"kernel": 1}


@each_layer
def test_the_gradient_of_a_force_reaches_the_weights(name):
    """Energies to forces: the loss is on the gradient, and its gradient is PyG's for every weight."""
    found = []
    edge_index = distinct_edges()
    for layer in twins(name, edge_dim=1):
        place = torch.linspace(0, 1, 3 * N).view(N, 3).requires_grad_()
        length = (place[edge_index[0]] - place[edge_index[1]]).square().sum(1, keepdim=True)
        energy = layer(torch.cat((place, place), 1), edge_index, length).square().sum()
        (force,) = torch.autograd.grad(energy, place, create_graph=True)
        grads = torch.autograd.grad(force.square().sum(), list(layer.parameters()), allow_unused=True)
        found.append([force, *(torch.zeros(()) if grad is None else grad for grad in grads)])
    for mine, theirs in zip(found[1], found[0], strict=True):
        assert_close(
            mine if mine.dim() else torch.zeros_like(theirs), theirs if theirs.dim() else torch.zeros_like(mine)
        )


@each_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_and_autocast(name, dtype):
    _, layer = twins(name, edge_dim=F, dtype=torch.float32)
    x, edge_index, edge_attr = torch.randn(N, C).float(), some_edges(), torch.randn(E, F).float()
    expected = layer(x, edge_index, edge_attr)
    with torch.autocast("cpu", dtype=dtype):
        under, (_, alpha) = layer(x, edge_index, edge_attr, return_attention_weights=True)
    assert_close(under, expected, dtype)
    assert bool(alpha.isfinite().all())
    under.float().square().sum().backward()
    assert all(weight.grad is None or weight.grad.dtype == torch.float32 for weight in layer.parameters())
    halved = copy.deepcopy(layer).to(dtype)
    with counted() as paths:
        out = halved(x.to(dtype), edge_index, edge_attr.to(dtype))
    assert paths == {"kernel": 1}
    assert out.dtype == dtype
    assert_close(out, expected, dtype)


@each_layer
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("concat", [True, False])
def test_autocast_rounds_what_pyg_rounds(name, bias, concat):
    """Both cast the linear maps; what follows has PyG's dtypes, of the output and of the weights."""
    theirs, mine = twins(name, dtype=torch.float32, bias=bias, concat=concat)
    x, edge_index = torch.randn(N, C).float(), some_edges()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = (layer(x, edge_index, return_attention_weights=True) for layer in (mine, theirs))
    for one, other in zip(tensors(found), tensors(expected), strict=True):
        assert one.dtype == other.dtype
        assert_close(one, other, torch.float32 if name == "GATConv" else torch.bfloat16)  # the others round sums too
