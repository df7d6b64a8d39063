"""Settings that a run would not hear of are refused before anything is written, and where it can be before loading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data

from graphformer._errors import DataError, InputError
from graphformer.cli.main import main
from graphformer.cli.train import _over
from graphformer.data.task import Task, rmse
from graphformer.graphs import Features
from graphformer.models.config import (
    ExphormerConfig,
    GatedTransformerConfig,
    GPSConfig,
    GraphTransformerConfig,
    GTConfig,
)
from graphformer.models.config.forest import ForestConfig
from graphformer.train import TrainConfig, train
from graphformer.train.folder import RunFolder
from graphformer.train.settle import settle

RING = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])


def one_graph(level: str, task_type: str) -> Task:
    data = Data(x=torch.ones(4, 2), edge_index=RING, y=torch.tensor([[0], [1], [0], [1]]), pair_index=RING)
    kinds = {"level": level, "task_type": task_type, "num_tasks": 1, "num_outputs": 2, "features": Features((), 2)}
    how = {"metric": "acc", "higher_is_better": True, "measure": rmse}
    return Task("ring", train=[data], valid=[data], test=[data], **kinds, **how)


NODES = one_graph("node", "multiclass classification")
LINKS = one_graph("link", "link prediction")
GRAPHS = replace(NODES, level="graph", train=NODES.train * 2, valid=NODES.train * 2)
NUMBERS = replace(GRAPHS, task_type="regression")
WORDS = replace(GRAPHS, task_type="subtoken prediction")
POOLING = GraphTransformerConfig(pooling="mean")


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (NUMBERS, {"class_weight": "balanced"}, "class_weight must be left out where no classes are learnt; got bal"),
        (WORDS, {"class_weight": "balanced"}, "class_weight must be left out where no classes are learnt; got bal"),
        (LINKS, {"class_weight": "balanced"}, "class_weight must be left out where no classes are learnt; got bal"),
        (NUMBERS, {"label_smoothing": 0.1}, "label_smoothing must be left out where no classes are learnt; got 0.1"),
        (NODES, {"negatives": "targets"}, "negatives must be left out but for links; got targets"),
        (NODES, {"batch_size": 8}, "batch_size must be left out where one graph is trained on as a whole; got 8"),
        (NODES, {"accumulate": 2}, "accumulate must be left out where one graph is trained on as a whole; got 2"),
        (NODES, {"num_workers": 1}, "num_workers must be left out where one graph is trained on as a whole; got 1"),
        (
            LINKS,
            {"num_workers": 1, "prepare_in_workers": True},
            "prepare_in_workers must be left out where one graph holds all parts; got True",
        ),
        (NODES, {"model": POOLING}, "model.pooling must be left out but for whole graphs; got mean"),
        (
            GRAPHS,
            {"model": GTConfig(update_last_edges=True)},
            "model.update_last_edges must be left out where edges carry nothing; got True",
        ),
    ],
    ids=lambda case: case.task_type if isinstance(case, Task) else None,
)
def test_a_setting_without_an_effect_is_refused(task, settings, message, small, monkeypatch):
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: task)
    config = replace(small, batch_size=None)
    settle(config, task)
    with pytest.raises(InputError, match=rf"train: {message}.*\. Leave it out: it has no effect on ring\."):
        train(replace(config, **settings))
    assert not Path(small.folder).exists()


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        (GRAPHS, {"class_weight": "balanced", "label_smoothing": 0.1, "model": POOLING}),
        (GRAPHS, {"batch_size": 2, "accumulate": 2, "num_workers": 1, "prepare_in_workers": True}),
        (WORDS, {"label_smoothing": 0.1}),
        (LINKS, {"label_smoothing": 0.1, "negatives": "targets", "batch_size": 2, "num_workers": 1}),
        (replace(GRAPHS, features=Features((), 2, (), 3)), {"model": GTConfig(update_last_edges=True)}),
    ],
    ids=str,
)
def test_settings_with_an_effect_are_taken(task, settings, small):
    config = replace(small, batch_size=None)
    settled = settle(replace(config, **settings), task)
    assert all(getattr(settled, name) == value for name, value in settings.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"num_workers": 1, "prepare_in_workers": True, "cache": "c"},
            "cache must be left out with prepare_in_workers; got c. Leave one of them out: workers prepare anew",
        ),
        ({"model": ForestConfig(), "epochs": 5}, "epochs must be left out with a forest; got 5. Leave it out: its set"),
        ({"model": ForestConfig(), "class_weight": "balanced"}, "class_weight must be left out with a forest"),
        (
            {"model": ExphormerConfig(walk_channels=8)},
            "model.walk_channels must be left out without its encoding; got 8. Set walk_steps or laplacian",
        ),
        ({"model": ExphormerConfig(laplacian=0, laplacian_channels=8)}, "model.laplacian_channels must be left out"),
    ],
    ids=str,
)
def test_what_no_data_set_would_hear_of_is_refused_before_it_is_loaded(settings, message, tmp_path, loaded):
    with pytest.raises(InputError, match=f"train: {message}"):
        train(TrainConfig(folder=str(tmp_path / "run"), **settings))
    assert loaded == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            GatedTransformerConfig(),
            "GatedTransformer: features.edge_categories must have .*; got \\[\\]. Change edge_col",
        ),
        (GPSConfig(conv="SAGEConw"), "LocalConv: name must be a convolution; got 'SAGEConw'"),
    ],
    ids=str,
)
def test_what_a_model_cannot_read_is_refused_before_samples_are_prepared(model, message, small, monkeypatch):
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: GRAPHS)
    monkeypatch.delattr("graphformer.train.run.prepare")
    with pytest.raises(InputError, match=message):
        train(replace(small, model=model))
    assert not Path(small.folder).exists()


@pytest.mark.parametrize("seeds", [1, 2])
def test_what_the_samples_refuse_leaves_no_folder(small, monkeypatch, seeds):
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: GRAPHS)
    model = replace(small.model, pattern="Nearest(2)")
    with pytest.raises(InputError, match="pos"):
        train(replace(small, model=model, seeds=seeds))
    assert not Path(small.folder).exists()


@pytest.mark.parametrize("seeds", [1, 2])
def test_labels_that_cannot_be_measured_leave_no_folder(loaded, small, task, monkeypatch, seeds):
    def undefined(y_true, y_pred):
        raise DataError("measure: labels must hold both classes; got one. Use other labels.")

    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: replace(task, measure=undefined))
    with pytest.raises(DataError, match="both classes"):
        train(replace(small, seeds=seeds))
    assert not Path(small.folder).exists()


def test_what_was_learnt_is_not_discarded(loaded, small, task, monkeypatch):
    measured = []

    def once(y_true, y_pred):
        measured.append(y_true)
        if len(measured) > 1:
            raise DataError("measure: labels must hold both classes; got one. Use other labels.")
        return 1.0

    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: replace(task, measure=once))
    with pytest.raises(DataError, match="both classes"):
        train(small)
    assert RunFolder(small.folder).last.exists()
    assert RunFolder(small.folder).config.exists()


def test_a_forest_of_numbers_has_no_classes_to_weigh(loaded, task, tmp_path, monkeypatch):
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: replace(task, smiles=lambda part: []))
    model = ForestConfig(class_weight="balanced")
    with pytest.raises(InputError, match="train: model.class_weight must be left out where no classes are learnt"):
        train(TrainConfig(folder=str(tmp_path / "run"), model=model))


def test_a_forest_leaves_a_networks_recipe_behind_but_not_what_was_asked_for(loaded, capsys):
    weak = {"dataset": "ogbg-molesol", "seed": 4, "epochs": 40, "model": {"name": "gps", "layers": 2}}
    forest = {"model": {"name": "forest"}}
    assert _over(weak, forest) == {"dataset": "ogbg-molesol", "seed": 4, **forest}
    assert _over({**forest, "epochs": 3}, {"model": {"trees": 5}})["epochs"] == 3
    assert main(["train", "ogbg-molesol", "--model", "forest", "--epochs", "7"]) == 2
    assert "train: epochs must be left out with a forest; got 7" in capsys.readouterr().err
