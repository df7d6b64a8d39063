"""Data: molecules as node sets, and data sets of graphs, nodes and links with one face."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from graphformer.data.task import Task

__all__ = ["AddDescriptors", "Task", "from_smiles", "from_smiles_list", "load", "molecule_features", "names"]

_HOME = {
    "AddDescriptors": "descriptors",
    "Task": "task",
    "from_smiles": "molecule",
    "from_smiles_list": "molecule",
    "molecule_features": "molecule",
}


def names() -> list[str]:
    """The data sets that :func:`load` knows.

    Example:
        >>> names()[:3]
        ['logp', 'ogbg-molbace', 'ogbg-molbbbp']
    """
    from graphformer.data import ogb, pyg

    return ["logp", *ogb.NAMES, *pyg.NAMES]


def load(name: str, root: str | os.PathLike[str] = "dataset", download: bool = False) -> Task:
    """A data set with its split and its measure.

    Args:
        name: "logp", the embedded set that is made in memory, a set of OGB such as "ogbg-molesol", "ogbn-arxiv" or
            "ogbl-ddi", or one of PyG: "cora", "citeseer", "pubmed", "zinc", "pascalvoc-sp", "coco-sp", "peptides-func",
            "peptides-struct", and "tu-" with any name of the TUDataset collection, such as "tu-mutag".
        root: Folder of the data sets on disk. Default as ogb's: "dataset". Not used for "logp".
        download: Fetch the data if they are not below `root`. Default False: nothing is ever fetched unasked.

    Raises:
        InputError: No data set of that name; near names are suggested.
        DataError: The data are not there or cannot be read.
        MissingPackageError: ogb or rdkit is not installed.

    Example:
        >>> load("ogbg-molhvi")
        Traceback (most recent call last):
        ...
        graphformer._errors.InputError: load: name must be one of ... names; got 'ogbg-molhvi'. Did you mean ogbg...
    """
    from graphformer._checks import require_choice
    from graphformer.data.pyg import is_known, load_pyg

    if is_known(name):
        return load_pyg(name, root, download)
    require_choice(name, names(), "load", "name")
    if name == "logp":
        from graphformer.data.logp import load_logp

        return load_logp()
    from graphformer.data.ogb import load_ogb

    return load_ogb(name, root, download)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'graphformer.data' has no attribute {name!r}")
    return getattr(import_module(f"graphformer.data.{_HOME[name]}"), name)
