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
    """

    def __init__(self, folder: RunFolder, metric: str, higher_is_better: bool) -> None:
        self.folder, self.metric, self.higher_is_better = folder, metric, higher_is_better
        self.rows: list[dict[str, float]] = []
        self._started = 0.0

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

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the first epoch."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row, then the checkpoints, each whole or not at all."""
        assert isinstance(pl_module, GraphModule)
        now = time.perf_counter()
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1, **pl_module.epoch_metrics}
        row["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        row["seconds"] = round(now - self._started, 3)
        self._started = now
        self.rows.append(row)
        # The last checkpoint closes the epoch: after a crash before it the epoch is repeated, best checkpoint and all.
        if self.best() is row:
            trainer.save_checkpoint(self.folder.best)
        trainer.save_checkpoint(self.folder.last)
        self.write_rows()

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
