"""Two processes train as one does; started as a user starts them, by a script of its own."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

SCRIPT = """
import sys
from graphformer.data import from_smiles_list, molecule_features
from graphformer.data.task import Task, rmse
from graphformer.models.config import GraphTransformerConfig
from graphformer.train import TrainConfig, run
from graphformer.train.record import Record

smiles = ["CCO", "c1ccccc1", "CC(=O)O", "CCN(C)C", "C1CCCCC1", "CCCl", "OCCO", "CC#N", "c1ccncc1O", "CCCCCCC", "CN"]
labels = [-0.3, 2.1, -0.2, 0.3, 3.4, 1.4, -1.4, -0.3, float("nan"), 4.7, 0.0]
graphs = from_smiles_list(smiles, labels).samples
kind = {"level": "graph", "task_type": "regression", "num_tasks": 1, "num_outputs": 1, "metric": "rmse"}
parts = {"train": graphs, "valid": graphs[:5], "test": graphs[5:], "features": molecule_features()}
parts["smiles"] = {"train": smiles, "valid": smiles[:5], "test": smiles[5:]}.get
run.load = lambda name, root, download: Task(name=name, higher_is_better=False, measure=rmse, **kind, **parts)

Record.on_validation_start = lambda self, *arguments: setattr(self, "_training", 1.0)  # what is counted, a second
# Batch norm would take the mean of each process's part, so that this compares layer norm.
model = GraphTransformerConfig(channels=16, layers=2, heads=2, walk_steps=0, norm="layer", dropout=0.0)
folder, devices = sys.argv[1], int(sys.argv[2])
spread = {"devices": devices, "strategy": "ddp" if devices > 1 else "auto"}
settings = {"epochs": int(sys.argv[3]), "batch_size": 4, "seed": 3, "weight_decay": 0.1, "average": 0.5, **spread}
settings["descriptors"] = ["rdkit"]  # brought to the scale of all graphs, not of one process's
result = run.train(TrainConfig(folder=folder, model=model, **settings))
print("told once:", result.dataset)
"""


def columns(folder: Path) -> dict[str, list[float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0] if "second" not in name}


ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def command(parent: Path, devices: int, epochs: int) -> list[str]:
    script = parent / "script.py"
    script.write_text(SCRIPT)
    return [sys.executable, "-W", "ignore", str(script), str(parent / f"of-{devices}"), str(devices), str(epochs)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    parent = tmp_path_factory.mktemp("ddp")
    for devices in (1, 2):
        words = command(parent, devices, epochs=3)
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=ENVIRONMENT, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("told once") == 1
    return [parent / "of-1", parent / "of-2"]


def test_two_processes_give_the_losses_of_one(runs):
    one, two = (columns(folder) for folder in runs)
    assert one["epoch"] == two["epoch"] == [1.0, 2.0, 3.0]
    for name in one:
        assert two[name] == pytest.approx(one[name], rel=1e-4)


def test_graphs_are_counted_once_though_shares_differ(runs):
    for folder in runs:
        with (folder / "metrics.csv").open(newline="") as file:
            assert [float(row["graphs_per_second"]) for row in csv.DictReader(file)] == [11.0] * 3


def test_two_processes_end_with_one_result(runs):
    one, two = (json.loads((folder / "result.json").read_text()) for folder in runs)
    assert two["test"] == pytest.approx(one["test"], rel=1e-4)
    assert two["best_epoch"] == one["best_epoch"]


def is_gone(group: int, within: float) -> bool:
    """Whether no process of a group is left after so many seconds; one that was killed takes a moment to go."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("devices", [1, 2])
def test_a_run_that_is_told_to_end_ends_with_all_its_processes(devices, tmp_path):
    words = command(tmp_path, devices, epochs=100_000)
    started = {"env": ENVIRONMENT, "start_new_session": True, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **started) as process:
        try:
            deadline = time.monotonic() + 120
            while not (tmp_path / f"of-{devices}" / "metrics.csv").exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)  # to the first process only, as a scheduler may
            _, told = process.communicate(timeout=60)
            assert f"go on with: graphformer train --resume {tmp_path}" in told
            assert is_gone(process.pid, within=30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
