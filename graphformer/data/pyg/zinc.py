"""ZINC-12k: 12,000 molecules and their penalised logP, from the files of Dwivedi et al. (2020).

"Benchmarking graph neural networks"; PyG's `ZINC` with ``subset=True``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch_geometric.data import Data
from torch_geometric.datasets import ZINC

from graphformer.data.measures import mae
from graphformer.data.pyg.files import PARTS, cached, fetch_file, fetch_zip, folder_of, reading, require_files
from graphformer.data.pyg.pickles import read_pickle
from graphformer.data.pyg.sound import require_sound
from graphformer.data.task import Task
from graphformer.graphs.features import Features

NAMES = ("zinc",)
_SPLITS = dict(zip(PARTS, ("train", "val", "test"), strict=True))
_FILES = [f"{split}.{kind}" for split in _SPLITS.values() for kind in ("pickle", "index")]
_FEATURES = Features(node_categories=(28,), edge_categories=(4,))


def load_zinc(name: str, root: Path, download: bool = False) -> Task:
    """ZINC-12k with its split of 10,000, 1,000 and 1,000 molecules: 28 kinds of atom, bonds 1 to 3.

    Args:
        name: "zinc".
        root: Folder that holds ``ZINC/raw``, where the files lie as PyG's `ZINC(root / "ZINC")` wants them.
        download: Fetch the files if they are not there.

    Raises:
        DataError: The files are not there, or cannot be fetched or read.
    """
    folder = folder_of(root, "ZINC")
    require_files(name, folder, _FILES, download, _fetch)
    sources = [folder / "raw" / file for file in _FILES]
    parts = cached(name, folder, sources, lambda: {part: _read(name, folder, part) for part in PARTS})
    return Task(
        name=name,
        level="graph",
        task_type="regression",
        num_tasks=1,
        num_outputs=1,
        metric="mae",
        higher_is_better=False,
        features=_FEATURES,
        measure=mae,
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
    )


def _fetch(raw: Path) -> None:
    fetch_zip(ZINC.url, raw)
    for split in _SPLITS.values():
        fetch_file(ZINC.split_url.format(split), raw / f"{split}.index")


def _read(name: str, folder: Path, part: str) -> list[Data]:
    split = _SPLITS[part]
    index, table = folder / "raw" / f"{split}.index", folder / "raw" / f"{split}.pickle"
    with reading(name, index):
        text = index.read_text()
        if not text.endswith("\n"):
            raise ValueError("its line has no end")
        rows = [int(row) for row in text.split(",")]
    with reading(name, table):
        molecules = read_pickle(table)
        graphs = [_graph(molecules[row]) for row in rows]
        require_sound(graphs, _FEATURES, "graph", 1)
        return graphs


def _graph(molecule: dict[str, Any]) -> Data:
    atoms, bonds, label = (molecule[key].tensor() for key in ("atom_type", "bond_type", "logP_SA_cycle_normalized"))
    edge_index = bonds.nonzero().T.contiguous()
    return Data(
        x=atoms.long().view(-1, 1),
        edge_index=edge_index,
        edge_attr=bonds[edge_index[0], edge_index[1]].long().view(-1, 1),
        y=label.float().view(1, 1),
    )
