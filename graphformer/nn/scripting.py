"""What `torch.jit.script` gets of our layers: it reads the source, and the kernel's cannot be read."""

from __future__ import annotations

from typing import TypeVar

from torch.nn import Module

Plain = TypeVar("Plain", bound=Module)


def plain_twin(layer: Module, kind: type[Plain]) -> Plain:
    """PyG's own layer around the same weights, for `__prepare_scriptable__`.

    Args:
        layer: One of ours.
        kind: PyG's class, from which ours derives and whose state it holds.

    Example:
        >>> from torch_geometric.nn import TransformerConv
        >>> from graphformer import nn
        >>> layer = nn.TransformerConv(8, 4)
        >>> twin = plain_twin(layer, TransformerConv)
        >>> type(twin) is TransformerConv, twin.lin_key.weight is layer.lin_key.weight
        (True, True)
    """
    plain = object.__new__(kind)
    plain.__setstate__(layer.__dict__.copy())
    return plain
