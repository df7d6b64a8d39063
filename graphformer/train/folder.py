"""The folder of a run: what lies where, and reading it back with clear errors."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from graphformer._checks import require
from graphformer._errors import InputError, RunError
from graphformer.train.config import TrainConfig, read_config, write_config
from graphformer.train.versions import versions

_OF_THE_FIRST = "GRAPHFORMER_RUN_FOLDER"


def rank() -> int:
    """The number of this process among those that Lightning starts for a run on several devices; 0 is the first."""
    return int(os.environ.get("LOCAL_RANK", "0"))


class RunFolder:
    """Names and reads the files of one run.

    Args:
        path: The folder.

    Attributes:
        config: config.yaml, every setting of the run.
        versions: versions.json.
        metrics: metrics.csv, one row an epoch.
        best: checkpoints/best.ckpt, of the best validation epoch.
        last: checkpoints/last.ckpt, of the last finished epoch.
        curve: curve.png, the learning curve.
        result: result.json; its presence says that the run is finished.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self.config = self.path / "config.yaml"
        self.versions = self.path / "versions.json"
        self.metrics = self.path / "metrics.csv"
        self.best = self.path / "checkpoints" / "best.ckpt"
        self.last = self.path / "checkpoints" / "last.ckpt"
        self.curve = self.path / "curve.png"
        self.result = self.path / "result.json"

    @classmethod
    def create(cls, config: TrainConfig) -> RunFolder:
        """A new folder with the run's settings and versions in it; an existing run is never written over.

        The further processes of a run on several devices open the folder that the first one made.
        """
        if rank() > 0:
            first = os.environ.get(_OF_THE_FIRST, "")
            rule, remedy = "run in processes that it starts itself", "Start it once, with --devices; unset LOCAL_RANK."
            require(first != "", "train", "the command", rule, f"LOCAL_RANK={rank()}", remedy, RunError)
            return cls(first)
        try:
            path = _claim(Path(config.folder)) if config.folder else _claim_next(Path("runs"), config.dataset)
            folder = cls(path)
            folder.best.parent.mkdir(exist_ok=True)
            folder.versions.write_text(json.dumps(versions(), indent=2) + "\n", encoding="utf-8")
            write_whole(folder.config, lambda passing: write_config(config, passing))  # last: it makes the folder a run
        except OSError as error:
            raise RunError(
                f"train: folder must be one that can be written; got {error}. Pass another --folder."
            ) from error
        os.environ[_OF_THE_FIRST] = str(folder.path.absolute())
        return folder

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The folder of a run that exists.

        Raises:
            RunError: There is no run.
        """
        folder = cls(path)
        if not folder.config.is_file():
            what = "a folder without config.yaml" if folder.path.is_dir() else "no such folder"
            raise RunError(
                f"run: {folder.path} must be the folder of a run; got {what}. "
                "Pass the folder that `graphformer train` named at its end, for instance runs/logp-1."
            )
        return folder

    def discard(self) -> None:
        """Remove the folder of a run that was refused before it learnt anything; one that holds more is left."""
        files = {entry.name for entry in self.path.rglob("*") if entry.is_file()}
        if rank() == 0 and files <= {self.config.name, self.versions.name}:
            shutil.rmtree(self.path)

    def read_config(self) -> TrainConfig:
        """The run's settings.

        Raises:
            RunError: They cannot be read.
        """
        try:
            return read_config(self.config)
        except InputError as error:
            raise RunError(str(error)) from error

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json, which marks the run as finished."""
        write_whole(self.result, lambda path: path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8"))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain values; nothing in it is ever executed.

    Raises:
        RunError: It is missing, damaged, or not a checkpoint of graphformer.
    """
    if not path.is_file():
        raise RunError(
            f"run: {path} must be a checkpoint; got no such file. "
            f"Finish the first epoch: graphformer train --resume {path.parent.parent}."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged file; the error says it
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        complete = {"state_dict", "task", "epoch"} <= checkpoint.keys()
        reason = "a file without the keys of a run"
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes the reader raise
        complete, reason = False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no text'}"
    if not complete:
        raise RunError(
            f"run: {path} must be a whole checkpoint of graphformer; got {reason}. "
            "Use the folder's other checkpoint, or train anew."
        )
    return checkpoint


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that an interruption leaves the old one or the new one, never half a file."""
    write_whole(path, lambda passing: torch.save(checkpoint, passing))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, which then takes its place."""
    passing = path.with_name(path.name + ".part")
    write(passing)
    os.replace(passing, path)


def _claim(path: Path) -> Path:
    if path.exists() and not (path.is_dir() and all(_is_unborn(path, entry) for entry in path.iterdir())):
        raise RunError(
            f"train: folder must be new or empty; got {path}, which holds something. "
            f"Pass another --folder, or continue an interrupted run with --resume {path}."
        )
    path.mkdir(parents=True, exist_ok=True)
    return path


def _is_unborn(path: Path, entry: Path) -> bool:
    """Whether a folder holds this because it was to become a run when its process was killed."""
    run = RunFolder(path)
    if entry == run.best.parent:
        return not any(entry.iterdir())
    return entry in (run.versions, run.config.with_name(run.config.name + ".part"))


def _claim_next(parent: Path, dataset: str) -> Path:
    parent.mkdir(exist_ok=True)
    number = 1
    while True:
        path = parent / f"{dataset}-{number}"
        try:
            path.mkdir()  # atomic: two runs that start together get two folders
        except FileExistsError:
            number += 1
        else:
            return path
