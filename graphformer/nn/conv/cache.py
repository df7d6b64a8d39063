"""What is made of a tensor of indices, kept while the tensor lives: the layers of a model share one graph."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

Made = TypeVar("Made")
_MOST = 32  # a dozen edge types and samples; whoever walks over more tensors than that does not come back to them soon


class _Entry(NamedTuple):
    version: int
    made: dict[Hashable, Any]


_KEPT: WeakIdKeyDictionary = WeakIdKeyDictionary()


def cached(tensor: Tensor, tag: Hashable, make: Callable[[], Made]) -> Made:
    """What `make` gives for the tensor, made once for each tag while the tensor lives and is not written to.

    Entries go by the tensor's identity and version, so that another tensor at the same address and a tensor that was
    changed in place are made anew. What torch does not count as a version (writing through numpy or `.data`, tensors
    of inference mode) cannot be seen: tensors without a version are never kept. Nothing is kept under torch.compile.

    Args:
        tensor: What `make` reads; it must not be reachable from the result, or neither would ever be freed.
        tag: What else the result depends on.
        make: Called without arguments.

    Example:
        >>> index = torch.tensor([3, 1])
        >>> cached(index, "largest", lambda: int(index.max())), cached(index, "largest", lambda: 0)
        (3, 3)
        >>> _ = index.add_(1)
        >>> cached(index, "largest", lambda: int(index.max()))
        4
    """
    if torch.compiler.is_compiling() or tensor.is_inference():
        return make()
    entry = _KEPT.get(tensor)
    if entry is None or entry.version != tensor._version:
        if entry is None and len(_KEPT) >= _MOST:
            _KEPT.pop(next(iter(_KEPT)))
        entry = _KEPT[tensor] = _Entry(tensor._version, {})
    if tag not in entry.made:
        entry.made[tag] = make()
    return entry.made[tag]
