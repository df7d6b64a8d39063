"""What a run writes while it trains: a row an epoch, the last and the best checkpoint."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from graphformer.train.folder import RunFolder, read_checkpoint, write_checkpoint
from graphformer.train.module import GraphModule


class Record(Callback):
    """Writes metrics.csv and the checkpoints at the end of each epoch.

    Its rows travel in the checkpoint: a resumed run goes on from the rows of the epochs that its weights have seen.

    Args:
        folder: The run's folder.
        metric: Column that chooses the best epoch.
        higher_is_better: Its direction.
        level: What is counted a second: "graph", "node" or "link".
        patience: Epochs without a better one after which training stops; 0: never.
    """

    def __init__(
        self, folder: RunFolder, metric: str, higher_is_better: bool, level: str = "graph", patience: int = 0
    ) -> None:
        self.folder, self.metric, self.higher_is_better = folder, metric, higher_is_better
        self.level, self.patience = level, patience
        self.rows: list[dict[str, float]] = []
        self._started, self._training = 0.0, 1.0

    def state_dict(self) -> dict[str, Any]:
        """The rows, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The rows of the run that goes on."""
        self.rows = list(state_dict["rows"])

    def best(self) -> dict[str, float]:
        """The row of the best validation epoch, the earliest of equals."""
        choose = max if self.higher_is_better else min
        return choose(self.rows, key=lambda row: row[self.metric])

    def is_over(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.patience <= len(self.rows) - (self.best()["epoch"] if self.rows else 0)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the first epoch."""
        self._started = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a resumed run at once that had come to its end."""
        trainer.should_stop = self.is_over()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the time of the epoch's steps."""
        self._training = max(time.perf_counter() - self._started, 1e-9)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row, then the checkpoints, each whole or not at all."""
        assert isinstance(pl_module, GraphModule)
        now = time.perf_counter()
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1, **pl_module.epoch_metrics}
        row["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        seconds, self._started = now - self._started, now
        row["seconds"] = round(seconds, 3)
        row[f"{self.level}s_per_second"] = round(pl_module.rows_seen / self._training, 1)
        pl_module.rows_seen = 0
        self.rows.append(row)
        # The last checkpoint closes the epoch: after a crash before it the epoch is repeated, best checkpoint and all.
        if self.best() is row:
            trainer.save_checkpoint(self.folder.best)
        trainer.save_checkpoint(self.folder.last)
        if trainer.is_global_zero:
            self.write_rows()
        trainer.should_stop = self.is_over()

    def write_rows(self) -> None:
        """Write metrics.csv anew."""
        with self.folder.metrics.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)


class SafeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are written whole and read without executing anything in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read the checkpoint at `path`."""
        return read_checkpoint(Path(path))
