"""Training: settings, Lightning module, runs and their folders."""

from importlib import import_module
from typing import Any

__all__ = [
    "Measured",
    "Prediction",
    "RunResult",
    "SeedsResult",
    "TrainConfig",
    "as_table",
    "draw_explanation",
    "evaluate",
    "explain",
    "export",
    "find_results",
    "predict",
    "read_config",
    "recipe",
    "resume",
    "train",
]

_HOME = {
    "RunResult": "results",
    "SeedsResult": "results",
    "TrainConfig": "config",
    "as_table": "results",
    "draw_explanation": "explanation",
    "explain": "explanation",
    "export": "exported",
    "find_results": "results",
    "read_config": "config",
    "recipe": "recipes",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'graphformer.train' has no attribute {name!r}")
    return getattr(import_module(f"graphformer.train.{_HOME.get(name, 'run')}"), name)
