"""Sets of the Long Range Graph Benchmark (Dwivedi et al. 2022) from the files of PyG's `LRGBDataset`.

Their numbers are brought to mean 0 and deviation 1, which models of superpixels need: Tonshoff, Ritzert, Rosenbluth
and Grohe, "Where did the gap go? Reassessing the Long-Range Graph Benchmark" (2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.datasets import LRGBDataset

from graphformer.data.measures import average_precision, macro_f1, mae
from graphformer.data.molecule import molecule_features
from graphformer.data.pyg.files import PARTS, Parts, cached, fetch_zip, folder_of, reading, require_files
from graphformer.data.pyg.peptides import find_table, read_table, table_smiles
from graphformer.data.pyg.pickles import StoredArray, StoredTensor, read_pickle
from graphformer.data.pyg.sound import require_sound
from graphformer.data.pyg.standardize import standardize
from graphformer.data.task import Level, Task, TaskType
from graphformer.graphs.features import Features

_SPLITS = dict(zip(PARTS, ("train", "val", "test"), strict=True))
# COCO's 80 kinds of thing have numbers up to 90; 0 is the background.
_COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
_COCO = [number for number in range(91) if number not in _COCO_GAPS]
_SUPERPIXELS = Features(node_channels=14, edge_channels=2)


@dataclass(frozen=True)
class _Kind:
    level: Level
    task_type: TaskType
    num_tasks: int
    num_outputs: int
    metric: str
    higher_is_better: bool
    measure: Callable[[Tensor, Tensor], float]


_KINDS = {
    "pascalvoc-sp": _Kind("node", "multiclass classification", 1, 21, "F1", True, macro_f1),
    "coco-sp": _Kind("node", "multiclass classification", 1, len(_COCO), "F1", True, macro_f1),
    "peptides-func": _Kind("graph", "binary classification", 10, 10, "ap", True, average_precision),
    "peptides-struct": _Kind("graph", "regression", 11, 11, "mae", False, mae),
}
NAMES = tuple(_KINDS)


def load_lrgb(name: str, root: Path, download: bool = False) -> Task:
    """A set of the Long Range Graph Benchmark with its split and measure.

    "pascalvoc-sp" and "coco-sp": superpixels of photographs; the thing that each shows; macro F1. "peptides-func":
    ten functions of peptides; AP. "peptides-struct": eleven numbers of their shape, mean 0 and deviation 1; MAE.

    Args:
        name: One of :data:`NAMES`.
        root: Folder that holds ``pascalvoc-sp/raw`` and its like. "peptides-func" is also read from
            ``peptides-functional``, which holds the published table of SMILES and a split.
        download: Fetch the files if they are not there.

    Raises:
        DataError: The files are not there, or cannot be fetched or read.
    """
    kind = _KINDS[name]
    is_peptide = name.startswith("peptides")
    features = molecule_features() if is_peptide else _SUPERPIXELS
    table = find_table(root) if name == "peptides-func" and not (folder_of(root, name) / "raw").exists() else None
    parts = read_table(name, table) if table else _from_pyg_files(name, root, download, is_peptide, features)
    return Task(
        name=name,
        features=features,
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        smiles=partial(table_smiles, name, table) if table else None,
        **vars(kind),
    )


def _from_pyg_files(name: str, root: Path, download: bool, is_peptide: bool, features: Features) -> Parts:
    folder = folder_of(root, name)
    files = {part: f"{split}.{'pt' if is_peptide else 'pickle'}" for part, split in _SPLITS.items()}
    require_files(name, folder, files.values(), download, partial(fetch_zip, LRGBDataset.urls[name]))
    sources = {part: folder / "raw" / file for part, file in files.items()}

    def make() -> Parts:
        parts = {part: _read(name, source, is_peptide, features) for part, source in sources.items()}
        if not is_peptide:
            standardize(parts, "x", features.node_channels)
            standardize(parts, "edge_attr", features.edge_channels)
        return parts

    return cached(name, folder, sources.values(), make)


def _read(name: str, source: Path, is_peptide: bool, features: Features) -> list[Data]:
    with reading(name, source):
        if is_peptide:
            rows = torch.load(source, weights_only=True)
            graphs = [Data(x=x, edge_index=edges, edge_attr=attr, y=y.float()) for x, attr, edges, y in rows]
            require_sound(graphs, features, "graph", _KINDS[name].num_tasks)
        else:
            graphs = [_superpixels(name, row) for row in read_pickle(source)]
            require_sound(graphs, features, "node", 1, _KINDS[name].num_outputs)
        return graphs


def _superpixels(name: str, row: tuple[Any, Any, Any, Any]) -> Data:
    x, edge_attr, edge_index, y = (_tensor(values) for values in row)
    if name == "coco-sp":
        places = torch.full((91,), -1)
        places[_COCO] = torch.arange(len(_COCO))
        y = places[y]
    return Data(x=x.float(), edge_index=edge_index.long(), edge_attr=edge_attr.float(), y=y.long().view(-1, 1))


def _tensor(values: Any) -> Tensor:
    if isinstance(values, StoredTensor):
        return values.tensor()
    if isinstance(values, StoredArray):
        return torch.from_numpy(values.array())
    return torch.from_numpy(np.array([value.array() if isinstance(value, StoredArray) else value for value in values]))
