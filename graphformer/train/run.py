"""Train, resume, evaluate and predict: the doors of this room."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from graphformer._checks import require_choice
from graphformer._errors import DataError, InputError, MissingPackageError, RunError
from graphformer.data import from_smiles_list, load
from graphformer.data.descriptors import with_descriptors
from graphformer.data.task import Task
from graphformer.models.config.forest import ForestConfig
from graphformer.train.config import TrainConfig
from graphformer.train.exported import open_module
from graphformer.train.fit import best_device, fit, load_module, measure, predictions, quiet
from graphformer.train.folder import RunFolder
from graphformer.train.forest import fit_forest, task_fingerprints
from graphformer.train.prepare import prepare
from graphformer.train.results import RunResult, SeedsResult
from graphformer.train.settle import check_settings, settle

SPLITS = ("train", "valid", "test")


class Measured(NamedTuple):
    """A measure on a split: its name and value, and over how many graphs, nodes or pairs (level "link")."""

    dataset: str
    split: str
    metric: str
    value: float
    level: str
    rows: int


class Prediction(NamedTuple):
    """One molecule's prediction: its SMILES, its row in what was asked, a value or probability for each task.

    `task_names` says what each value is of; it is empty where the model does not know.
    """

    smiles: str
    row: int
    values: list[float]
    task_names: tuple[str, ...] = ()


def train(config: TrainConfig) -> RunResult | SeedsResult:
    """Train a model and measure it on the test split at its best validation epoch; once, or with several seeds.

    Args:
        config: The run. `graphformer.train.recipe(name)` gives the settings of a recipe.

    Returns:
        The measures; the run folder holds config.yaml, versions.json, metrics.csv, curve.png, result.json and the
        best and last checkpoint. With `seeds` above 1 it holds such a folder for each seed, and a result.json over
        them.

    Raises:
        InputError: The settings do not fit the data set, or some would have no effect on it.
        RunError: The folder holds something already.
        DataError: The data set cannot be had.
        KeyboardInterrupt: Ctrl-C; its message says how to go on.
    """
    check_settings(config)
    task = _load(config)
    config = settle(config, task)
    folder = RunFolder.create(config)
    try:
        return _run(config, task, folder)
    except (InputError, DataError, MissingPackageError):
        folder.discard()
        raise


def resume(run: str | Path) -> RunResult | SeedsResult:
    """Continue an interrupted run, or an interrupted series of seeds, after its last finished epoch.

    The settings are the run's own, and the result is that of a run without the interruption.

    Raises:
        RunError: No run, a finished run, or a damaged checkpoint.
    """
    folder = RunFolder.open(run)
    if folder.result.exists():
        raise RunError(
            f"train: the run to resume must be unfinished; got {folder.path}, which has a result.json. "
            "Start a new run with more epochs, or use `graphformer evaluate`."
        )
    config = folder.read_config()
    waiting = [member for member in _members(config, folder).values() if not member.result.exists()]
    if not waiting:
        return _together(config, folder)
    for member in waiting:
        if member.last.exists():
            load_module(member, member.last)  # refuse one that is damaged or does not fit before the data are prepared
    return _run(config, _load(config), folder)


def evaluate(run: str | Path, split: str = "test", root: str | None = None) -> Measured:
    """The data set's measure of a run's best checkpoint on a split.

    Args:
        run: The run's folder.
        split: "train", "valid" or "test" (default).
        root: Folder of the data sets on disk. Default: the run's own.

    Raises:
        InputError: No such split.
        RunError: No run, or a damaged checkpoint.
        DataError: The data set cannot be had.
    """
    require_choice(split, SPLITS, "evaluate", "split")
    folder = RunFolder.open(run)
    with quiet():
        module = load_module(folder, folder.best)
        task = _load(replace(module.config, root=root or module.config.root, download=False))
        graphs = getattr(task, split)
        value = measure(module, prepare({split: graphs}, module.config)[split], task.evaluate)
        return Measured(task.name, split, task.metric, value, task.level, sum(len(graph.y) for graph in graphs))


def predict(
    run: str | Path | None = None,
    smiles: Sequence[str] = (),
    skip_invalid: bool = False,
    *,
    model: str | None = None,
) -> tuple[list[Prediction], list[str]]:
    """Predictions of a run's best checkpoint, or of a trained model that comes with the package, for molecules.

    Args:
        run: The run's folder. Either this or `model` is given.
        smiles: The molecules.
        skip_invalid: Leave out those that cannot be read. False (default) raises instead.
        model: One of `graphformer.train.weights.names()`, or the path of a file that :func:`export` wrote.

    Returns:
        The predictions, and one line for each molecule that was left out.

    Raises:
        InputError: A run and a model are given, or none; no model of that name.
        DataError: Some SMILES cannot be read.
        RunError: No run, one of no molecules, or a damaged file.
    """
    with quiet():
        module = open_module(run, model, "predict")
        read = from_smiles_list(smiles, skip_invalid=skip_invalid)
        if not read.samples:
            return [], read.problems
        config = replace(module.config, cache=None)  # that of the run is for its data set
        values = predictions(module, prepare({"molecules": read.samples}, config)["molecules"])
    rows = zip(read.rows, values.tolist(), strict=True)
    names = module.facts.task_names
    return [Prediction(smiles[row], row, value, names) for row, value in rows], read.problems


def _load(config: TrainConfig) -> Task:
    task = load(config.dataset, config.root, config.download)
    return with_descriptors(task, config.descriptors) if config.descriptors else task


def _run(config: TrainConfig, task: Task, folder: RunFolder) -> RunResult | SeedsResult:
    try:
        fit_one = _fitting(config, task)
        if config.seeds == 1:
            return fit_one(config, folder)
        for seed, member in _members(config, folder).items():
            if not member.result.exists():
                one = replace(config, seed=seed, seeds=1, folder=str(member.path))
                fit_one(one, member if member.config.exists() else RunFolder.create(one))
        return _together(config, folder)
    except KeyboardInterrupt as interrupt:
        how = f"graphformer train --resume {shlex.quote(str(folder.path))}"
        raise KeyboardInterrupt(f"{interrupt or 'interrupted'}; go on with: {how}") from None


def _members(config: TrainConfig, folder: RunFolder) -> dict[int, RunFolder]:
    """The folder of each seed: those of a series, or the run's own."""
    if config.seeds == 1:
        return {config.seed: folder}
    return {seed: RunFolder(folder.path / f"seed-{seed}") for seed in range(config.seed, config.seed + config.seeds)}


def _together(config: TrainConfig, folder: RunFolder) -> SeedsResult:
    """The result of a series whose seeds are all finished."""
    return SeedsResult.write(folder, [RunResult.read(member.result) for member in _members(config, folder).values()])


def _fitting(config: TrainConfig, task: Task) -> Callable[[TrainConfig, RunFolder], RunResult]:
    """What fits the model once; what all seeds share is made here."""
    if isinstance(config.model, ForestConfig):
        prints = task_fingerprints(task, config.model)
        return lambda one, folder: fit_forest(one, task, prints, folder)
    elsewhere = config.num_workers > 0 or config.neighbors  # other processes, or PyG's sampling, cut batches out of it
    with quiet():
        splits = prepare(
            {split: getattr(task, split) for split in SPLITS}, config, None if elsewhere else best_device()
        )
    return lambda one, folder: fit(one, task, splits, folder)
