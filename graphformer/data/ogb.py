"""OGB's molecule property data sets, read by ogb's own loader and measured by ogb's own evaluator.

Whatever ogb would ask or fetch is settled before it is called: the files are looked for first, so ogb never asks on
standard input, and it downloads only where the caller said so, into a folder of its own that is moved into place
when it is whole.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphformer._errors import DataError
from graphformer.data._quiet_ogb import ogb_module
from graphformer.data.molecule import molecule_features
from graphformer.data.task import Task

NAMES = tuple(
    f"ogbg-mol{short}"
    for short in [
        "bace",
        "bbbp",
        "chembl",
        "clintox",
        "esol",
        "freesolv",
        "hiv",
        "lipo",
        "muv",
        "pcba",
        "sider",
        "tox21",
        "toxcast",
    ]
)
_RELEASE = "RELEASE_v1.txt"
_RAW = tuple(
    f"raw/{part}.csv.gz" for part in ("edge", "node-feat", "edge-feat", "num-node-list", "num-edge-list", "graph-label")
)
_PROCESSED = "processed/geometric_data_processed.pt"
_SPLIT = tuple(f"split/scaffold/{part}.csv.gz" for part in ("train", "valid", "test"))
_DOWNLOAD_TIMEOUT_S = 60.0


def load_ogb(name: str, root: str | os.PathLike[str], download: bool = False) -> Task:
    """An OGB molecule data set with its official scaffold split and evaluator.

    Args:
        name: One of :data:`NAMES`.
        root: Folder that holds (or shall hold) the data set's own folder, ``ogbg_molesol`` for "ogbg-molesol". ogb
            writes a ``processed`` folder into it on the first use.
        download: Fetch the data if they are not there. False (default) raises instead.

    Raises:
        DataError: The files are not there (or not all of them) and `download` is False; the download failed; the
            files cannot be read; the folder cannot be written.
    """
    folder = _find(name, Path(root).expanduser())
    missing = _missing(folder)
    if missing:
        if not download:
            raise DataError(
                f"load: {name} must lie in {folder.absolute()}; got {_what_is_there(folder, missing)}. "
                "Pass --root (root=) with the folder that holds it, or --download (download=True) to fetch it."
            )
        _download(name, folder)
    dataset, split = _read(name, folder)
    parts = {part: [_with_float_labels(dataset[int(i)]) for i in split[part]] for part in ("train", "valid", "test")}
    return Task(
        name=name,
        level="graph",
        task_type=dataset.task_type,
        num_tasks=dataset.num_tasks,
        num_outputs=dataset.num_tasks,
        metric=dataset.eval_metric,
        higher_is_better=dataset.eval_metric != "rmse",
        features=molecule_features(),
        measure=_official_measure(name),
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
    )


def _official_measure(name: str) -> Callable[[Tensor, Tensor], float]:
    evaluator = ogb_module("ogb.graphproppred").Evaluator(name)
    metric = evaluator.eval_metric

    def measure(y_true: Tensor, y_pred: Tensor) -> float:
        try:
            return float(evaluator.eval({"y_true": y_true, "y_pred": y_pred})[metric])
        except (RuntimeError, ValueError) as error:  # labels that are all alike, predictions that are NaN
            raise DataError(
                f"evaluate: {name}'s labels and predictions must have a {metric}; got {error} "
                "Check for NaN predictions and for labels of one class."
            ) from error

    return measure


def _find(name: str, root: Path) -> Path:
    """The folder that ogb will use: older releases put ``_pyg`` behind the name."""
    folder = root / name.replace("-", "_")
    older = root / f"{folder.name}_pyg"
    return older if older.exists() else folder


def _missing(folder: Path) -> list[str]:
    # ogb downloads where a raw file is missing, even if the processed graphs are there.
    needed = [_RELEASE, *_RAW]
    if not (folder / "split/scaffold/split_dict.pt").exists():
        needed += _SPLIT
    return [part for part in needed if not (folder / part).exists()]


def _what_is_there(folder: Path, missing: list[str]) -> str:
    return f"a folder without {', '.join(missing)}" if folder.is_dir() else "no such folder"


def _with_float_labels(data: Data) -> Data:
    data.y = data.y.float()
    return data


def _read(name: str, folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """Ogb's data set and its split; what ogb prints meanwhile goes nowhere."""
    if not os.access(folder, os.W_OK) and not (folder / _PROCESSED).exists():
        raise DataError(
            f"load: {folder.absolute()} must be writable; got a read-only folder. "
            "ogb writes its processed graphs there: copy the data set to a folder of your own."
        )
    loader = ogb_module("ogb.graphproppred").PygGraphPropPredDataset
    _register_safe_classes()
    try:
        for note in ("pre_transform.pt", "pre_filter.pt"):  # PyG would read these two with trust
            if (folder / "processed" / note).exists():
                torch.load(folder / "processed" / note, weights_only=True)
        with _silence():
            dataset = loader(name, root=str(folder.parent))
            return dataset, dataset.get_idx_split()
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes ogb, pandas or torch raise
        where = folder / (_PROCESSED if (folder / _PROCESSED).exists() else "raw")
        raise DataError(
            f"load: {name}'s files must be readable; got {type(error).__name__}: {' '.join(str(error).split())[:200]} "
            f"while reading {where}. Remove {folder / 'processed'} and try again; if that fails, fetch the data anew."
        ) from error


@contextmanager
def _silence() -> Iterator[None]:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _register_safe_classes() -> None:
    """Let torch.load(weights_only=True) read what ogb's processed file holds beside tensors, and no other class.

    For good, not for a while: PyG registers the same classes for itself, and torch's passing context would take them
    away from it again.
    """
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    torch.serialization.add_safe_globals([Data, DataEdgeAttr, DataTensorAttr, GlobalStorage])


def _download(name: str, folder: Path) -> None:
    """Let ogb fetch the data set into a folder beside `folder`, and move it there when it is whole."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"load: {folder.absolute()} must be whole or absent to download {name}; "
            f"got {_what_is_there(folder, _missing(folder))}. Remove the folder and try again."
        )
    made = [parent for parent in (folder.parent, *folder.parent.parents) if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as passing, _ask_nothing():
            _fetch_and_process(name, passing)
            if folder.exists():
                folder.rmdir()
            shutil.move(Path(passing) / folder.name, folder)
    except BaseException as error:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        if not isinstance(error, (OSError, EOFError, BadZipFile, RuntimeError)):
            raise
        raise DataError(
            f"load: {name} must be downloadable; got {type(error).__name__}: {error}. "
            f"Check the network, or place the data set in {folder.absolute()} by hand."
        ) from error


def _fetch_and_process(name: str, root: str) -> None:
    _register_safe_classes()
    with redirect_stdout(io.StringIO()):  # the bar of the download is on stderr
        ogb_module("ogb.graphproppred").PygGraphPropPredDataset(name, root=root)


@contextmanager
def _ask_nothing() -> Iterator[None]:
    """An empty standard input, and a bound on how long a silent server is waited for."""
    stdin, timeout = sys.stdin, socket.getdefaulttimeout()
    sys.stdin = io.StringIO()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)
    try:
        yield
    finally:
        sys.stdin = stdin
        socket.setdefaulttimeout(timeout)
