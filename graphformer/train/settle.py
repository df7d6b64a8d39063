"""What a run's settings and a data set have to do with each other, settled before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from torch_geometric import typing

from graphformer._checks import require
from graphformer._errors import MissingPackageError
from graphformer.data.task import Task
from graphformer.models import transform
from graphformer.models.config.forest import ForestConfig
from graphformer.train.config import OF_A_FOREST, TrainConfig
from graphformer.train.forest import require_molecules
from graphformer.train.module import GraphModule, TaskFacts

_BATCH_SIZE = {"graph": 64, "node": 64, "link": 64 * 1024}


def check_settings(config: TrainConfig) -> None:
    """Refuse what no data set could make sense of.

    Raises:
        InputError: A pattern that cannot be read, or a setting that would have no effect.
    """
    if isinstance(config.model, ForestConfig):
        of_steps = {entry.name: False for entry in fields(config) if entry.name not in OF_A_FOREST}
        _require_heard(config, of_steps, "with a forest", "Leave it out: its settings are model.trees and so on.")
        return
    transform(config.model)
    made_once = {"cache": not config.prepare_in_workers}
    _require_heard(config, made_once, "with prepare_in_workers", "Leave one of them out: workers prepare anew.")
    named = config.model
    widths = {
        "walk_channels": bool(getattr(named, "walk_steps", 0)),
        "laplacian_channels": bool(getattr(named, "laplacian", 0)),
    }
    _require_heard(named, widths, "without its encoding", "Set walk_steps or laplacian.", "model.")


def settle(config: TrainConfig, task: Task) -> TrainConfig:
    """The settings with those filled in that depend on the data set.

    Args:
        config: The run.
        task: Its data set.

    Returns:
        The settings with a batch size, unless one graph is trained on as a whole, or no network.

    Raises:
        InputError: The settings do not fit the data set, or would have no effect on it.
        DataError: The data set is none for a forest.
        MissingPackageError: Neighbours are asked for, and PyG's sampling is not installed.
    """
    leave_out = f"Leave it out: it has no effect on {task.name}."
    classes = "classification" in task.task_type
    if isinstance(config.model, ForestConfig):
        require_molecules(task)
        _require_heard(config.model, {"class_weight": classes}, "where no classes are learnt", leave_out, "model.")
        return config
    _check_devices(config, task)
    _check_neighbors(config, task)
    smooth = {"class_weight": classes, "label_smoothing": task.task_type != "regression"}
    _require_heard(config, smooth, "where no classes are learnt", leave_out)
    _require_heard(config, {"negatives": task.level == "link"}, "but for links", leave_out)
    steps = dict.fromkeys(("batch_size", "accumulate", "num_workers"), not _is_whole(config, task))
    _require_heard(config, steps, "where one graph is trained on as a whole", leave_out)
    many = {"prepare_in_workers": len(task.train) > 1}
    _require_heard(config, many, "where one graph holds all parts", leave_out)
    _require_heard(config.model, {"pooling": task.level == "graph"}, "but for whole graphs", leave_out, "model.")
    edges = {"update_last_edges": task.features.edge_width > 0}
    _require_heard(config.model, edges, "where edges carry nothing", leave_out, "model.")
    GraphModule(config, TaskFacts.of(task))  # a model refuses features that it cannot read
    if config.batch_size is None and not _is_whole(config, task):
        config = replace(config, batch_size=_BATCH_SIZE[task.level])
    return config


def _require_heard(settings: Any, heard: Mapping[str, bool], where: str, remedy: str, prefix: str = "") -> None:
    """Refuse a setting that is not its default though nothing would come of it."""
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        works = heard.get(entry.name, True) or value == entry.default
        require(works, "train", prefix + entry.name, f"be left out {where}", value, remedy)


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
