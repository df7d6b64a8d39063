"""Measures of whole splits, by scikit-learn where it has them.

Labels are `y` as :class:`~graphformer.data.Task` says, missing ones NaN or -1; those do not count.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer._errors import DataError


def mae(y_true: Tensor, y_pred: Tensor) -> float:
    """Mean absolute error of each task over its labelled rows, averaged over the tasks.

    Args:
        y_true: Shape `[rows, tasks]` floating, NaN where a label is missing.
        y_pred: The same shape.

    Raises:
        DataError: A task has no label, or a prediction is NaN.

    Example:
        >>> mae(torch.tensor([[0.0], [2.0], [float("nan")]]), torch.tensor([[3.0], [6.0], [1.0]]))
        3.5
    """
    known = ~y_true.isnan()
    _require_numbers(y_pred)
    _require_labels(bool(known.any(0).all()), "mae")
    errors = (y_pred.double() - y_true.double()).abs().where(known, 0.0)
    return float((errors.sum(0) / known.sum(0)).mean())


def average_precision(y_true: Tensor, y_pred: Tensor) -> float:
    """Average precision of each task over its labelled rows, averaged over the tasks that have both classes.

    That is how OGB and LRGB measure their multi-task sets.

    Args:
        y_true: Shape `[rows, tasks]`, 0, 1 or NaN where a label is missing.
        y_pred: Increasing scores, the same shape.

    Raises:
        DataError: No task has both classes, or a prediction is NaN.

    Example:
        >>> y_true = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, float("nan")]])
        >>> average_precision(y_true, torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
        0.8333333333333333
    """
    _require_numbers(y_pred)
    columns = [(true[~true.isnan()], pred[~true.isnan()]) for true, pred in zip(y_true.T, y_pred.T, strict=True)]
    scores = [_score("average_precision_score", true, pred) for true, pred in columns if len(true.unique()) == 2]
    _require_labels(len(scores) > 0, "ap")
    return sum(scores) / len(scores)


def accuracy(y_true: Tensor, y_pred: Tensor) -> float:
    """Part of the labelled rows whose class has the highest score.

    Args:
        y_true: Classes, shape `[rows, 1]` int64, -1 where a label is missing.
        y_pred: Scores, shape `[rows, classes]`.

    Raises:
        DataError: No row has a label, or a prediction is NaN.

    Example:
        >>> accuracy(torch.tensor([[1], [0], [-1]]), torch.tensor([[0.1, 0.9], [0.2, 0.8], [1.0, 0.0]]))
        0.5
    """
    return _score("accuracy_score", *_classes(y_true, y_pred, "acc"))


def macro_f1(y_true: Tensor, y_pred: Tensor) -> float:
    """F1 of each class that is among the labels or the predictions, averaged over these classes.

    Args and errors as :func:`accuracy`'s.

    Example:
        >>> macro_f1(torch.tensor([[1], [0], [0]]), torch.tensor([[0.1, 0.9], [0.2, 0.8], [1.0, 0.0]]))
        0.6666666666666666
    """
    return _score("f1_score", *_classes(y_true, y_pred, "F1"), average="macro", zero_division=0)


def _classes(y_true: Tensor, y_pred: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    _require_numbers(y_pred)
    known = y_true[:, 0] >= 0
    _require_labels(bool(known.any()), metric)
    return y_true[known, 0], y_pred[known].argmax(1)


def _score(name: str, true: Tensor, pred: Tensor, **how: Any) -> float:
    from sklearn import metrics  # takes a second, which names() need not wait for

    return float(getattr(metrics, name)(true.cpu().numpy(), pred.detach().float().cpu().numpy(), **how))


def _require_numbers(y_pred: Tensor) -> None:
    bad = not bool(torch.isfinite(y_pred).all())
    remedy = "Lower the learning rate, or look for where the model diverged."
    require(not bad, "evaluate", "y_pred", "be finite", "NaN or infinity", remedy, DataError)


def _require_labels(good: bool, metric: str) -> None:
    remedy = "Measure rows with labels, of both classes where there are two."
    require(good, "evaluate", "y_true", f"have labels that {metric} is defined on", "none", remedy, DataError)
