"""The Lightning module: a graph transformer with a loss, a schedule and the data set's own measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from torch_geometric.data import Data

from graphformer._checks import require
from graphformer._errors import RunError
from graphformer.data.task import GraphTask, TaskType
from graphformer.models.graph_transformer import GraphTransformer
from graphformer.train.config import TrainConfig


@dataclass(frozen=True)
class TaskFacts:
    """What a model must know of its data set; kept in every checkpoint, so that predicting needs no data."""

    name: str
    num_tasks: int
    task_type: TaskType
    metric: str
    higher_is_better: bool
    node_categories: tuple[int, ...]
    edge_categories: tuple[int, ...]

    @classmethod
    def of(cls, task: GraphTask) -> TaskFacts:
        """The facts of a task."""
        return cls(**{name: getattr(task, name) for name in cls.__dataclass_fields__})


class GraphModule(LightningModule):
    """Trains a :class:`graphformer.models.GraphTransformer` on a graph-property task.

    Regression minimises the mean squared error of standardised labels, classification the binary cross entropy of each
    label; missing labels (NaN) do not count. Predictions are made with a running mean of the weights.

    Args:
        config: The run.
        facts: The task.
        steps: Steps of the whole run, which the schedule of the learning rate spans. 0 where nothing is trained.
        measure: Of labels and predictions of a whole split; None where nothing is validated.
    """

    label_mean: Tensor
    label_scale: Tensor

    def __init__(
        self,
        config: TrainConfig,
        facts: TaskFacts,
        steps: int = 0,
        measure: Callable[[Tensor, Tensor], float] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.facts, self.steps, self.measure = config, facts, steps, measure
        self.model = GraphTransformer(config.model, facts.node_categories, facts.edge_categories, facts.num_tasks)
        self.averaged = AveragedModel(self.model, multi_avg_fn=self._average, use_buffers=True)
        self.register_buffer("label_mean", torch.zeros(facts.num_tasks))
        self.register_buffer("label_scale", torch.ones(facts.num_tasks))
        self.epoch_metrics: dict[str, float] = {}
        self._losses: list[Tensor] = []
        self._validated: list[tuple[Tensor, Tensor]] = []

    def standardise(self, graphs: Sequence[Data]) -> None:
        """Take the labels' mean and deviation from the training graphs (regression only)."""
        if self.facts.task_type == "regression":
            mean, scale = label_statistics(torch.cat([graph.y for graph in graphs]))
            self.label_mean.copy_(mean)
            self.label_scale.copy_(scale)

    def predict_batch(self, batch: Any) -> Tensor:
        """Values in the labels' units, or probabilities. Shape `[graphs, num_tasks]`, float32."""
        output = self.averaged(batch).float()
        return output * self.label_scale + self.label_mean if self.facts.task_type == "regression" else output.sigmoid()

    def _average(self, mean: Any, current: Any, count: Tensor | int) -> None:
        """Move the mean towards the current weights; the first steps count more, so that no start-up is dragged on."""
        weight = 1 - min(self.config.average, (1 + int(count)) / (10 + int(count)))
        for old, new in zip(mean, current, strict=True):
            old.lerp_(new, weight) if old.is_floating_point() else old.copy_(new)

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """The loss of a batch."""
        if batch_index == 0:
            # Dropout of an epoch follows from the seed and the epoch alone, so that a resumed run repeats it.
            torch.manual_seed(_epoch_seed(self.config.seed, self.current_epoch))
        loss = self._loss(self.model(batch).float(), batch.y)
        self._losses.append(loss.detach())
        return loss

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Take the step into the running mean."""
        self.averaged.update_parameters(self.model)

    def _loss(self, output: Tensor, y: Tensor) -> Tensor:
        known = ~y.isnan()
        target = y.where(known, self.label_mean)  # a NaN would stay in the gradient, even times 0
        if self.facts.task_type == "regression":
            each = (output - (target - self.label_mean) / self.label_scale).square()
        else:
            each = functional.binary_cross_entropy_with_logits(output, target, reduction="none")
        return each.where(known, 0.0).sum() / known.sum().clamp(min=1)

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Keep the predictions: the measure needs the whole split."""
        self._validated.append((batch.y.cpu(), self.predict_batch(batch).cpu()))

    def on_validation_epoch_end(self) -> None:
        """Measure the whole validation split, and close the epoch's account."""
        assert self.measure is not None
        y_true, y_pred = (torch.cat(part) for part in zip(*self._validated, strict=True))
        epoch = self.current_epoch + 1
        finite, remedy = bool(y_pred.isfinite().all()), "Lower --learning_rate or set --gradient_clip."
        require(finite, "train", "predictions", "be finite", f"NaN or infinity in epoch {epoch}", remedy, RunError)
        train_loss = float(torch.stack(self._losses).mean())
        self.epoch_metrics = {"train_loss": train_loss, f"valid_{self.facts.metric}": self.measure(y_true, y_pred)}
        self.log_dict(self.epoch_metrics, prog_bar=True, batch_size=len(y_true))
        self._losses, self._validated = [], []

    def configure_optimizers(self) -> Any:
        """AdamW, with a linear rise and half a cosine, step by step."""
        config = self.config
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        rise = int(config.warmup * self.steps)

        def factor(step: int) -> float:
            if step < rise:
                return (step + 1) / rise
            return 0.5 + 0.5 * math.cos(math.pi * (step - rise) / max(self.steps - rise, 1))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the task's facts beside the weights."""
        checkpoint["task"] = asdict(self.facts)


def label_statistics(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each label over the graphs that have it; a deviation of 0 counts as 1.

    Example:
        >>> label_statistics(torch.tensor([[1.0, 5.0], [3.0, float("nan")]]))
        (tensor([2., 5.]), tensor([1., 1.]))
    """
    mean = y.nanmean(0)
    scale = (y - mean).square().nanmean(0).sqrt()
    return mean, scale.where(scale > 0, 1.0)


def _epoch_seed(seed: int, epoch: int) -> int:
    # Seeds of neighbouring runs must not meet in neighbouring epochs: 0 + 1 and 1 + 0 would.
    return (seed * 1_000_003 + epoch) % 2**63
