"""The correctness gate: a provider's numbers are compared with the oracle's before any of its speed is told."""

from __future__ import annotations

import math

from torch import Tensor

from benchmarks.case import Run
from graphformer.testing import assert_close

_FEW_DOZEN = 32


def numbers(run: Run, gradients: bool) -> dict[str, Tensor]:
    """The result and, on request, the gradients, by the common names."""
    if not gradients:
        return run.common({"out": run.only_forward()})
    out, *grads = run.both()
    return run.common({"out": out.detach(), **dict(zip(run.leaves, grads, strict=True))})


def complaint(found: dict[str, Tensor], expected: dict[str, Tensor], terms: int = _FEW_DOZEN) -> str:
    """What is wrong with a provider's numbers; empty if nothing is.

    The tolerance table of graphformer.testing speaks of a few dozen terms of order one. A gradient that is summed over
    all nodes (a weight's) is first divided by what rounding grows with, the square root of their number over a few
    dozen; and whatever is larger than order one by its root mean square.

    Args:
        found: By the common names. May lack gradients where the provider has no backward.
        expected: The oracle's.
        terms: Pairs of the longest row, where these are more than a few dozen: rounding grows with their square root.
    """
    for name, tensor in found.items():
        if name not in expected:
            return f"{name}: the oracle has no such result"
        want = expected[name]
        if tensor.shape != want.shape:
            return f"{name}: shape {list(tensor.shape)} instead of {list(want.shape)}"
        if not want.is_floating_point():
            if not tensor.equal(want):
                return f"{name}: {int((tensor != want).sum())} of {want.numel()} integers differ"
            continue
        scale = max(1.0, float(want.double().square().mean().sqrt()), math.sqrt(terms / _FEW_DOZEN))
        if len(tensor) != len(expected["out"]):
            scale = max(scale, math.sqrt(len(expected["out"]) / _FEW_DOZEN))
        try:
            assert_close(tensor.double() / scale, want.double() / scale, want.dtype)
        except AssertionError:
            worst = float((tensor.double() - want.double()).abs().max()) / scale
            return f"{name}: off by {worst:.1e} where numbers are of order one"
    missing = set(expected) - set(found)
    if len(found) > 1 and missing:
        return f"no gradient of {', '.join(sorted(missing))}"
    return ""


def farthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[str, float]:
    """(which number, by what share of the oracle's norm) is farthest off, of those that both have in one shape.

    Means of many values are so small that an absolute tolerance says little about them; this does.
    """
    errors = {"": 0.0}
    for name, tensor in found.items():
        want = expected.get(name)
        if want is not None and want.is_floating_point() and want.shape == tensor.shape and want.numel():
            norm = float(want.double().norm())
            off = float((tensor.double() - want.double()).norm())
            errors[name] = off / norm if norm else off
    return max(errors.items(), key=lambda item: math.inf if math.isnan(item[1]) else item[1])
