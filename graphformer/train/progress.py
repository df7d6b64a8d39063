"""How progress is shown, and one bar for the whole run."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm


def progress_bar(steps: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A bar that leaves nothing behind; what is done in a moment shows none, and a log file gets few lines.

    Example:
        >>> list(progress_bar([1, 2], desc="Counting"))
        [1, 2]
    """
    often = 0.2 if sys.stderr.isatty() else 30.0
    return tqdm(iterable=steps, leave=False, dynamic_ncols=True, delay=1.0, mininterval=often, **options)


class RunBar(ProgressBar):
    """Counts the steps of all epochs, so that the time left is that of the run; shows the last epoch's measures."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm | None = None
        self._is_shown = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar, at the step where a resumed run goes on."""
        if not self._is_shown:
            return
        steps = trainer.estimated_stepping_batches
        self._bar = progress_bar(total=steps, initial=trainer.global_step, unit="step")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Name the epoch."""
        if self._bar is not None:
            self._bar.set_description(f"Epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", refresh=False)

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Count a step, which several batches may make together."""
        if self._bar is not None:
            self._bar.update(trainer.global_step - self._bar.n)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the measures of the epoch."""
        if self._bar is not None:
            self._bar.set_postfix(pl_module.epoch_metrics, refresh=False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar before an error is told."""
        self._close()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def disable(self) -> None:
        """Show nothing; Lightning asks for it on ranks other than the first."""
        self._is_shown = False

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
