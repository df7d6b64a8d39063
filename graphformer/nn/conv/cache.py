"""What is made of a tensor of indices, kept while the tensor lives: the layers of a model share one graph."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
from torch_geometric import EdgeIndex

from graphformer._transforms import keep

Made = TypeVar("Made")
_MOST = 32  # a dozen edge types and samples; whoever walks over more tensors than that does not come back to them soon


class _Entry(NamedTuple):
    mark: tuple[Any, ...]
    made: dict[Hashable, Any]


class _Kept(threading.local):
    """Each thread's own: weak dictionaries are not made for two."""

    def __init__(self) -> None:
        self.entries: WeakIdKeyDictionary = WeakIdKeyDictionary()


_KEPT = _Kept()


def mark_of(tensor: Tensor) -> tuple[Any, ...]:
    """What changes where a tensor is written to, or given other values.

    Example:
        >>> index = torch.zeros(2, 3)
        >>> before = mark_of(index)
        >>> index.data = index.clone()
        >>> mark_of(index) == before
        False
    """
    tensor = _written(tensor)
    has_place = type(tensor) is Tensor and tensor.layout == torch.strided
    return tensor._version, tensor.shape, tensor.data_ptr() if has_place else None


def _written(tensor: Any) -> Any:
    return tensor.as_tensor() if isinstance(tensor, EdgeIndex) else tensor


def cached(tensor: Any, tag: Hashable, make: Callable[[], Made]) -> Made:
    """What `make` gives for a tensor, made once for each tag while the tensor lives and is not written to.

    Entries go by the tensor's identity, version and values' place, so that another tensor at the same address, a tensor
    that was changed in place and one that was given other values (`tensor.data = other`) are made anew; an `EdgeIndex`
    has the version of the tensor inside. What torch does not count as a version (writing through numpy or into `.data`)
    cannot be seen. Nothing is kept of a tensor without a version (made in
    inference mode), of what is no tensor, and under torch.compile.

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
    written = _written(tensor)
    if torch.compiler.is_compiling() or not isinstance(written, Tensor) or written.is_inference():
        return make()
    kept = _KEPT.entries
    entry = kept.get(tensor)
    mark = mark_of(written)
    if entry is None or entry.mark != mark:
        if entry is None and len(kept) >= _MOST:
            kept.pop(next(iter(kept)))
        entry = kept[tensor] = _Entry(mark, {})
    if tag not in entry.made:
        entry.made[tag] = keep(make)
    return entry.made[tag]
