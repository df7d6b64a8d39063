"""What the tests of the aggregations share: the comparison with PyG's, and the graphs of the kernel's calls."""

import torch

from graphformer.testing import assert_close


def collect_graphs(monkeypatch, module, name, place):
    """The graphs that a module's function of that name is called with from now on, as its argument at that place."""
    found, real = [], getattr(module, name)

    def call(*arguments, **options):
        found.append(arguments[place])
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, call)
    return found


def compare(theirs, mine, x, *arguments, **options):
    """Output and the gradients of the members and of all weights agree."""
    outs = [layer(x, *arguments, **options) for layer in (theirs, mine)]
    pull = torch.randn_like(outs[0])
    grads = [
        torch.autograd.grad(out, [x, *layer.parameters()], pull, allow_unused=True)
        for out, layer in zip(outs, (theirs, mine), strict=True)
    ]
    assert outs[0].dtype == outs[1].dtype
    assert outs[0].shape == outs[1].shape
    for expected, actual in zip((outs[0], *grads[0]), (outs[1], *grads[1]), strict=True):
        assert (expected is None) == (actual is None)
        if expected is not None:
            assert_close(actual, expected, x.dtype)
    return outs[1]
