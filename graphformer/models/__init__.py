"""Models: a config dataclass and a class each; imported on first use, so that reading a config costs no torch."""

from importlib import import_module

_HOME = {
    "GraphTransformer": "graph_transformer",
    "GraphTransformerConfig": "config",
    "transform": "graph_transformer",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"graphformer.models.{_HOME[name]}"), name)
    raise AttributeError(f"module 'graphformer.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
