"""Ogb's evaluators as measures: what they take is made of labels and predictions as :class:`Task` says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphformer._checks import refuse
from graphformer._errors import DataError
from graphformer.data.ogb.layout import Layout

Measure = Callable[[Tensor, Tensor], float]


def official_measure(layout: Layout, inputs: Callable[[Tensor, Tensor], dict[str, Any]]) -> Measure:
    """The measure of ogb's own evaluator.

    Args:
        layout: The data set.
        inputs: Makes what the evaluator takes of labels and predictions; raises ValueError where it cannot be made.

    Returns:
        A function of labels and predictions that raises DataError where the evaluator gives no number: without labels,
        with labels of one class for a ROC-AUC, with predictions that are NaN.
    """
    evaluator = layout.package.Evaluator(layout.name)
    metric = evaluator.eval_metric

    def measure(y_true: Tensor, y_pred: Tensor) -> float:
        try:
            result = evaluator.eval(inputs(y_true, y_pred))
            return float(result["mrr_list"].mean() if metric == "mrr" else result[metric])
        except (RuntimeError, ValueError, ZeroDivisionError) as error:
            refuse(
                "evaluate",
                f"{layout.name}'s labels and predictions",
                f"have a {metric}",
                str(error).rstrip("."),
                "Check for NaN predictions and for labels of one class.",
                DataError,
            )

    return measure


def as_they_are(y_true: Tensor, y_pred: Tensor) -> dict[str, Any]:
    """Values or scores; ogb leaves out labels that are NaN."""
    require_labels(~y_true.isnan())
    y_pred = y_pred.to(torch.promote_types(y_pred.dtype, torch.float32))  # numpy knows no bfloat16
    return {"y_true": y_true, "y_pred": y_pred}


def chosen_class(y_true: Tensor, y_pred: Tensor) -> dict[str, Any]:
    """The class of the highest score, in each row that has a label."""
    _require_numbers(y_pred)
    known = y_true[:, 0] >= 0
    require_labels(known)
    return {"y_true": y_true[known], "y_pred": y_pred[known].argmax(1, keepdim=True)}


def links_and_others(y_true: Tensor, y_pred: Tensor) -> dict[str, Any]:
    """Scores of the links, and of the pairs that are none."""
    _require_numbers(y_pred)
    known, other = y_pred[y_true == 1], y_pred[y_true == 0]
    require_labels(y_true == 1)
    if len(other) == 0:  # ogb's evaluator would call it perfect
        raise ValueError("no pairs that are none")
    return {"y_pred_pos": known, "y_pred_neg": other}


def links_and_rivals(y_true: Tensor, y_pred: Tensor) -> dict[str, Any]:
    """The score of each link, and a row of those of its rivals, which follow all links in the links' order."""
    parts = links_and_others(y_true, y_pred)
    return {**parts, "y_pred_neg": parts["y_pred_neg"].view(len(parts["y_pred_pos"]), -1)}


def _require_numbers(y_pred: Tensor) -> None:
    if y_pred.isnan().any():
        raise ValueError("predictions that are NaN")


def require_labels(known: Tensor) -> None:
    """Refuse labels of which none is known.

    Raises:
        ValueError: The evaluator's own way to say so, which the measure tells as a DataError.
    """
    if not known.any():
        raise ValueError("no labels")
