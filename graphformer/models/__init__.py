"""Models: a config dataclass and a class each; imported on first use, so that reading a config costs no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch_geometric.data import Data

    from graphformer.graphs import Features
    from graphformer.models.heads import Level

_HOME = {
    "Exphormer": "exphormer",
    "ExphormerConfig": "config",
    "GAT": "gat",
    "GATConfig": "config",
    "GPS": "gps",
    "GPSConfig": "config",
    "GRIT": "grit",
    "GRITConfig": "config",
    "GT": "gt",
    "GTConfig": "config",
    "GatedTransformer": "gated_transformer",
    "GatedTransformerConfig": "config",
    "GraphTransformer": "graph_transformer",
    "GraphTransformerConfig": "config",
    "Graphormer": "graphormer",
    "GraphormerConfig": "config",
    "Head": "heads",
    "MPNN": "mpnn",
    "MPNNConfig": "config",
    "config_class": "config",
}
__all__ = sorted([*_HOME, "build", "transform"])


def build(config: Any, features: Features, num_outputs: int, level: Level = "graph") -> torch.nn.Module:
    """The model of these settings; it takes batches of samples that passed :func:`transform`.

    Args:
        config: Settings of a model, one of the dataclasses of `graphformer.models.config`.
        features: What the nodes and edges of the data carry.
        num_outputs: Number of outputs a graph, node or pair.
        level: What the outputs are of: "graph" (default), "node" or "link".

    Raises:
        InputError: The settings do not fit the features.

    Example:
        >>> from graphformer.graphs import Features
        >>> from graphformer.models.config import GraphTransformerConfig
        >>> type(build(GraphTransformerConfig(), Features(node_categories=(119, 5)), num_outputs=1)).__name__
        'GraphTransformer'
    """
    home = _home(config)
    kind = getattr(home, type(config).__name__.removesuffix("Config"))
    return kind(config, features, num_outputs, level)


def transform(config: Any) -> Callable[[Data], Data]:
    """What a sample passes once before training: its encodings and its attention graph are stored on it.

    Args:
        config: The model's settings; the same ones build the model.

    Returns:
        A PyG transform, which takes a `Data` and returns a copy.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from graphformer.models.config import GraphTransformerConfig
        >>> data = Data(x=torch.zeros(2, 1).long(), edge_index=torch.tensor([[0, 1], [1, 0]]))
        >>> transform(GraphTransformerConfig(walk_steps=4))(data).random_walk.shape
        torch.Size([2, 4])
    """
    return _home(config).transform(config)


def _home(config: Any) -> Any:
    from graphformer._checks import require_choice
    from graphformer.models.config import MODELS, name_of

    remedy = "Train a forest with graphformer.train; it is built from fingerprints."
    require_choice(name_of(config), MODELS, "models", "config's model", remedy)
    return import_module(f"graphformer.models.{name_of(config)}")


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"graphformer.models.{_HOME[name]}"), name)
    raise AttributeError(f"module 'graphformer.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
