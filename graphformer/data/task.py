"""The common face of the graph-property data sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor
from torch_geometric.data import Data

from graphformer._checks import require

TaskType = Literal["regression", "binary classification"]


@dataclass(frozen=True, eq=False)
class GraphTask:
    """Graphs with labels, their split, and the measure that the field uses for them.

    Attributes:
        name: Name of the data set, as :func:`graphformer.data.load` takes it.
        train: Training graphs. Each is a `Data` with `x` [n, atom features] int64, `edge_index` [2, e] with both
            directions of a bond, `edge_attr` [e, bond features] int64 and `y` [1, num_tasks] float32. A missing
            label is NaN.
        valid: Validation graphs, for choosing a model.
        test: Test graphs, for reporting it.
        num_tasks: Labels a graph.
        task_type: "regression" or "binary classification" (of each label by itself).
        metric: Name of the measure: "rmse", "rocauc" or "ap".
        higher_is_better: Direction of the measure.
        node_categories: Number of values of each atom feature.
        edge_categories: Number of values of each bond feature.
        measure: What :meth:`evaluate` calls; the official evaluator for OGB data sets.
    """

    name: str
    train: Sequence[Data] = field(repr=False)
    valid: Sequence[Data] = field(repr=False)
    test: Sequence[Data] = field(repr=False)
    num_tasks: int
    task_type: TaskType
    metric: str
    higher_is_better: bool
    node_categories: tuple[int, ...]
    edge_categories: tuple[int, ...]
    measure: Callable[[Tensor, Tensor], float] = field(repr=False)

    def evaluate(self, y_true: Tensor, y_pred: Tensor) -> float:
        """The measure over a whole split.

        Args:
            y_true: Labels. Shape `[graphs, num_tasks]`, float; missing labels are NaN and do not count.
            y_pred: Predictions, same shape: values for regression, any increasing score for classification.

        Raises:
            InputError: The shapes differ or are not `[graphs, num_tasks]`.
            DataError: The measure is not defined on these labels (ROC-AUC without both classes).
        """
        shape = tuple(y_true.shape)
        require(
            y_true.dim() == 2 and shape[1] == self.num_tasks,
            "evaluate",
            "y_true",
            f"have shape [graphs, {self.num_tasks}]",
            list(shape),
            "Stack one row of labels a graph.",
        )
        require(
            tuple(y_pred.shape) == shape,
            "evaluate",
            "y_pred",
            f"have y_true's shape {list(shape)}",
            list(y_pred.shape),
            "Give one prediction a graph and task.",
        )
        return self.measure(y_true, y_pred)


def rmse(y_true: Tensor, y_pred: Tensor) -> float:
    """Root mean squared error of each task over its labelled graphs, averaged over the tasks.

    Example:
        >>> import torch
        >>> rmse(torch.tensor([[0.0], [2.0], [float("nan")]]), torch.tensor([[3.0], [6.0], [1.0]]))
        3.5355339059327378
    """
    y_true, y_pred = y_true.double(), y_pred.double()
    known = ~y_true.isnan()
    squares = (y_pred - y_true).square().where(known, 0.0)
    return float((squares.sum(0) / known.sum(0)).sqrt().mean())
