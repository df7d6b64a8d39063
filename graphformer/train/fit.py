"""The engine of a run: prepare, fit, keep the best epoch, measure it."""

from __future__ import annotations

import logging
import math
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch_geometric.data import Data

from graphformer._checks import refuse
from graphformer._errors import RunError
from graphformer.data.task import Task
from graphformer.models.config import MODELS, name_of
from graphformer.train.config import TrainConfig
from graphformer.train.folder import RunFolder, rank, read_checkpoint
from graphformer.train.loaders import Share, plain_loader, training_loader
from graphformer.train.module import GraphModule, TaskFacts, gather_rows
from graphformer.train.objectives import label_statistics
from graphformer.train.progress import RunBar
from graphformer.train.record import Record, SafeCheckpoints
from graphformer.train.report import draw_curve
from graphformer.train.results import RunResult

Splits = dict[str, Sequence[Data]]


def fit(config: TrainConfig, task: Task, splits: Splits, folder: RunFolder) -> RunResult:
    """Train to the last epoch, from the last checkpoint where there is one, then measure the best epoch.

    Args:
        config: The run.
        task: The data set.
        splits: Its prepared samples.
        folder: Where the run writes.

    Raises:
        RunError: Memory has run out, or a prediction is NaN.
        KeyboardInterrupt: Ctrl-C; its message says how far the run is.
    """
    facts, share = TaskFacts.of(task), Share(rank(), config.devices)
    record = Record(folder, f"valid_{task.metric}", task.higher_is_better, task.level, config.patience)
    try:
        with quiet():
            done = read_checkpoint(folder.last)["epoch"] + 1 if folder.last.exists() else 0
            batches = training_loader(splits["train"], task.level, config, share, done)
            torch.manual_seed(config.seed)
            steps = config.epochs * math.ceil(len(batches) / config.accumulate)
            module = GraphModule(config, facts, steps=steps, measure=task.evaluate)
            module.look_at(task.train)
            checkpoint = str(folder.last) if done else None
            _run_trainer(
                _trainer(config, record), module, batches, plain_loader(splits["valid"], config, share), checkpoint
            )
            if share.rank > 0:
                raise SystemExit(0)  # the first process goes on alone
            return _finish(config, task, folder, record, splits)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        smaller = "Lower --batch_size (and raise --accumulate by as much)"
        smaller = "Train on --neighbors, or a smaller model" if config.batch_size is None else smaller
        raise RunError(
            f"train: a step must fit into memory; got {' '.join(str(error).split())[:200]}. {smaller}; "
            f"--resume goes on with what {folder.config} says then."
        ) from error
    except KeyboardInterrupt:
        done = f" after {len(record.rows)} of {config.epochs} epochs" if record.rows else ""
        raise KeyboardInterrupt(f"interrupted{done}") from None


def _is_out_of_memory(error: Exception) -> bool:
    # torch has a class of its own for devices only; on the CPU its text alone tells.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _finish(config: TrainConfig, task: Task, folder: RunFolder, record: Record, splits: Splits) -> RunResult:
    record.write_rows()  # a crash may have come between the last checkpoint and its row
    best = record.best()
    draw_curve(record.rows, record.metric, int(best["epoch"]), folder.curve)
    module = load_module(folder, folder.best)
    result = RunResult(
        folder=str(folder.path),
        dataset=task.name,
        model=name_of(config.model),
        metric=task.metric,
        best_epoch=int(best["epoch"]),
        valid=best[record.metric],
        test=measure(module, splits["test"], task.evaluate),
        baseline=mean_predictor(task),
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
        callbacks=[_Terminated(), record, RunBar()],
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
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _interrupt_when_terminated()
        trainer.fit(module, batches, validation, ckpt_path=checkpoint)
    except SystemExit:
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from None
    finally:
        for number, handler in handlers.items():
            _handle(number, handler)


class _Terminated(Callback):
    """Ends a run at SIGTERM as at Ctrl-C.

    Lightning's own handler, which it has put in place by then, speaks to the other devices in the midst of whatever
    they say to each other, and all wait for ever.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take its place; it comes after `on_fit_start`."""
        _interrupt_when_terminated()


def _interrupt_when_terminated() -> None:
    _handle(signal.SIGTERM, signal.default_int_handler)


def _handle(number: int, handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():  # no other thread may
        signal.signal(number, handler)


def load_module(folder: RunFolder, path: Path) -> GraphModule:
    """The module of one of the run's checkpoints, ready to predict.

    Raises:
        RunError: The folder holds several seeds or a model without checkpoints; the checkpoint is missing, damaged or
            does not fit the run's settings.
    """
    config = folder.read_config()
    name = name_of(config.model)
    if name not in MODELS:
        refuse(
            "run",
            str(folder.path),
            "hold the checkpoint of a network",
            f"the run of a {name}, which is measured where it is fitted and not kept",
            "Its measures are in result.json; `graphformer results` prints them.",
            RunError,
        )
    if config.seeds > 1:
        member = folder.path / f"seed-{config.seed}"
        raise RunError(f"run: {folder.path} must be the folder of one run; got a series of seeds. Pass {member}.")
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


@torch.no_grad()
def measure(module: GraphModule, graphs: Sequence[Data], by: Callable[[Tensor, Tensor], float]) -> float:
    """The measure of a module's predictions over prepared samples, each asked for once, on the device that trains."""
    device = best_device()
    module.to(device)
    batches = (batch.to(device) for batch in plain_loader(graphs, module.config))
    parts = [(batch.y.cpu(), module.predict_batch(batch).cpu()) for batch in batches]
    return by(*gather_rows(parts, world_size=1))


def best_device() -> torch.device:
    """The device on which one process of Lightning trains, if it may choose."""
    return Fabric(accelerator="auto", devices=1).device


@torch.no_grad()
def predictions(module: GraphModule, graphs: Sequence[Data]) -> Tensor:
    """A module's predictions for prepared samples, one row a label row."""
    return torch.cat([module.predict_batch(batch) for batch in plain_loader(graphs, module.config)])


def mean_predictor(task: Task) -> float | None:
    """The measure on the test split of predicting the training labels' mean; None but for regression."""
    if task.task_type != "regression":
        return None
    mean, _ = label_statistics(torch.cat([graph.y for graph in task.train]))
    y = torch.cat([graph.y for graph in task.test])
    return task.evaluate(y, mean.expand_as(y))


@contextmanager
def quiet() -> Iterator[None]:
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
