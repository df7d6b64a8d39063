"""Reading a data set through ogb's loaders: in silence, without trust in its files, and with an error that tells."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Sized
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphformer._checks import refuse, require
from graphformer._errors import DataError, GraphformerError
from graphformer.data._quiet_ogb import ogb_module
from graphformer.data.ogb.download import fetch, what_is_there
from graphformer.data.ogb.layout import PARTS, PROCESSED, Layout

_LOADERS = {
    "graph": "PygGraphPropPredDataset",
    "node": "PygNodePropPredDataset",
    "link": "PygLinkPropPredDataset",
}


class Release(NamedTuple):
    """A data set as ogb gives it.

    Attributes:
        layout: Its name, level and files.
        folder: Where these lie.
        dataset: Ogb's own object.
        split: Ogb's own split: what "train", "valid" and "test" consist of.
    """

    layout: Layout
    folder: Path
    dataset: Any
    split: dict[str, Any]


def open_release(layout: Layout, root: str | os.PathLike[str], download: bool) -> Release:
    """Find the data set below `root`, fetch it if that is wanted, and read it.

    Raises:
        DataError: As :func:`graphformer.data.ogb.load_ogb` says.
    """
    folder = layout.folder(Path(root).expanduser())
    missing = layout.missing(folder)
    if missing:
        if not download:
            refuse(
                "load",
                layout.name,
                f"lie in {folder.absolute()}",
                what_is_there(folder, missing),
                "Pass --root (root=) with the folder that holds it, or --download (download=True) to fetch it.",
                DataError,
            )
        fetch(layout, folder, lambda at: _loaded(layout, at))
    return _read(layout, folder)


def require_ids(ids: Tensor, count: int, name: str, what: str) -> None:
    """Refuse a table whose ids name none of the `count` things that the other tables hold.

    Raises:
        DataError: An id is negative, or `count` or more.

    Example:
        >>> require_ids(torch.tensor([0, 7]), 5, "ogbn-arxiv", "the split's node ids")
        Traceback (most recent call last):
        ...
        graphformer._errors.DataError: load: ogbn-arxiv's files must agree: the split's node ids lie in [0, 5); got ids
        from 0 to 7. Remove the data set's folder and fetch it anew.
    """
    if ids.numel() == 0:
        return
    low, high = int(ids.min()), int(ids.max())
    _require_agreement(low >= 0 and high < count, name, f"{what} lie in [0, {count})", f"ids from {low} to {high}")


def require_rows(table: Sized | None, count: int, name: str, what: str) -> None:
    """Refuse a table that has not one row for each of the `count` things that it describes.

    Raises:
        DataError: The table is shorter or longer.

    Example:
        >>> require_rows(torch.zeros(3, 8), 4, "ogbn-arxiv", "node features")
        Traceback (most recent call last):
        ...
        graphformer._errors.DataError: load: ogbn-arxiv's files must agree: there are 4 rows of node features; got 3.
        Remove the data set's folder and fetch it anew.
    """
    if table is not None:
        _require_agreement(len(table) == count, name, f"there are {count} rows of {what}", len(table))


def require_whole(graph: Data, name: str) -> None:
    """Refuse a graph whose tables do not fit each other: ogb cuts them out by count and does not look.

    Raises:
        DataError: Nodes or edges have too few rows of features, or an edge ends at no node.
    """
    num_nodes = int(graph.num_nodes or 0)
    require_rows(graph.get("x"), num_nodes, name, "node features")
    require_rows(graph.get("edge_attr"), graph.edge_index.size(1), name, "edge features")
    require_ids(graph.edge_index, num_nodes, name, "the edges' node ids")


def labels_of(release: Release, y: Tensor) -> Tensor:
    """Ogb's labels as :class:`~graphformer.data.Task` says: classes with -1 where ogb has NaN, anything else as float.

    Raises:
        DataError: There is no such class.
    """
    if release.dataset.task_type != "multiclass classification":
        return y.float()
    y = torch.where(y.isnan(), -1, y).long()
    require_ids(y[y != -1], release.dataset.num_classes, release.layout.name, "the classes")
    return y


def _require_agreement(holds: bool, name: str, rule: str, got: object) -> None:
    remedy = "Remove the data set's folder and fetch it anew."
    require(holds, "load", f"{name}'s files", f"agree: {rule}", got, remedy, DataError)


def _read(layout: Layout, folder: Path) -> Release:
    if not os.access(folder, os.W_OK) and not (folder / PROCESSED).exists():
        remedy = "ogb writes its processed graphs there: copy the data set to a folder of your own."
        refuse("load", str(folder.absolute()), "be writable", "a read-only folder", remedy, DataError)
    with readable(layout, folder), _silence():
        for note in ("pre_transform.pt", "pre_filter.pt"):  # PyG would read these two with trust
            if (folder / "processed" / note).exists():
                torch.load(folder / "processed" / note, weights_only=True)
        dataset = _loaded(layout, folder.parent)
    with readable(layout, folder, (folder / layout.split_dict).parent), _silence():
        split = dataset.get_edge_split() if layout.level == "link" else dataset.get_idx_split()
        split = ogb_module("ogb.utils.torch_util").replace_numpy_with_torchtensor(split)
        return Release(layout, folder, dataset, {part: split[part] for part in PARTS})


@contextmanager
def readable(layout: Layout, folder: Path, where: Path | None = None) -> Iterator[None]:
    """Tell what was read where a file turns out to be damaged.

    Args:
        layout: The data set.
        folder: Where it lies.
        where: The part of it that is read, of which nothing is kept processed. Default: the graphs.

    Raises:
        DataError: Whatever is raised that is no error of ours.
    """
    try:
        yield
    except GraphformerError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes ogb, pandas or torch raise
        remedy = "Fetch the data anew."
        if where is None:
            where = folder / (PROCESSED if (folder / PROCESSED).exists() else "raw")
            remedy = f"Remove {folder / 'processed'} and try again; if that fails, fetch the data anew."
        raise DataError(
            f"load: {layout.name}'s files must be readable; got {type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]} while reading {where}. {remedy}"
        ) from error


def _loaded(layout: Layout, root: Path) -> Any:
    _register_safe_classes()
    return getattr(layout.package, _LOADERS[layout.level])(layout.name, root=str(root))


@contextmanager
def _silence() -> Iterator[None]:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _register_safe_classes() -> None:
    """Let torch.load(weights_only=True) read what ogb's files hold beside tensors, and no other class.

    These are PyG's data in the processed file, and numpy's arrays in the splits of links, which the releases wrote with
    a numpy whose modules had other names. For good, not for a while: PyG registers its classes for itself, and torch's
    passing context would take them away from it again.
    """
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    rebuild: Any = numpy.zeros(0).__reduce__()[0]
    kinds = {type(numpy.dtype(kind)) for kind in ("int32", "int64", "float32", "float64")}
    names = [(rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    torch.serialization.add_safe_globals(
        [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage, numpy.ndarray, numpy.dtype, *kinds, *names]
    )
