"""Attention graphs: the ground floor."""

from typing import Any

import torch

from graphformer.graphs.attention_graph import AttentionGraph
from graphformer.graphs.describe import GraphStats
from graphformer.graphs.features import Features
from graphformer.graphs.layout import Layout
from graphformer.graphs.united import UnitedGraphs

__all__ = ["AttentionGraph", "Features", "GraphStats", "Layout", "attach"]


def attach(data: Any, graph: AttentionGraph) -> Any:
    """See :func:`graphformer.graphs.pyg.attach`; here so that the ground floor imports without PyG."""
    from graphformer.graphs import pyg

    return pyg.attach(data, graph)


def carrier_class(base: Any) -> Any:
    """The class of samples made from ``base`` that carry a graph; files and workers name it by this function."""
    from graphformer.graphs import pyg

    return pyg.carrier_class(base)


# Lets torch.load(weights_only=True) read graphs, and data sets whose samples carry them. The classes hold tensors and
# integers; the function extends a base that the loader itself must trust first.
torch.serialization.add_safe_globals([AttentionGraph, UnitedGraphs, carrier_class])
