"""Attention graphs: the ground floor."""

from typing import Any

from graphformer.graphs.attention_graph import AttentionGraph, GraphStats
from graphformer.graphs.layout import Layout

__all__ = ["AttentionGraph", "GraphStats", "Layout", "attach"]


def attach(data: Any, graph: AttentionGraph) -> Any:
    """See :func:`graphformer.graphs.pyg.attach`; here so that the ground floor imports without PyG."""
    from graphformer.graphs import pyg

    return pyg.attach(data, graph)
