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
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot(xlabel="epoch", ylabel="training loss", yscale="log")
    right = left.twinx()
    right.set_ylabel(metric.replace("_", " "))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    marker = "o" if len(rows) == 1 else None  # a line through one point is no line
    loss_values, values = ([row[name] for row in rows] for name in ("train_loss", metric))
    (loss,) = left.plot(epochs, loss_values, color="tab:gray", marker=marker, label="training loss")
    (valid,) = right.plot(epochs, values, color="tab:blue", marker=marker, label=metric.replace("_", " "))
    mark = right.axvline(best_epoch, color="tab:orange", linestyle="--", label=f"best epoch: {best_epoch}")
    figure.legend(handles=[loss, valid, mark], loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)
