"""What a run shows while it goes on, and the picture that it leaves."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from tqdm import tqdm

from graphformer.train import train
from graphformer.train.progress import progress_bar


def test_training_is_quiet_but_for_its_bars(loaded, small, capfd):
    train(replace(small, epochs=1))
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.replace("\r", "\n").splitlines() if line.strip()]
    assert all(line.startswith(("Preparing ", "Epoch ", "\x1b[A")) or "step" in line for line in lines), lines


def test_the_bar_counts_steps_whatever_makes_one(loaded, small, monkeypatch):
    bars = []
    monkeypatch.setattr("graphformer.train.progress.tqdm", lambda **how: bars.append(tqdm(**how)) or bars[-1])
    train(replace(small, epochs=2, batch_size=2, accumulate=2))
    assert (bars[-1].n, bars[-1].total) == (6, 6)  # five batches an epoch


def test_what_is_done_in_a_moment_shows_no_bar(capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for pause in (0.0, 1.2):
        for _ in progress_bar(range(2), desc="Counting"):
            time.sleep(pause)
        assert ("Counting" in capfd.readouterr().err) == (pause > 0)


def test_the_curve_of_one_epoch_shows_its_point(loaded, small, monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "plot", lambda axes, *what, **how: drawn.append(how["marker"]) or [Line2D([], [])])
    train(replace(small, epochs=1))
    assert drawn == ["o", "o"]
