"""What a run's settings and a data set have to do with each other, settled before anything is written."""

from __future__ import annotations

from dataclasses import replace

from torch_geometric import typing

from graphformer._checks import require
from graphformer._errors import MissingPackageError
from graphformer.data.task import Task
from graphformer.train.config import TrainConfig

_BATCH_SIZE = {"graph": 64, "node": 64, "link": 64 * 1024}


def settle(config: TrainConfig, task: Task) -> TrainConfig:
    """The settings with those filled in that depend on the data set.

    Args:
        config: The run, of a network.
        task: Its data set.

    Returns:
        The settings with a batch size, unless one graph is trained on as a whole.

    Raises:
        InputError: The settings do not fit the data set.
        MissingPackageError: Neighbours are asked for, and PyG's sampling is not installed.
    """
    _check_devices(config, task)
    _check_neighbors(config, task)
    if config.batch_size is None and not _is_whole(config, task):
        config = replace(config, batch_size=_BATCH_SIZE[task.level])
    return config


def _is_whole(config: TrainConfig, task: Task) -> bool:
    """Whether an epoch is one step over one graph."""
    return task.level == "node" and len(task.train) == 1 and not config.neighbors


def _check_devices(config: TrainConfig, task: Task) -> None:
    rule, remedy = "be 1 where one graph holds all parts", "Train on one device."
    require(len(task.train) > 1 or config.devices == 1, "train", "devices", rule, config.devices, remedy)
    fewest = min(len(task.train), len(task.valid))
    rule, remedy = f"be at most {fewest}, the graphs of the smallest part", "Train on fewer devices."
    require(config.devices <= fewest, "train", "devices", rule, config.devices, remedy)


def _check_neighbors(config: TrainConfig, task: Task) -> None:
    if not config.neighbors:
        return
    rule, remedy = "be empty but for the nodes of one big graph", "Leave neighbors out."
    is_one = task.level == "node" and len(task.train) == 1
    require(is_one, "train", "neighbors", rule, list(config.neighbors), remedy)
    if not (typing.WITH_PYG_LIB or typing.WITH_TORCH_SPARSE):
        raise MissingPackageError(
            "train: neighbors need PyG's neighbour sampling; got neither pyg-lib nor torch-sparse. "
            "Install one of them, or leave neighbors out to train on the whole graph."
        )
