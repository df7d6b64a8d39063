"""Train, resume, evaluate and predict: the doors of this room."""

from __future__ import annotations

import logging
import math
import shlex
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch_geometric.data import Data

from graphformer._checks import require_choice
from graphformer._errors import RunError
from graphformer.data import from_smiles_list, load
from graphformer.data.task import Task
from graphformer.models import transform
from graphformer.train.config import TrainConfig
from graphformer.train.folder import RunFolder, rank, read_checkpoint
from graphformer.train.loaders import Share, plain_loader, training_loader
from graphformer.train.module import GraphModule, TaskFacts
from graphformer.train.objectives import label_statistics
from graphformer.train.prepare import prepare
from graphformer.train.progress import RunBar
from graphformer.train.record import Record, SafeCheckpoints
from graphformer.train.report import draw_curve

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class RunResult:
    """What a finished run found; its result.json.

    Attributes:
        folder: The run's folder.
        dataset: Name of the data set.
        metric: Name of the measure.
        best_epoch: Epoch of the best validation measure, counted from 1.
        valid: The measure on the validation split at that epoch.
        test: The measure on the test split at that epoch.
        baseline: The measure on the test split of predicting the training labels' mean; None for classification.
        parameters: Trained numbers of the model.
        seconds: Time of all epochs, with validation.
        seed: Seed of the run.
    """

    folder: str
    dataset: str
    metric: str
    best_epoch: int
    valid: float
    test: float
    baseline: float | None
    parameters: int
    seconds: float
    seed: int


class Measured(NamedTuple):
    """A measure on a split: its name and value, and over how many graphs, nodes or links."""

    dataset: str
    split: str
    metric: str
    value: float
    level: str
    rows: int


class Prediction(NamedTuple):
    """One molecule's prediction: its SMILES, its row in what was asked, a value or probability for each task."""

    smiles: str
    row: int
    values: list[float]


def train(config: TrainConfig) -> RunResult:
    """Train a model and measure it on the test split at its best validation epoch.

    Args:
        config: The run. `graphformer.train.recipe(name)` gives the settings for a data set.

    Returns:
        The measures; the run folder holds config.yaml, versions.json, metrics.csv, curve.png, result.json and the
        best and last checkpoint.

    Raises:
        RunError: The folder holds something already.
        DataError: The data set cannot be had.
        KeyboardInterrupt: Ctrl-C; its message says how to go on.
    """
    transform(config.model)  # refuse a pattern that cannot be read before anything is loaded or written
    task = load(config.dataset, config.root, config.download)
    return _fit(config, task, RunFolder.create(config))


def resume(run: str | Path) -> RunResult:
    """Continue an interrupted run after its last finished epoch.

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
    if folder.last.exists():
        _load_module(folder, folder.last)  # refuse one that is damaged or does not fit before the data are prepared
    return _fit(config, load(config.dataset, config.root, config.download), folder)


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
    with _quiet():
        module = _load_module(folder, folder.best)
        task = load(module.config.dataset, root or module.config.root)
        graphs = prepare({split: getattr(task, split)}, module.config)[split]
        rows = sum(len(graph.y) for graph in graphs)
        return Measured(task.name, split, task.metric, _measure(module, graphs, task.evaluate), task.level, rows)


def predict(run: str | Path, smiles: Sequence[str], skip_invalid: bool = False) -> tuple[list[Prediction], list[str]]:
    """Predictions of a run's best checkpoint for molecules.

    Args:
        run: The run's folder.
        smiles: The molecules.
        skip_invalid: Leave out those that cannot be read. False (default) raises instead.

    Returns:
        The predictions, and one line for each molecule that was left out.

    Raises:
        DataError: Some SMILES cannot be read.
        RunError: No run, or a damaged checkpoint.
    """
    folder = RunFolder.open(run)
    with _quiet():
        read = from_smiles_list(smiles, skip_invalid=skip_invalid)
        module = _load_module(folder, folder.best)
        if not read.samples:
            return [], read.problems
        values = _predictions(module, prepare({"molecules": read.samples}, module.config)["molecules"])
    rows = zip(read.rows, values.tolist(), strict=True)
    return [Prediction(smiles[row], row, value) for row, value in rows], read.problems


def _fit(config: TrainConfig, task: Task, folder: RunFolder) -> RunResult:
    """Train to the last epoch, from the last checkpoint where there is one, then measure the best epoch."""
    facts, share = TaskFacts.of(task), Share(rank(), config.devices)
    record = Record(folder, f"valid_{task.metric}", task.higher_is_better, task.level, config.patience)
    try:
        with _quiet():
            splits = prepare({split: getattr(task, split) for split in SPLITS}, config)
            batches = training_loader(splits["train"], task.level, config, share)
            torch.manual_seed(config.seed)
            steps = config.epochs * math.ceil(len(batches) / config.accumulate)
            module = GraphModule(config, facts, steps=steps, measure=task.evaluate)
            module.look_at(task.train)
            checkpoint = str(folder.last) if folder.last.exists() else None
            _run_trainer(
                _trainer(config, record), module, batches, plain_loader(splits["valid"], config, share), checkpoint
            )
            if share.rank > 0:
                raise SystemExit(0)  # the first process goes on alone
            return _finish(config, task, folder, record, splits)
    except KeyboardInterrupt:
        how = f"graphformer train --resume {shlex.quote(str(folder.path))}"
        done = f" after {len(record.rows)} of {config.epochs} epochs" if record.rows else ""
        raise KeyboardInterrupt(f"interrupted{done}; go on with: {how}") from None


def _finish(
    config: TrainConfig, task: Task, folder: RunFolder, record: Record, splits: dict[str, Sequence[Data]]
) -> RunResult:
    record.write_rows()  # a crash may have come between the last checkpoint and its row
    best = record.best()
    draw_curve(record.rows, record.metric, int(best["epoch"]), folder.curve)
    module = _load_module(folder, folder.best)
    result = RunResult(
        folder=str(folder.path),
        dataset=task.name,
        metric=task.metric,
        best_epoch=int(best["epoch"]),
        valid=best[record.metric],
        test=_measure(module, splits["test"], task.evaluate),
        baseline=_mean_predictor(task),
        parameters=sum(weight.numel() for weight in module.model.parameters()),
        seconds=round(sum(row["seconds"] for row in record.rows), 1),
        seed=config.seed,
    )
    folder.write_result(asdict(result))
    return result


def _trainer(config: TrainConfig, record: Record) -> Trainer:
    return Trainer(
        max_epochs=config.epochs,
        accelerator="auto",
        devices=config.devices,
        strategy=config.strategy,
        accumulate_grad_batches=config.accumulate,
        use_distributed_sampler=False,
        precision=config.precision,
        gradient_clip_val=config.gradient_clip or None,
        callbacks=[record, RunBar()],
        plugins=[SafeCheckpoints()],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _run_trainer(
    trainer: Trainer, module: GraphModule, batches: object, validation: object, checkpoint: str | None
) -> None:
    """Fit, with Ctrl-C as a KeyboardInterrupt: Lightning ends the process instead and leaves the signal ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, batches, validation, ckpt_path=checkpoint)
    except SystemExit:
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


def _load_module(folder: RunFolder, path: Path) -> GraphModule:
    """The module of one of the run's checkpoints, ready to predict."""
    config = folder.read_config()
    checkpoint = read_checkpoint(path)
    try:
        module = GraphModule(config, TaskFacts.read(checkpoint["task"]))
        module.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"run: {path} must fit the model of {folder.config}; got {reason}. "
            "Restore the config.yaml that the run was trained with, or train anew."
        ) from error
    return module.eval()


def _measure(module: GraphModule, graphs: Sequence[Data], measure: Callable[[Tensor, Tensor], float]) -> float:
    return measure(torch.cat([graph.y for graph in graphs]), _predictions(module, graphs))


@torch.no_grad()
def _predictions(module: GraphModule, graphs: Sequence[Data]) -> Tensor:
    return torch.cat([module.predict_batch(batch) for batch in plain_loader(graphs, module.config)])


def _mean_predictor(task: Task) -> float | None:
    if task.task_type != "regression":
        return None
    mean, _ = label_statistics(torch.cat([graph.y for graph in task.train]))
    y = torch.cat([graph.y for graph in task.test])
    return task.evaluate(y, mean.expand_as(y))


@contextmanager
def _quiet() -> Iterator[None]:
    """No tips, no device reports and no third-party warnings: the bars and the result are what a run says."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
