"""`convert`: the attention layers of an existing PyG model become ours, with the weights that they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch_geometric.nn as pyg
from torch.nn import Module, MultiheadAttention
from torch.nn.utils.parametrize import is_parametrized

from graphformer._checks import require
from graphformer.nn.aggr import AttentionalAggregation, SetTransformerAggregation
from graphformer.nn.conv.gat_conv import GATConv
from graphformer.nn.conv.gatv2_conv import GATv2Conv
from graphformer.nn.conv.gps_conv import GPSConv
from graphformer.nn.conv.transformer_conv import TransformerConv

# Ours derive from PyG's and hold what it holds, so that an instance changes its class and nothing else. Where ours has
# options that are not PyG's, `_take_options` gives them their defaults.
LAYERS: dict[type[Module], type[Module]] = {
    pyg.aggr.AttentionalAggregation: AttentionalAggregation,
    pyg.GATConv: GATConv,
    pyg.GATv2Conv: GATv2Conv,
    pyg.GPSConv: GPSConv,
    pyg.aggr.SetTransformerAggregation: SetTransformerAggregation,
    pyg.TransformerConv: TransformerConv,
}
# By name, as some came after the oldest PyG that is supported.
_UNKNOWN = frozenset(
    [
        "AGNNConv",
        "CuGraphGATConv",
        "DNAConv",
        "DenseGATConv",
        "GATEConv",
        "GraphMultisetTransformer",
        "HANConv",
        "HEATConv",
        "HGTConv",
        "PatchTransformerAggregation",
        "PerformerAttention",
        "PointTransformerConv",
        "PolynormerAttention",
        "QFormer",
        "RGATConv",
        "SGFormerAttention",
        "SuperGATConv",
    ]
)


class ConvertedLayer(NamedTuple):
    """One attention layer of a model.

    Attributes:
        path: Where it is, as `model.named_modules()` says it; "" is the model itself.
        name: Name of its class.
        why_left: Why it was left as it is; None where it was replaced.
    """

    path: str
    name: str
    why_left: str | None


@dataclass(frozen=True, repr=False)
class Conversion:
    """What :func:`convert` did; its repr is a table.

    Attributes:
        layers: Every attention layer that was found, in the order of `model.named_modules()`.
    """

    layers: tuple[ConvertedLayer, ...]

    @property
    def replaced(self) -> tuple[str, ...]:
        """Paths of the layers that are ours now."""
        return tuple(layer.path for layer in self.layers if layer.why_left is None)

    @property
    def left(self) -> dict[str, str]:
        """Paths of the layers that were left as they are, and why."""
        return {layer.path: layer.why_left for layer in self.layers if layer.why_left is not None}

    def __repr__(self) -> str:
        rows = [(layer.path or "(model)", layer.name, layer.why_left) for layer in self.layers]
        path_width, name_width = (max((len(row[i] or "") for row in rows), default=0) for i in (0, 1))
        lines = [f"{len(self.replaced)} replaced, {len(self.left)} left"]
        for path, name, why in rows:
            lines.append(f"{path:{path_width}}  {name:{name_width}}  {'replaced' if why is None else f'left: {why}'}")
        return "\n".join(lines)


def convert(model: Module) -> Conversion:
    """Replace PyG's attention layers in a model by ours, in place, and tell what was replaced and what was left.

    A layer becomes ours by a change of its class: parameters stay the same objects, so that optimizers stay valid, and
    hooks, mode, device, dtype, lazy widths and `state_dict` stay as they are. Only PyG's own classes are replaced, and
    only where the next forward runs the kernel; see :meth:`TransformerConv.why_unfused
    <graphformer.nn.TransformerConv.why_unfused>`. A model that was compiled before compiles anew at its next call.

    Args:
        model: Any module: a PyG model, one of your own, a `HeteroConv`, the result of `to_hetero`, or a layer itself.
            Layers that are not registered as submodules are not found.

    Returns:
        A row for each layer that was replaced, and for each attention layer that was left, with the reason. Other
        modules, layers that are ours already, and what lies inside an attention layer have no row. A layer that the
        model holds twice has one, under its first path.

    Raises:
        InputError: `model` is no module.

    Example:
        >>> model = pyg.Sequential(
        ...     "x, edge_index",
        ...     [
        ...         (pyg.GATConv(8, 8), "x, edge_index -> x"),
        ...         (pyg.TransformerConv(8, 8, aggr="max"), "x, edge_index -> x"),
        ...         (pyg.SuperGATConv(8, 8), "x, edge_index -> x"),
        ...     ],
        ... )
        >>> report = convert(model)
        >>> report
        1 replaced, 2 left
        module_0  GATConv          replaced
        module_1  TransformerConv  left: aggr='max' is no sum
        module_2  SuperGATConv     left: graphformer has no such layer
        >>> report.replaced, isinstance(model[0], GATConv)
        (('module_0',), True)
    """
    require(
        isinstance(model, Module),
        "convert",
        "model",
        "be a torch.nn.Module",
        type(model).__name__,
        "Convert the model that holds the layers.",
    )
    layers: list[ConvertedLayer] = []
    parents: list[str] = []  # with a dot at the end; the root's is empty, and begins every path
    for path, module in model.named_modules():
        name, inside = type(module).__name__, path.startswith(tuple(parents))
        original = next((kind for kind in LAYERS if isinstance(module, kind)), None)
        if original is not None and not isinstance(module, LAYERS[original]):
            layers.append(ConvertedLayer(path, name, _replace(module, original)))
        elif original is None:
            why = None if inside else _why_unknown(module)
            if why is None:
                continue
            layers.append(ConvertedLayer(path, name, why))
        parents.append(f"{path}." if path else "")
    return Conversion(tuple(layers))


def _replace(module: Any, original: type[Module]) -> str | None:
    """Make the module ours, or tell why not."""
    name, ours = type(module).__name__, LAYERS[original]
    if is_parametrized(module):
        return f"parametrized, which made {name} of it; convert the model first"
    if type(module) is not original:
        return f"{name} is a subclass of {original.__name__}; derive it from graphformer.nn.{ours.__name__}"
    if "forward" in vars(module):
        return "it has a forward of its own"
    module.__class__ = ours
    reasons: list[str] = getattr(module, "why_unfused", list)()
    if reasons:
        module.__class__ = original
        return "; ".join(reasons)
    take_options = getattr(module, "_take_options", None)
    if take_options is not None:
        take_options()
    return None


def _why_unknown(module: Module) -> str | None:
    """Why attention that has no entry in the table is left; None for what is no attention."""
    kind = type(module)
    if kind is MultiheadAttention:
        return "without a pattern torch's own is as good; with one, construct graphformer.nn.MultiheadAttention"
    if kind.__module__.startswith("torch_geometric.") and kind.__name__ in _UNKNOWN:
        return "graphformer has no such layer"
    return None
