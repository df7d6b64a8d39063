"""Data sets that PyG offers, in the places where PyG's own classes look for them, read without trust in the files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from graphformer.data.pyg import lrgb, planetoid, tudataset, zinc
from graphformer.data.task import Task

NAMES = (*planetoid.NAMES, *zinc.NAMES, *lrgb.NAMES, *tudataset.NAMES)
_LOADERS = {
    planetoid.NAMES: planetoid.load_planetoid,
    zinc.NAMES: zinc.load_zinc,
    lrgb.NAMES: lrgb.load_lrgb,
}


def is_known(name: str) -> bool:
    """Whether :func:`load_pyg` takes the name: one of :data:`NAMES`, or any set of the TUDataset collection.

    Example:
        >>> is_known("cora"), is_known("tu-deezer_ego_nets"), is_known("ogbg-molhiv")
        (True, True, False)
    """
    return name in NAMES or re.fullmatch(rf"{tudataset.PREFIX}[\w-]+", str(name)) is not None


def load_pyg(name: str, root: str | os.PathLike[str], download: bool = False) -> Task:
    """A data set of PyG with its split and its measure.

    Args:
        name: A name that :func:`is_known`.
        root: Folder that holds the set's own folder, such as ``Cora``, ``MUTAG``, ``ZINC`` or ``pascalvoc-sp``, with
            ``raw`` in it. What takes long to read is kept beside that in ``processed/graphformer.pt``.
        download: Fetch the files if they are not there. False (default) raises instead.

    Raises:
        DataError: The files are not there, or cannot be fetched or read.
    """
    for names, loader in _LOADERS.items():
        if name in names:
            return loader(name, Path(root).expanduser(), download)
    return tudataset.load_tu(name, Path(root).expanduser(), download)
