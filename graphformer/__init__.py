"""Attention as message passing over attention graphs.

A pattern says which query may attend to which key, an attention graph stores it, one kernel (scatter-softmax)
computes over it, layers and models compose it. Everything here is imported on first use, so that
``import graphformer`` itself costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"
__all__ = [
    "Additive",
    "AttentionGraph",
    "Estimate",
    "GraphformerError",
    "attend",
    "attention_weights",
    "data",
    "estimate",
    "explain",
    "graphs",
    "kernels",
    "models",
    "nn",
    "patterns",
    "scaled_dot_product_attention",
    "testing",
    "train",
    "watch_attention",
]

_HOME = {
    "AttentionGraph": "graphs",
    "Additive": "kernels",
    "attend": "kernels",
    "attention_weights": "kernels",
    "explain": "kernels",
    "watch_attention": "kernels",
    "Estimate": "cost",
    "estimate": "cost",
    "GraphformerError": "_errors",
    "scaled_dot_product_attention": "nn",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"graphformer.{_HOME[name]}"), name)
    if name in __all__:
        return import_module(f"graphformer.{name}")
    raise AttributeError(f"module 'graphformer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
