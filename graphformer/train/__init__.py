"""Training: settings, Lightning module, runs and their folders."""

from importlib import import_module
from typing import Any

__all__ = [
    "Measured",
    "Prediction",
    "RunResult",
    "TrainConfig",
    "evaluate",
    "predict",
    "read_config",
    "recipe",
    "resume",
    "train",
]

_HOME = {"TrainConfig": "config", "read_config": "config", "recipe": "config"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'graphformer.train' has no attribute {name!r}")
    return getattr(import_module(f"graphformer.train.{_HOME.get(name, 'run')}"), name)
