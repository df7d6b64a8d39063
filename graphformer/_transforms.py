"""torch.func's transforms (grad, vmap, ...): whether one is at work, and how what outlasts it is made outside of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from graphformer._checks import refuse
from graphformer._errors import UnsupportedError

Made = TypeVar("Made")

_functorch = torch._C._functorch


def is_transformed() -> bool:
    """Whether the call is made inside one of torch.func's transforms, or for a batch of gradients.

    Example:
        >>> is_transformed(), torch.vmap(lambda x: x + is_transformed())(torch.zeros(2))
        (False, tensor([1., 1.]))
    """
    return not torch.compiler.is_compiling() and _functorch.peek_interpreter_stack() is not None


def keep(make: Callable[[], Made]) -> Made:
    """What `make` returns, as tensors of nobody's own: inference mode or a transform may ask first, training later.

    Example:
        >>> with torch.inference_mode():
        ...     keep(lambda: torch.zeros(1)).is_inference()
        False
    """
    if torch.compiler.is_compiling():
        return make()
    with torch.inference_mode(False), temporarily_clear_interpreter_stack():
        return make()


def plain(fact: Any, where: str, argument: str) -> Any:
    """A tensor of facts, such as indices, below the transforms that wrap it; anything else as it is.

    Raises:
        UnsupportedError: torch.func.vmap holds one for each sample.

    Example:
        >>> ids = torch.tensor([3])
        >>> def count(x, wrapped):
        ...     print(wrapped is ids, plain(wrapped, "count", "ids") is ids)
        ...     return x.sum()
        >>> torch.func.grad(count)(torch.zeros(1), ids)
        False True
        tensor([1.])
    """
    if torch.compiler.is_compiling() or not isinstance(fact, torch.Tensor):
        return fact
    while _functorch.is_functorch_wrapped_tensor(fact):
        if _functorch.is_batchedtensor(fact):
            remedy = "Pass in_dims=None for it, or call once for each sample."
            rule = "be one for all samples of torch.func.vmap"
            refuse(where, argument, rule, "one for each", remedy, UnsupportedError)
        fact = _functorch.get_unwrapped(fact)
    return fact
