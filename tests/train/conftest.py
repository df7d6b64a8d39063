from __future__ import annotations

from dataclasses import replace

import pytest
from ten_molecules import LABELS, SMILES

from graphformer.data import from_smiles_list, molecule_features
from graphformer.data.task import Task, rmse
from graphformer.models.config import GraphTransformerConfig
from graphformer.train import TrainConfig


@pytest.fixture(scope="session")
def task() -> Task:
    graphs = from_smiles_list(SMILES, LABELS).samples
    return Task(
        name="ten",
        level="graph",
        train=graphs,
        valid=graphs[:6],
        test=graphs[3:],
        num_tasks=1,
        num_outputs=1,
        task_type="regression",
        metric="rmse",
        higher_is_better=False,
        features=molecule_features(),
        measure=rmse,
    )


@pytest.fixture
def loaded(task, monkeypatch) -> list[tuple]:
    """`load` gives the ten molecules; the list tells what was asked of it."""
    asked: list[tuple] = []

    def load(*arguments):
        asked.append(arguments)
        return replace(task, name=arguments[0])

    monkeypatch.setattr("graphformer.train.run.load", load)
    return asked


@pytest.fixture
def small(tmp_path) -> TrainConfig:
    model = GraphTransformerConfig(channels=16, layers=2, heads=2, walk_steps=4)
    return TrainConfig(epochs=4, batch_size=4, seed=3, folder=str(tmp_path / "run"), model=model)
