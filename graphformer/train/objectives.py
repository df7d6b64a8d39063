"""What is minimised and what is predicted, for each type of task."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from graphformer._checks import require_choice


class Objective(torch.nn.Module):
    """A loss over a model's outputs, and the predictions that are read off them.

    The loss is the mean over the labels that are there: :meth:`total` over :meth:`count`, apart so that several devices
    can share a mean.

    Args:
        num_tasks: Columns of the labels.
        num_outputs: Outputs for a row of labels, as :class:`graphformer.data.Task` says.
        length: Words for a row of labels (subtokens only).
        balanced: Weigh each class by the inverse of its share of the training labels (classification only).
        smoothing: Share of a label that is spread evenly over the classes (classification only).
    """

    def __init__(
        self, num_tasks: int, num_outputs: int, length: int = 1, *, balanced: bool = False, smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.num_tasks, self.num_outputs, self.length = num_tasks, num_outputs, length
        self.balanced, self.smoothing = balanced, smoothing

    @property
    def width(self) -> int:
        """Numbers that the model gives for a row of labels."""
        return self.num_outputs * self.length

    def prepare(self, y: Tensor) -> None:
        """Take what the loss needs to know from the training labels."""

    def total(self, output: Tensor, y: Tensor) -> Tensor:
        """The loss summed over the labels that are there."""
        raise NotImplementedError

    def count(self, y: Tensor) -> Tensor:
        """How many labels are there."""
        return (~y.isnan()).sum()

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        """The mean loss over the labels that are there; 0 where there are none."""
        return self.total(output, y) / self.count(y).clamp(min=1)

    def predict(self, output: Tensor) -> Tensor:
        """What :meth:`graphformer.data.Task.evaluate` takes."""
        raise NotImplementedError


class Regression(Objective):
    """The mean squared error of standardised labels; predictions are in the labels' units."""

    mean: Tensor
    scale: Tensor

    def __init__(self, num_tasks: int, num_outputs: int, length: int = 1, **options: object) -> None:
        super().__init__(num_tasks, num_outputs, length)
        self.register_buffer("mean", torch.zeros(num_tasks))
        self.register_buffer("scale", torch.ones(num_tasks))

    def prepare(self, y: Tensor) -> None:
        """Take the labels' mean and deviation."""
        mean, scale = label_statistics(y)
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def total(self, output: Tensor, y: Tensor) -> Tensor:
        """The summed errors."""
        target, known = _known(y)
        return self._error(output - (target - self.mean) / self.scale).where(known, 0.0).sum()

    def predict(self, output: Tensor) -> Tensor:
        """Values in the labels' units."""
        return output * self.scale + self.mean

    def _error(self, difference: Tensor) -> Tensor:
        return difference.square()


class AbsoluteRegression(Regression):
    """The mean absolute error of standardised labels, for the sets that are measured by it."""

    def _error(self, difference: Tensor) -> Tensor:
        return difference.abs()


class BinaryClassification(Objective):
    """The binary cross entropy of each label by itself; predictions are probabilities."""

    weight: Tensor

    def __init__(
        self, num_tasks: int, num_outputs: int, length: int = 1, *, balanced: bool = False, smoothing: float = 0.0
    ) -> None:
        super().__init__(num_tasks, num_outputs, length, balanced=balanced, smoothing=smoothing)
        self.register_buffer("weight", torch.ones(2, num_tasks))  # of the labels 0 and 1

    def prepare(self, y: Tensor) -> None:
        """Count the classes, where they are balanced."""
        if self.balanced:
            counts = torch.stack([(y == label).sum(0) for label in (0, 1)]).float()
            self.weight.copy_(_balance(counts))

    def total(self, output: Tensor, y: Tensor) -> Tensor:
        """The summed cross entropies."""
        label, known = _known(y)
        target = label * (1 - self.smoothing) + self.smoothing / 2
        each = functional.binary_cross_entropy_with_logits(output, target, reduction="none")
        if self.balanced:
            each = each * torch.where(label > 0.5, self.weight[1], self.weight[0])
        return each.where(known, 0.0).sum()

    def predict(self, output: Tensor) -> Tensor:
        """Probabilities."""
        return output.sigmoid()


class MulticlassClassification(Objective):
    """The cross entropy over the classes; predictions are their probabilities."""

    weight: Tensor

    def __init__(
        self, num_tasks: int, num_outputs: int, length: int = 1, *, balanced: bool = False, smoothing: float = 0.0
    ) -> None:
        super().__init__(num_tasks, num_outputs, length, balanced=balanced, smoothing=smoothing)
        self.register_buffer("weight", torch.ones(num_outputs))

    def prepare(self, y: Tensor) -> None:
        """Count the classes, where they are balanced."""
        if self.balanced:
            counts = torch.bincount(y[y >= 0], minlength=self.num_outputs).float()
            self.weight.copy_(_balance(counts.unsqueeze(1)).squeeze(1))

    def total(self, output: Tensor, y: Tensor) -> Tensor:
        """The summed cross entropies."""
        label = y.squeeze(1)
        weight = self.weight if self.balanced else None
        options = {"ignore_index": -1, "reduction": "sum", "label_smoothing": self.smoothing}
        return functional.cross_entropy(output, label, weight, **options)  # type: ignore[arg-type]

    def count(self, y: Tensor) -> Tensor:
        """How many labels are there: -1 is none."""
        return (y >= 0).sum()

    def predict(self, output: Tensor) -> Tensor:
        """Probabilities of the classes."""
        return output.softmax(1)


class SubtokenPrediction(Objective):
    """A word for each place of a name: the cross entropy of each place; two words more mean "unknown" and "end"."""

    @property
    def width(self) -> int:
        """Words, unknown and end, at each place."""
        return (self.num_outputs + 2) * self.length

    def total(self, output: Tensor, y: Tensor) -> Tensor:
        """The cross entropies summed over all places; behind the last word stands "end"."""
        words = functional.pad(y, (0, self.length), value=-1)[:, : self.length]
        unknown, end = self.num_outputs, self.num_outputs + 1
        target = words.where(words < self.num_outputs, unknown).where(words >= 0, end).flatten()
        by_place = self._by_place(output).flatten(0, 1)
        return functional.cross_entropy(by_place, target, reduction="sum", label_smoothing=self.smoothing)

    def count(self, y: Tensor) -> Tensor:
        """The places of all names."""
        return y.new_tensor(len(y) * self.length)

    def predict(self, output: Tensor) -> Tensor:
        """The likeliest words `[*, length]` int64; `num_outputs` for an unknown word, -1 from the end on."""
        words = self._by_place(output).argmax(2)
        ended = (words == self.num_outputs + 1).cummax(1).values
        return words.where(~ended, -1)

    def _by_place(self, output: Tensor) -> Tensor:
        return output.view(output.shape[0], self.length, -1)


_OBJECTIVES: dict[str, type[Objective]] = {
    "regression": Regression,
    "binary classification": BinaryClassification,
    "multiclass classification": MulticlassClassification,
    "subtoken prediction": SubtokenPrediction,
    "link prediction": BinaryClassification,
}


def objective(
    task_type: str,
    num_tasks: int,
    num_outputs: int,
    length: int = 1,
    *,
    metric: str = "",
    balanced: bool = False,
    smoothing: float = 0.0,
) -> Objective:
    """The objective of a type of task.

    Args:
        task_type: As :class:`graphformer.data.Task` names it.
        num_tasks: Columns of the labels.
        num_outputs: Outputs for a row of labels.
        length: Words for a row of labels (subtokens only).
        metric: Name of the measure: "mae" makes regression minimise the absolute error.
        balanced: Weigh each class by the inverse of its share of the training labels (classification).
        smoothing: Share of a label that is spread evenly over the classes (classification).

    Raises:
        InputError: An unknown type.

    Example:
        >>> loss = objective("multiclass classification", num_tasks=1, num_outputs=3)
        >>> loss(torch.zeros(2, 3), torch.tensor([[2], [-1]])).item()
        1.0986...
    """
    require_choice(task_type, list(_OBJECTIVES), "objective", "task_type")
    kind = AbsoluteRegression if task_type == "regression" and metric == "mae" else _OBJECTIVES[task_type]
    return kind(num_tasks, num_outputs, length, balanced=balanced, smoothing=smoothing)


def label_statistics(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each label over the rows that have it; a deviation of 0 counts as 1, no label as mean 0.

    Example:
        >>> label_statistics(torch.tensor([[1.0, 5.0], [3.0, float("nan")]]))
        (tensor([2., 5.]), tensor([1., 1.]))
    """
    mean = y.nanmean(0).nan_to_num(0.0)
    scale = (y - mean).square().nanmean(0).sqrt()
    return mean, scale.where(scale > 0, 1.0)


def _balance(counts: Tensor) -> Tensor:
    """Weights [classes, tasks] of mean 1 over the labels; a class that never occurs has none."""
    present = (counts > 0).sum(0).clamp(min=1)
    return (counts.sum(0) / (present * counts)).where(counts > 0, 0.0)


def _known(y: Tensor) -> tuple[Tensor, Tensor]:
    """The labels with zeros where they are missing: a NaN would stay in the gradient, even times 0."""
    known = ~y.isnan()
    return y.where(known, 0.0), known
