"""What is made of a tensor of indices, kept while the tensor lives: the layers of a model share one graph."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
from torch_geometric import EdgeIndex

Made = TypeVar("Made")
_MOST = 32  # a dozen edge types and samples; whoever walks over more tensors than that does not come back to them soon


class _Entry(NamedTuple):
    version: int
    made: dict[Hashable, Any]


class _Kept(threading.local):
    """Each thread's own: weak dictionaries are not made for two."""

    def __init__(self) -> None:
        self.entries: WeakIdKeyDictionary = WeakIdKeyDictionary()


_KEPT = _Kept()


def cached(tensor: Any, tag: Hashable, make: Callable[[], Made]) -> Made:
    """What `make` gives for a tensor, made once for each tag while the tensor lives and is not written to.

    Entries go by the tensor's identity and version, so that another tensor at the same address and a tensor that was
    changed in place are made anew; an `EdgeIndex` has the version of the tensor inside. What torch does not count as a
    version (writing through numpy or `.data`) cannot be seen. Nothing is kept of a tensor without a version (made in
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
    written = tensor.as_tensor() if isinstance(tensor, EdgeIndex) else tensor
    if torch.compiler.is_compiling() or not isinstance(written, Tensor) or written.is_inference():
        return make()
    kept = _KEPT.entries
    entry = kept.get(tensor)
    if entry is None or entry.version != written._version:
        if entry is None and len(kept) >= _MOST:
            kept.pop(next(iter(kept)))
        entry = kept[tensor] = _Entry(written._version, {})
    if tag not in entry.made:
        with torch.inference_mode(False):  # which may ask first for what training uses later
            entry.made[tag] = make()
    return entry.made[tag]
