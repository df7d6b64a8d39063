"""Peptides-func from its published table: a SMILES and ten labels a row, and the rows of each part.

The table is CC BY-NC 4.0. Its folder is ``peptides-functional``: ``raw/peptide_multi_class_dataset.csv.gz`` and the
split as ``.npz`` or ``.json`` with the rows "train", "val" and "test". The published split is a pickle, which is not
read; it holds the same three lists of rows.
"""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from graphformer._errors import DataError
from graphformer.data.molecule import from_smiles_list, rdkit_module
from graphformer.data.pyg.files import PARTS, Parts, cached, folder_of, reading

_TABLE = "raw/peptide_multi_class_dataset.csv.gz"
_SPLIT = "splits_random_stratified_peptide"
_NUM_LABELS = 10


def find_table(root: Path) -> Path | None:
    """The folder of the table, if there is one below `root`."""
    folder = folder_of(root, "peptides-functional")
    return folder if folder.is_dir() else None


def read_table(name: str, folder: Path) -> Parts:
    """The graphs of the three parts; RDKit reads the SMILES once, then the graphs are kept in ``processed``.

    Raises:
        DataError: The table or the split is not there or cannot be read, or RDKit cannot read a SMILES.
    """
    table, split = folder / _TABLE, _split_file(folder)
    if not table.exists() or split is None:
        missing = _TABLE if split else f"{_SPLIT}.npz (or .json) with the rows train, val and test"
        raise DataError(
            f"load: {name} must lie in {folder.absolute()}; got a folder without {missing}. "
            "Place it there, or remove the folder to use the files of PyG's LRGBDataset."
        )
    rdkit = f"rdkit {rdkit_module('rdBase').rdkitVersion}"

    def make() -> Parts:
        smiles, labels = _read_rows(name, table)
        with reading(name, split):
            rows = _read_split(split, len(smiles))
        bar = tqdm(smiles, desc=f"Reading the SMILES of {name}", unit="molecule", leave=False, dynamic_ncols=True)
        graphs = from_smiles_list(bar, labels).samples
        for graph in graphs:
            del graph.smiles  # tensors alone are kept; the texts stand in the table
        return {part: [graphs[row] for row in rows[part]] for part in PARTS}

    return cached(name, folder, (table, split), make, made_by=rdkit)


def table_smiles(name: str, folder: Path, part: str) -> list[str]:
    """The SMILES of a part's peptides.

    Raises:
        DataError: The table or the split cannot be read.
    """
    smiles, _ = _read_rows(name, folder / _TABLE)
    split = _split_file(folder)
    assert split is not None
    with reading(name, split):
        return [smiles[row] for row in _read_split(split, len(smiles))[part]]


def _split_file(folder: Path) -> Path | None:
    return next((path for end in ("npz", "json") if (path := folder / f"{_SPLIT}.{end}").exists()), None)


def _read_rows(name: str, table: Path) -> tuple[list[str], torch.Tensor]:
    with reading(name, table), gzip.open(table, "rt", newline="", encoding="utf-8") as file:
        rows = [(row["smiles"], json.loads(row["labels"])) for row in csv.DictReader(file)]
        labels = torch.tensor([label for _, label in rows], dtype=torch.float32)
        if labels.dim() != 2 or labels.shape[1] != _NUM_LABELS:
            raise ValueError(f"labels of shape {list(labels.shape)}, not {_NUM_LABELS} a row")
        return [smiles for smiles, _ in rows], labels


def _read_split(path: Path, count: int) -> dict[str, list[int]]:
    with path.open("rb") as file:
        rows = np.load(file) if path.suffix == ".npz" else json.load(file)
        split = {
            part: np.asarray(rows[key]).tolist() for part, key in zip(PARTS, ("train", "val", "test"), strict=True)
        }
    found = sorted(row for part in split.values() for row in part)
    if found != list(range(count)):
        raise ValueError(f"its {len(found)} rows are not the {count} of the table, each once")
    return split
