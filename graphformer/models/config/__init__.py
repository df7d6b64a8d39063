"""The settings of models: a plain dataclass each, in a file that imports nothing heavy, found by the model's name."""

from __future__ import annotations

from typing import Any

from graphformer._checks import require_choice
from graphformer.models.config.exphormer import ExphormerConfig
from graphformer.models.config.forest import ForestConfig
from graphformer.models.config.gat import GATConfig
from graphformer.models.config.gated_transformer import GatedTransformerConfig
from graphformer.models.config.gps import GPSConfig
from graphformer.models.config.graph_transformer import GraphTransformerConfig
from graphformer.models.config.graphormer import GraphormerConfig
from graphformer.models.config.grit import GRITConfig
from graphformer.models.config.gt import GTConfig
from graphformer.models.config.mpnn import MPNNConfig

MODELS: dict[str, type] = {
    "graph_transformer": GraphTransformerConfig,
    "graphormer": GraphormerConfig,
    "grit": GRITConfig,
    "gt": GTConfig,
    "gat": GATConfig,
    "gated_transformer": GatedTransformerConfig,
    "gps": GPSConfig,
    "exphormer": ExphormerConfig,
    "mpnn": MPNNConfig,
}
KNOWN: dict[str, type] = {**MODELS, "forest": ForestConfig}  # the forest is no network: nothing builds it


def config_class(name: Any) -> type:
    """The dataclass of a model's settings.

    Raises:
        InputError: No model of that name; near names are suggested.

    Example:
        >>> config_class("graph_transformer").__name__
        'GraphTransformerConfig'
    """
    require_choice(name, list(KNOWN), "model", "name")
    return KNOWN[name]


def name_of(config: Any) -> str:
    """The name under which a config's model is known.

    Example:
        >>> name_of(GraphTransformerConfig())
        'graph_transformer'
    """
    return next(name for name, kind in KNOWN.items() if kind is type(config))
