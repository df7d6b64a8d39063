"""torch.func and batches of gradients through the drop-in layers: the numbers of PyG's layers."""

from __future__ import annotations

import pytest
import torch
from drop_in_cases import NAMES, C, D, F, N, assert_same, some_edges, twins
from torch.autograd import functional as classic
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import graphformer as gf
from graphformer import nn as ours
from graphformer._errors import UnsupportedError
from graphformer.patterns import Edges, Window
from graphformer.testing import assert_close

each_layer = pytest.mark.parametrize("name", NAMES)


def with_edges(layer, edges, attr):
    return lambda x: layer(x, edges, attr)


def batch_of_gradients(function, x):
    y = x.clone().requires_grad_()
    out = function(y)
    return torch.autograd.grad(out, y, torch.stack((torch.ones_like(out), out.detach())), is_grads_batched=True)


def hessian_by_rows(function, x):
    y = x.clone().requires_grad_()
    slope = torch.autograd.grad(function(y).sin().sum(), y, create_graph=True)[0]
    rows = torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
    return vmap(lambda row: torch.autograd.grad(slope, y, row, retain_graph=True)[0])(rows)


TRANSFORMS = {
    "grad": lambda function, x: grad(lambda x: function(x).sin().sum())(x),
    "vjp": lambda function, x: vjp(function, x)[1](function(x).detach()),
    "jvp": lambda function, x: jvp(function, (x,), (x.cos(),)),
    "jacrev": lambda function, x: jacrev(function)(x),
    "jacfwd": lambda function, x: jacfwd(function)(x),
    "hessian": lambda function, x: hessian(lambda x: function(x).sin().sum())(x),
    "jacrev twice": lambda function, x: jacrev(jacrev(lambda x: function(x).sin().sum()))(x),
    "vmap": lambda function, x: vmap(function)(torch.stack((x, x + 1))),
    "vmap of grad": lambda function, x: vmap(grad(lambda x: function(x).sin().sum()))(torch.stack((x, x + 1))),
    "is_grads_batched": batch_of_gradients,
    "vectorized jacobian": lambda function, x: classic.jacobian(function, x, vectorize=True),
    "vectorized hessian": lambda function, x: classic.hessian(lambda x: function(x).sin().sum(), x, vectorize=True),
    "hessian by rows": hessian_by_rows,
}


@each_layer
@pytest.mark.parametrize("edge_dim", [None, F])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms(name, edge_dim, transform):
    """The edge index is new: its graph is made inside the transform."""
    x, edges = torch.randn(N, C).double(), some_edges()
    attr = None if edge_dim is None else torch.randn(edges.shape[1], F).double()
    results = [TRANSFORMS[transform](with_edges(m, edges, attr), x) for m in twins(name, edge_dim=edge_dim)]
    assert_same(results[1], results[0])


@each_layer
def test_gradients_of_each_sample(name):
    samples, edges = torch.randn(3, N, C).double(), some_edges()
    found = []
    for layer in twins(name):
        weights = dict(layer.named_parameters())

        def loss(weights, x, edges, layer=layer):
            return functional_call(layer, weights, (x, edges)).square().sum()

        slopes = vmap(grad(loss), (None, 0, None))(weights, samples, edges)
        found.append([slopes[key] for key in sorted(slopes)])
    assert_same(found[1], found[0])


@each_layer
def test_the_graph_of_wrapped_edges_is_kept_and_outlasts_the_transform(name):
    theirs, mine = twins(name)
    x, edges = torch.randn(N, C).double(), some_edges()
    grad(lambda x, edges: mine(x, edges).sum())(x, edges)
    y = [x.clone().requires_grad_() for _ in range(2)]
    outs = [layer(part, edges) for layer, part in zip((theirs, mine), y, strict=True)]
    assert_same(torch.autograd.grad(outs[1].sum(), y[1]), torch.autograd.grad(outs[0].sum(), y[0]))


@each_layer
def test_edges_for_each_sample_are_refused(name):
    layer, edges = getattr(ours, name)(C, D), some_edges()
    with pytest.raises(UnsupportedError, match=f"{name}: edge_index must be one for all samples"):
        vmap(layer)(torch.randn(2, N, C), torch.stack((edges, edges)))


def doors():
    gps = ours.GPSConv(C, None, heads=2, norm=None, pattern=Edges() | Window(1)).double()
    attn = ours.MultiheadAttention(C, 2, batch_first=True, pattern=Window(1), dtype=torch.float64)
    edges, batch = some_edges(), torch.tensor([0, 0, 0, 0, 1, 1, 1])
    edges = edges[:, (edges < 4).all(0) | (edges >= 4).all(0)]
    return {
        "GPSConv": lambda x: gps(x, edges, batch),
        "MultiheadAttention": lambda x: attn(x, x, x)[0],
        "scaled_dot_product_attention": lambda x: gf.scaled_dot_product_attention(x, x, x, pattern=Window(1)),
    }


@pytest.mark.parametrize("door", list(doors()))
def test_the_other_doors(door):
    function, x = doors()[door], torch.randn(N, C).double()
    expected = classic.jacobian(function, x)
    assert_close(jacrev(function)(x), expected)
    assert_close(jacfwd(function)(x), expected)
