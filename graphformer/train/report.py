"""The learning curve of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def draw_curve(rows: Sequence[dict[str, float]], metric: str, best_epoch: int, path: str | Path) -> None:
    """Write a PNG of the training loss and the validation measure by epoch.

    Args:
        rows: One mapping an epoch with `epoch`, `train_loss` and `metric`.
        metric: Column of the validation measure, for instance "valid_rmse".
        best_epoch: Epoch that is marked.
        path: File to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot(xlabel="epoch", ylabel="training loss", yscale="log")
    right = left.twinx()
    right.set_ylabel(metric.replace("_", " "))
    (loss,) = left.plot(epochs, [row["train_loss"] for row in rows], color="tab:gray", label="training loss")
    (valid,) = right.plot(epochs, [row[metric] for row in rows], color="tab:blue", label=metric.replace("_", " "))
    mark = right.axvline(best_epoch, color="tab:orange", linestyle="--", label=f"best epoch: {best_epoch}")
    figure.legend(handles=[loss, valid, mark], loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)
