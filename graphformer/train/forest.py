"""The baseline without a network: random forests on Morgan fingerprints, measured as every other run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from graphformer._checks import refuse
from graphformer._errors import DataError
from graphformer.data.molecule import rdkit_module, silent_rdkit
from graphformer.data.task import Task
from graphformer.models.config import name_of
from graphformer.models.config.forest import ForestConfig
from graphformer.train.config import TrainConfig
from graphformer.train.fit import mean_predictor
from graphformer.train.folder import RunFolder
from graphformer.train.results import RunResult


def fingerprints(smiles: Sequence[str], config: ForestConfig) -> np.ndarray:
    """The Morgan fingerprint of each molecule.

    Args:
        smiles: The molecules. One that RDKit cannot read has a fingerprint of zeros: the labels of a published split
            are measured whole, and a newer RDKit refuses molecules that older ones took (RDKit 2026.09: 7 of the 41,127
            of ogbg-molhiv, 8 of the 7,831 of ogbg-moltox21, none of bace, bbbp, clintox, esol, freesolv, lipo, sider).
        config: Radius, length and kind of the fingerprints.

    Returns:
        Bits, or counts, as float32, which is what the trees compare. Shape `[molecules, bits]`.

    Example:
        >>> fingerprints(["CCO", "no molecule"], ForestConfig(bits=64)).sum(1).tolist()
        [6.0, 0.0]
    """
    maker = rdkit_module("rdFingerprintGenerator").GetMorganGenerator(radius=config.radius, fpSize=config.bits)
    make = maker.GetCountFingerprintAsNumPy if config.counts else maker.GetFingerprintAsNumPy
    parse = rdkit_module("Chem").MolFromSmiles
    out = np.zeros((len(smiles), config.bits), dtype=np.float32)
    with silent_rdkit():
        for row, text in enumerate(smiles):
            molecule = parse(text)
            if molecule is not None:
                out[row] = make(molecule)
    return out


def require_molecules(task: Task) -> None:
    """Refuse a task that no forest on fingerprints can learn.

    Raises:
        DataError: The task has no SMILES, or labels of another kind than numbers and yes or no.
    """
    if task.smiles is None or task.task_type not in ("regression", "binary classification"):
        got = f"{task.name}, which has {'no SMILES' if task.smiles is None else task.task_type}"
        remedy = "Choose a set of molecules with numbers or yes and no as labels, such as ogbg-molesol, or a network."
        refuse("train", "dataset", "be one that a forest on fingerprints can learn", got, remedy, DataError)


def task_fingerprints(task: Task, config: ForestConfig) -> dict[str, np.ndarray]:
    """The fingerprints of the parts of a task that has SMILES; see :func:`fingerprints`."""
    assert task.smiles is not None
    return {part: fingerprints(task.smiles(part), config) for part in ("train", "valid", "test")}


def fit_forest(config: TrainConfig, task: Task, prints: Mapping[str, np.ndarray], folder: RunFolder) -> RunResult:
    """Fit one forest for each label on the training molecules that have it, and measure validation and test.

    Of the run's settings only the seed and the model's are used. Nothing is chosen by the validation split, and the
    forest itself is not kept.

    Args:
        config: The run; its model is a :class:`~graphformer.models.config.forest.ForestConfig`.
        task: The data set.
        prints: What :func:`task_fingerprints` gave.
        folder: Where the result is written.

    Raises:
        DataError: A label is missing in the whole training split.
    """
    start = time.perf_counter()
    y = torch.cat([graph.y for graph in task.train]).numpy()
    columns, parameters = [], 0
    for column in range(task.num_tasks):
        known = ~np.isnan(y[:, column])
        if not known.any():
            remedy = "Use a data set whose training split has every label."
            refuse("train", f"label {column}", "be there for a training molecule", "none", remedy, DataError)
        forest = _forest(task, config).fit(prints["train"][known], y[known, column])
        columns.append({part: _predictions(forest, prints[part]) for part in ("valid", "test")})
        parameters += sum(tree.tree_.node_count for tree in forest.estimators_)
    valid, test = (_measure(task, part, [column[part] for column in columns]) for part in ("valid", "test"))
    result = RunResult(
        folder=str(folder.path),
        dataset=task.name,
        model=name_of(config.model),
        metric=task.metric,
        best_epoch=0,
        valid=valid,
        test=test,
        baseline=mean_predictor(task),
        parameters=parameters,
        seconds=round(time.perf_counter() - start, 1),
        seed=config.seed,
    )
    folder.write_result(asdict(result))
    return result


def _forest(task: Task, config: TrainConfig) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    model: ForestConfig = config.model
    is_regression = task.task_type == "regression"
    options: dict[str, Any] = {
        "n_estimators": model.trees,
        "max_depth": model.max_depth or None,
        "min_samples_leaf": model.min_leaf,
        "max_features": model.max_features or (1 / 3 if is_regression else "sqrt"),
        "random_state": config.seed,
        "n_jobs": torch.get_num_threads(),
    }
    if is_regression:
        return RandomForestRegressor(**options)
    weight = "balanced" if model.class_weight == "balanced" else None
    return RandomForestClassifier(class_weight=weight, **options)


def _predictions(forest: Any, prints: np.ndarray) -> np.ndarray:
    """Values, or the probabilities of class 1."""
    forest.n_jobs = 1  # threads add up the trees in the order in which they finish, and the last bits differ
    if not hasattr(forest, "classes_"):
        return forest.predict(prints)
    return forest.predict_proba(prints) @ (forest.classes_ == 1)  # there may be one class only


def _measure(task: Task, part: str, columns: Sequence[np.ndarray]) -> float:
    y = torch.cat([graph.y for graph in getattr(task, part)])
    return task.evaluate(y, torch.from_numpy(np.stack(columns, axis=1)))
