from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from ten_molecules import LABELS, SMILES

from graphformer._errors import DataError, InputError, RunError
from graphformer.cli.main import main
from graphformer.data import from_smiles_list
from graphformer.data.measures import average_precision
from graphformer.graphs import Features
from graphformer.models import build, transform
from graphformer.models.config.forest import ForestConfig
from graphformer.train import TrainConfig, evaluate, explain, export, find_results, predict, resume, train
from graphformer.train.forest import fingerprints

SMALL = ForestConfig(trees=10, bits=64)


@pytest.fixture
def molecules(task, monkeypatch):
    """The ten molecules with their SMILES; what `load` gives."""
    parts = {"train": SMILES, "valid": SMILES[:6], "test": SMILES[3:]}
    held = [replace(task, smiles=lambda part: parts[part])]
    monkeypatch.setattr("graphformer.train.run.load", lambda name, root, download: held[0])
    return held


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    return TrainConfig(folder=str(tmp_path / "run"), seed=3, model=SMALL)


def yes_or_no(task, labels: list[list[float]]):
    """The task with these labels of yes and no."""
    graphs = from_smiles_list(SMILES, torch.tensor(labels)).samples
    kinds = {"task_type": "binary classification", "metric": "ap", "higher_is_better": True}
    width = len(labels[0])
    parts = {"train": graphs, "valid": graphs[:6], "test": graphs[3:], "num_tasks": width, "num_outputs": width}
    return replace(task, measure=average_precision, **kinds, **parts)


def test_the_run_is_a_forest_measured_as_every_run(molecules, config):
    result = train(config)
    prints = fingerprints(SMILES, SMALL)
    forest = RandomForestRegressor(10, max_features=1 / 3, random_state=3).fit(prints, np.float32(LABELS))
    expected = np.sqrt(np.mean((forest.predict(prints[3:]) - np.float32(LABELS[3:])) ** 2))
    assert result.test == pytest.approx(expected, rel=1e-6)
    assert result.parameters == sum(tree.tree_.node_count for tree in forest.estimators_)
    assert (result.model, result.best_epoch, result.seed) == ("forest", 0, 3)
    assert result.baseline > result.test
    files = {path.name for path in Path(result.folder).rglob("*") if path.is_file()}
    assert files == {"config.yaml", "versions.json", "result.json"}
    assert json.loads(Path(result.folder, "versions.json").read_text())["scikit-learn"] != "absent"


def test_the_result_has_the_keys_of_a_network(molecules, config, small, tmp_path):
    forest = train(config)
    network = train(replace(small, epochs=1, folder=str(tmp_path / "network")))
    keys = [json.loads(Path(one.folder, "result.json").read_text()).keys() for one in (forest, network)]
    assert keys[0] == keys[1]
    assert {found.model for found in find_results([tmp_path])} == {"forest", "graph_transformer"}


def test_the_seed_decides_whatever_the_threads(molecules, config, tmp_path):
    first = train(config)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 2)
        again = train(replace(config, folder=str(tmp_path / "again")))
    finally:
        torch.set_num_threads(threads)
    assert (again.valid, again.test) == (first.valid, first.test)
    assert train(replace(config, seed=4, folder=str(tmp_path / "other"))).test != first.test


def test_molecules_without_a_label_do_not_train_its_forest(molecules, config):
    nan = float("nan")
    labels = [[float(row % 2), nan if row in (1, 4) else float(row < 5)] for row in range(10)]
    molecules[0] = replace(
        yes_or_no(molecules[0], labels), measure=lambda y_true, y_pred: y_pred.square().sum(0).tolist()
    )
    result = train(config)
    prints, y = fingerprints(SMILES, SMALL), np.array(labels)
    columns = []
    for column in range(2):
        known = ~np.isnan(y[:, column])
        forest = RandomForestClassifier(10, random_state=3).fit(prints[known], y[known, column])
        columns.append(forest.predict_proba(prints[3:])[:, 1])
    assert result.test == pytest.approx([np.square(column).sum() for column in columns])


def test_a_label_that_is_always_the_same_is_predicted_for_sure(molecules, config):
    molecules[0] = replace(
        yes_or_no(molecules[0], [[float(row % 2), 0.0] for row in range(10)]),
        measure=lambda y_true, y_pred: float(y_pred[:, 1].abs().max()),
    )
    assert train(config).test == 0.0


def test_a_label_that_is_never_there_is_told(molecules, config):
    molecules[0] = yes_or_no(molecules[0], [[float(row % 2), float("nan")] for row in range(10)])
    with pytest.raises(DataError, match="train: label 1 must be there for a training molecule; got none"):
        train(config)


def test_the_settings_reach_the_forest(molecules, config, tmp_path):
    molecules[0] = yes_or_no(molecules[0], [[float(row == 3)] for row in range(10)])
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        fit = RandomForestClassifier.fit
        patch.setattr(RandomForestClassifier, "fit", lambda self, x, y: seen.append((self, x.shape)) or fit(self, x, y))
        train(config)
        model = ForestConfig(trees=7, bits=32, max_depth=2, min_leaf=3, max_features=0.5, class_weight="balanced")
        train(replace(config, model=model, folder=str(tmp_path / "other")))
    (plain, _), (other, shape) = seen
    assert (plain.max_depth, plain.min_samples_leaf, plain.max_features, plain.class_weight) == (None, 1, "sqrt", None)
    assert (other.n_estimators, other.max_depth, other.min_samples_leaf) == (7, 2, 3)
    assert plain.n_jobs == other.n_jobs == 1  # by now: predictions are added up in one order
    assert (other.max_features, other.class_weight, shape) == (0.5, "balanced", (10, 32))


def test_fingerprints_are_bits_or_counts_and_zero_for_what_is_no_molecule():
    texts = ["CCCCCC", "no molecule", "c1ccccc1"]
    counts, bits = (fingerprints(texts, replace(SMALL, counts=flag)) for flag in (True, False))
    assert counts.dtype == bits.dtype == np.float32
    assert np.array_equal(counts > 0, bits > 0)
    assert counts.max() == 6.0  # benzene's carbons are alike
    assert bits.max() == 1.0
    assert not counts[1].any()
    assert fingerprints(["CCO"], replace(SMALL, radius=0)).sum() == 3.0  # one neighbourhood an atom


def test_seeds_make_a_series_that_resumes(molecules, config, monkeypatch):
    result = train(replace(config, seeds=2))
    assert result.seeds == [3, 4]
    (found,) = find_results([result.folder])
    assert found == result
    folder = Path(result.folder)
    (folder / "result.json").unlink()
    (folder / "seed-4/result.json").unlink()
    again = resume(folder)
    assert (again.valid, again.test, again.seeds) == (result.valid, result.test, result.seeds)


def test_there_is_no_checkpoint_to_ask(molecules, config):
    folder = train(config).folder
    message = r"run: .* must hold the checkpoint of a network; got the run of a forest, which .*graphformer results"
    for ask in (
        lambda: evaluate(folder),
        lambda: predict(folder, ["CCO"]),
        lambda: explain(folder, "CCO"),
        lambda: export(folder, "x"),
    ):
        with pytest.raises(RunError, match=message):
            ask()
    with pytest.raises(RunError, match="the run to resume must be unfinished"):
        resume(folder)


def test_other_data_are_refused_before_a_folder_is_made(molecules, config):
    whole = molecules[0]
    message = "train: dataset must be one that a forest on fingerprints can learn; got ten, which has {}"
    for wrong, got in (
        (replace(whole, smiles=None), "no SMILES"),
        (replace(whole, task_type="multiclass classification"), "multiclass classification"),
    ):
        molecules[0] = wrong
        with pytest.raises(DataError, match=message.format(got)):
            train(config)
    assert not Path(config.folder).exists()


def test_nothing_builds_a_forest():
    message = "models: config's model must be one of .*graph_transformer.*; got 'forest'.*Train a forest"
    with pytest.raises(InputError, match=message):
        build(SMALL, Features(node_categories=(5,)), 1)
    with pytest.raises(InputError, match=message):
        transform(SMALL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trees": 0}, "ForestConfig: trees must be at least 1; got 0"),
        ({"bits": 2.5}, "ForestConfig: bits must be an integer; got 2.5"),
        ({"min_leaf": 0}, "ForestConfig: min_leaf must be at least 1; got 0"),
        ({"radius": -1}, "ForestConfig: radius must not be negative; got -1"),
        ({"max_depth": -1}, "ForestConfig: max_depth must not be negative; got -1"),
        ({"max_features": 1.5}, r"ForestConfig: max_features must lie in \[0, 1\]; got 1.5"),
        ({"counts": 1}, "ForestConfig: counts must be a bool; got 1"),
        ({"class_weight": "even"}, "ForestConfig: class_weight must be one of none, balanced; got 'even'"),
    ],
)
def test_settings_that_no_forest_has_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        ForestConfig(**settings)


def test_the_command(molecules, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["--model", "forest", "--model.trees=5", "--model.bits=64"]
    assert main(["train", "logp", *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ten: test rmse ")
    assert "epoch" not in out
    assert main(["train", "logp", *words, "--seeds", "2"]) == 0
    assert "over 2 seeds\n(valid " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["train", "--model", "forest", "--help"])
    assert "--model.min_leaf" in capsys.readouterr().out
