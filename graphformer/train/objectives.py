"""What is minimised and what is predicted, for each type of task."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from graphformer._checks import require_choice


class Objective(torch.nn.Module):
    """A loss over a model's outputs, and the predictions that are read off them.

    Args:
        num_tasks: Columns of the labels.
        num_outputs: Outputs for a row of labels, as :class:`graphformer.data.Task` says.
        length: Words for a row of labels (subtokens only).
    """

    def __init__(self, num_tasks: int, num_outputs: int, length: int = 1) -> None:
        super().__init__()
        self.num_tasks, self.num_outputs, self.length = num_tasks, num_outputs, length

    @property
    def width(self) -> int:
        """Numbers that the model gives for a row of labels."""
        return self.num_outputs * self.length

    def prepare(self, y: Tensor) -> None:
        """Take what the loss needs to know from the training labels."""

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        """The mean loss over the labels that are there; 0 where there are none."""
        raise NotImplementedError

    def predict(self, output: Tensor) -> Tensor:
        """What :meth:`graphformer.data.Task.evaluate` takes."""
        raise NotImplementedError


class Regression(Objective):
    """The mean squared error of standardised labels, or their mean absolute error; predictions in the labels' units.

    Args:
        absolute: Minimise the absolute error, for the sets that are measured by it.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_tasks: int, num_outputs: int, length: int = 1, absolute: bool = False) -> None:
        super().__init__(num_tasks, num_outputs, length)
        self.absolute = absolute
        self.register_buffer("mean", torch.zeros(num_tasks))
        self.register_buffer("scale", torch.ones(num_tasks))

    def prepare(self, y: Tensor) -> None:
        """Take the labels' mean and deviation."""
        mean, scale = label_statistics(y)
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        """The mean error of the labels that are there."""
        target, known = _known(y)
        error = output - (target - self.mean) / self.scale
        return _mean(error.abs() if self.absolute else error.square(), known)

    def predict(self, output: Tensor) -> Tensor:
        """Values in the labels' units."""
        return output * self.scale + self.mean


class BinaryClassification(Objective):
    """The binary cross entropy of each label by itself; predictions are probabilities."""

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        """The mean cross entropy of the labels that are there."""
        target, known = _known(y)
        return _mean(functional.binary_cross_entropy_with_logits(output, target, reduction="none"), known)

    def predict(self, output: Tensor) -> Tensor:
        """Probabilities."""
        return output.sigmoid()


class MulticlassClassification(Objective):
    """The cross entropy over the classes; predictions are their probabilities."""

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        """The mean cross entropy of the labels that are there (-1: missing)."""
        total = functional.cross_entropy(output, y.squeeze(1), ignore_index=-1, reduction="sum")
        return total / (y >= 0).sum().clamp(min=1)

    def predict(self, output: Tensor) -> Tensor:
        """Probabilities of the classes."""
        return output.softmax(1)


class SubtokenPrediction(Objective):
    """A word for each place of a name: the cross entropy of each place; two words more mean "unknown" and "end"."""

    @property
    def width(self) -> int:
        """Words, unknown and end, at each place."""
        return (self.num_outputs + 2) * self.length

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        """The mean cross entropy over all places; behind the last word stands "end"."""
        words = functional.pad(y, (0, self.length), value=-1)[:, : self.length]
        unknown, end = self.num_outputs, self.num_outputs + 1
        target = words.where(words < self.num_outputs, unknown).where(words >= 0, end)
        return functional.cross_entropy(self._by_place(output).flatten(0, 1), target.flatten())

    def predict(self, output: Tensor) -> Tensor:
        """The likeliest words `[*, length]` int64; -1 for an unknown word and from the end on."""
        words = self._by_place(output).argmax(2)
        ended = (words == self.num_outputs + 1).cummax(1).values
        return words.where((words < self.num_outputs) & ~ended, -1)

    def _by_place(self, output: Tensor) -> Tensor:
        return output.view(output.shape[0], self.length, -1)


_OBJECTIVES: dict[str, type[Objective]] = {
    "regression": Regression,
    "binary classification": BinaryClassification,
    "multiclass classification": MulticlassClassification,
    "subtoken prediction": SubtokenPrediction,
    "link prediction": BinaryClassification,
}


def objective(task_type: str, num_tasks: int, num_outputs: int, length: int = 1, metric: str = "") -> Objective:
    """The objective of a type of task.

    Args:
        task_type: As :class:`graphformer.data.Task` names it.
        num_tasks: Columns of the labels.
        num_outputs: Outputs for a row of labels.
        length: Words for a row of labels (subtokens only).
        metric: Name of the measure: "mae" makes regression minimise the absolute error.

    Raises:
        InputError: An unknown type.

    Example:
        >>> loss = objective("multiclass classification", num_tasks=1, num_outputs=3)
        >>> loss(torch.zeros(2, 3), torch.tensor([[2], [-1]])).item()
        1.0986...
    """
    require_choice(task_type, list(_OBJECTIVES), "objective", "task_type")
    options: dict[str, Any] = {"absolute": metric == "mae"} if task_type == "regression" else {}
    return _OBJECTIVES[task_type](num_tasks, num_outputs, length, **options)


def label_statistics(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each label over the rows that have it; a deviation of 0 counts as 1, no label as mean 0.

    Example:
        >>> label_statistics(torch.tensor([[1.0, 5.0], [3.0, float("nan")]]))
        (tensor([2., 5.]), tensor([1., 1.]))
    """
    mean = y.nanmean(0).nan_to_num(0.0)
    scale = (y - mean).square().nanmean(0).sqrt()
    return mean, scale.where(scale > 0, 1.0)


def _known(y: Tensor) -> tuple[Tensor, Tensor]:
    """The labels with zeros where they are missing: a NaN would stay in the gradient, even times 0."""
    known = ~y.isnan()
    return y.where(known, 0.0), known


def _mean(each: Tensor, known: Tensor) -> Tensor:
    return each.where(known, 0.0).sum() / known.sum().clamp(min=1)
