"""Numbers of nodes and edges at mean 0 and standard deviation 1 over the training graphs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphformer.data.pyg.files import Parts


def standardize(parts: Parts, name: str, num_columns: int) -> None:
    """Bring the first columns of an attribute to mean 0 and standard deviation 1 over the training graphs, in place.

    A column that is the same everywhere becomes 0.

    Args:
        parts: Graphs of the parts "train", "valid" and "test".
        name: Attribute, `[*, columns]` floating; "x" or "edge_attr".
        num_columns: How many columns. 0 changes nothing.

    Example:
        >>> from torch_geometric.data import Data
        >>> train = [Data(x=torch.tensor([[1.0], [3.0]]))]
        >>> test = [Data(x=torch.tensor([[4.0]]))]
        >>> standardize({"train": train, "valid": [], "test": test}, "x", 1)
        >>> train[0].x.tolist(), test[0].x.tolist()
        ([[-1.0], [1.0]], [[2.0]])
    """
    if num_columns == 0:
        return
    training = [graph[name][:, :num_columns] for graph in parts["train"]]
    mean = _mean(training)
    deviation = _mean([(values - mean).square() for values in training]).sqrt()
    deviation[deviation == 0] = 1.0
    for graphs in parts.values():
        for graph in graphs:
            values = graph[name][:, :num_columns]
            values.copy_((values - mean) / deviation)


def _mean(rows: Sequence[Tensor]) -> Tensor:
    """Over the rows of all tensors, in float64."""
    count = max(1, sum(len(values) for values in rows))
    total = torch.zeros(rows[0].shape[1], dtype=torch.float64)
    for values in rows:
        total += values.sum(0, dtype=torch.float64)
    return total / count
