"""The Lightning module: a model with an objective, a schedule and the data set's own measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch_geometric.data import Data

from graphformer._checks import require
from graphformer._errors import RunError
from graphformer.data.task import Level, Task, TaskType
from graphformer.graphs import Features
from graphformer.models import build
from graphformer.train.config import TrainConfig
from graphformer.train.loaders import epoch_seed
from graphformer.train.objectives import objective


@dataclass(frozen=True)
class TaskFacts:
    """What a model must know of its data set; kept in every checkpoint, so that predicting needs no data."""

    name: str
    level: Level
    task_type: TaskType
    num_tasks: int
    num_outputs: int
    metric: str
    higher_is_better: bool
    features: Features
    length: int = 1
    task_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, task: Task) -> TaskFacts:
        """The facts of a task."""
        return cls(**{name: getattr(task, name) for name in cls.__dataclass_fields__})

    @classmethod
    def read(cls, mapping: Mapping[str, Any]) -> TaskFacts:
        """The facts that a checkpoint holds; the inverse of `dataclasses.asdict`, also where JSON lay between."""
        names = tuple(mapping.get("task_names", ()))  # older files have none
        return cls(**{**mapping, "features": Features(**mapping["features"]), "task_names": names})


class GraphModule(LightningModule):
    """Trains a model on a task, with the objective of the task's type; missing labels do not count.

    Predictions are made with a running mean of the weights.

    Args:
        config: The run.
        facts: The task.
        steps: Steps of the whole run, which the schedule of the learning rate spans. 0 where nothing is trained.
        measure: Of labels and predictions of a whole split; None where nothing is validated.
    """

    def __init__(
        self,
        config: TrainConfig,
        facts: TaskFacts,
        steps: int = 0,
        measure: Callable[[Tensor, Tensor], float] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.facts, self.steps, self.measure = config, facts, steps, measure
        self.objective = objective(
            facts.task_type,
            facts.num_tasks,
            facts.num_outputs,
            facts.length,
            metric=facts.metric,
            balanced=config.class_weight == "balanced",
            smoothing=config.label_smoothing,
        )
        self.model = build(config.model, facts.features, self.objective.width, facts.level)
        self.averaged = AveragedModel(self.model, multi_avg_fn=self._average, use_buffers=True).requires_grad_(False)
        self.epoch_metrics: dict[str, float] = {}
        self.rows_seen = 0
        self._losses: list[Tensor] = []
        self._validated: list[tuple[Tensor, Tensor]] = []

    def look_at(self, graphs: Sequence[Data]) -> None:
        """Let the objective take what it needs from the training labels."""
        if self.facts.level != "link":  # there the labels are made in training
            self.objective.prepare(torch.cat([graph.y for graph in graphs]))

    def predict_batch(self, batch: Any) -> Tensor:
        """What the task's measure takes, such as values in the labels' units or probabilities; float32 or int64.

        Computed in float32, in whatever precision the model is trained, so that validation is comparable with what is
        measured and predicted later.
        """
        with torch.autocast(self.device.type, enabled=False):
            return self.objective.predict(self.averaged(batch).float())

    def _average(self, mean: Any, current: Any, count: Tensor | int) -> None:
        """Move the mean towards the current weights; the first steps count more, so that no start-up is dragged on."""
        weight = 1 - min(self.config.average, (1 + int(count)) / (10 + int(count)))
        for old, new in zip(mean, current, strict=True):
            old.lerp_(new, weight) if old.is_floating_point() else old.copy_(new)

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """The loss of a batch."""
        if batch_index == 0:
            # Dropout of an epoch follows from the seed and the epoch alone, so that a resumed run repeats it.
            torch.manual_seed(epoch_seed(self.config.seed, self.current_epoch) + self.global_rank)
        loss = self._shared_mean(self.model(batch).float(), batch.y)
        self._losses.append(loss.detach())
        self.rows_seen += len(batch.y) // (2 if self.facts.level == "link" else 1)  # a random pair for each link
        return loss

    def _shared_mean(self, output: Tensor, y: Tensor) -> Tensor:
        """The mean loss over the labels of all devices, times their number, which averaging gradients divides by."""
        count, devices = self.objective.count(y), self.trainer.world_size
        if devices == 1:
            return self.objective(output, y)
        torch.distributed.all_reduce(count)
        return self.objective.total(output, y) * devices / count.clamp(min=1)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Take a step, and take it into the running mean."""
        super().optimizer_step(*arguments, **options)
        self.follow()

    def follow(self) -> None:
        """Let the running mean follow the weights."""
        self.averaged.update_parameters(self.model)

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Keep the predictions: the measure needs the whole split."""
        self._validated.append((batch.y.cpu(), self.predict_batch(batch).cpu()))

    def on_validation_epoch_end(self) -> None:
        """Measure the whole validation split, and close the epoch's account."""
        assert self.measure is not None
        y_true, y_pred = gather_rows(self._validated, self.trainer.world_size)
        epoch = self.current_epoch + 1
        finite, remedy = bool(y_pred.isfinite().all()), "Lower --learning_rate or set --gradient_clip."
        require(finite, "train", "predictions", "be finite", f"NaN or infinity in epoch {epoch}", remedy, RunError)
        train_loss = float(self._over_devices(torch.stack(self._losses).mean())) / self.trainer.world_size
        self.rows_seen = int(self._over_devices(torch.tensor(self.rows_seen, device=self.device)))
        self.epoch_metrics = {"train_loss": train_loss, f"valid_{self.facts.metric}": self.measure(y_true, y_pred)}
        self.log_dict(self.epoch_metrics, prog_bar=True, batch_size=len(y_true))
        self._losses, self._validated = [], []

    def _over_devices(self, value: Tensor) -> Tensor:
        """The sum over all devices."""
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(value)
        return value

    def configure_optimizers(self) -> Any:
        """Adam or AdamW, with a linear rise and, where the settings say so, half a cosine, step by step."""
        config = self.config
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        optimizer = kind(self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        rise = int(config.warmup * self.steps)

        def factor(step: int) -> float:
            if step < rise:
                return (step + 1) / rise
            if config.schedule == "constant":
                return 1.0
            return 0.5 + 0.5 * math.cos(math.pi * (step - rise) / max(self.steps - rise, 1))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the task's facts beside the weights."""
        checkpoint["task"] = asdict(self.facts)


def gather_rows(parts: Sequence[tuple[Tensor, Tensor]], world_size: int) -> tuple[Tensor, Tensor]:
    """Labels and predictions of all processes, one under the other."""
    everyone: list[Any] = [list(parts)]
    if world_size > 1:
        everyone = [None] * world_size
        torch.distributed.all_gather_object(everyone, list(parts))
    labels, predictions = zip(*(pair for process in everyone for pair in process), strict=True)
    return torch.cat(labels), torch.cat(predictions)
