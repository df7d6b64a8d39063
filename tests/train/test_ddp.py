"""Two processes train as one does; started as a user starts them, by a script of its own."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
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
run.load = lambda name, root, download: Task(name=name, higher_is_better=False, measure=rmse, **kind, **parts)

Record.on_validation_start = lambda self, *arguments: setattr(self, "_training", 1.0)  # what is counted, a second
# Batch norm would take the mean of each process's part, so that this compares layer norm.
model = GraphTransformerConfig(channels=16, layers=2, heads=2, walk_steps=0, norm="layer", dropout=0.0)
folder, devices = sys.argv[1], int(sys.argv[2])
spread = {"devices": devices, "strategy": "ddp" if devices > 1 else "auto"}
settings = {"epochs": 3, "batch_size": 4, "seed": 3, "weight_decay": 0.1, "average": 0.5, **spread}
result = run.train(TrainConfig(folder=folder, model=model, **settings))
print("told once:", result.dataset)
"""


def columns(folder: Path) -> dict[str, list[float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0] if "second" not in name}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    parent = tmp_path_factory.mktemp("ddp")
    script = parent / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    for devices in (1, 2):
        command = [sys.executable, "-W", "ignore", str(script), str(parent / f"of-{devices}"), str(devices)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
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
