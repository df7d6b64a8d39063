"""Cora, CiteSeer and PubMed with their public split, from the files of Yang, Cohen and Salakhutdinov (2016).

"Revisiting semi-supervised learning with graph embeddings": ``ind.cora.x`` and its seven companions.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.datasets import Planetoid
from torch_geometric.transforms import NormalizeFeatures
from torch_geometric.utils import coalesce, remove_self_loops

from graphformer.data.measures import accuracy
from graphformer.data.pyg.files import fetch_file, folder_of, reading, require_files
from graphformer.data.pyg.pickles import read_pickle
from graphformer.data.task import Task
from graphformer.graphs.features import Features

_FOLDERS = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}
NAMES = tuple(_FOLDERS)
_TABLES = ("x", "tx", "allx", "y", "ty", "ally")
_NUM_VALID = 500


def load_planetoid(name: str, root: Path, download: bool = False) -> Task:
    """A citation graph with the public split: 20 nodes a class train, 500 validate, 1,000 test.

    Features are the words of a paper, each row divided by its sum; direction and duplicates of citations and loops
    are as PyG's `Planetoid` leaves them.

    Args:
        name: "cora", "citeseer" or "pubmed".
        root: Folder that holds ``Cora/raw``.
        download: Fetch the files if they are not there.

    Raises:
        DataError: The files are not there, or cannot be fetched or read.
    """
    folder = folder_of(root, _FOLDERS[name])
    files = [f"ind.{name}.{part}" for part in (*_TABLES, "graph", "test.index")]
    require_files(name, folder, files, download, partial(_fetch, files))
    with reading(name, folder / "raw", "Fetch the files anew."):
        graph, labels, split, num_classes = _read(folder / "raw", name)
    return Task(
        name=name,
        level="node",
        task_type="multiclass classification",
        num_tasks=1,
        num_outputs=num_classes,
        metric="acc",
        higher_is_better=True,
        features=Features(node_channels=graph.num_features),
        measure=accuracy,
        train=[_asked(graph, labels, split["train"])],
        valid=[_asked(graph, labels, split["valid"])],
        test=[_asked(graph, labels, split["test"])],
    )


def _fetch(files: list[str], raw: Path) -> None:
    for file in files:
        fetch_file(f"{Planetoid.url}/{file}", raw / file)


def _asked(graph: Data, labels: Tensor, nodes: Tensor) -> Data:
    return Data(x=graph.x, edge_index=graph.edge_index, y=labels[nodes, None], target_index=nodes)


def _read(raw: Path, name: str) -> tuple[Data, Tensor, dict[str, Tensor], int]:
    x, tx, allx, y, ty, ally = (read_pickle(raw / f"ind.{name}.{table}").array() for table in _TABLES)
    test = np.loadtxt(raw / f"ind.{name}.test.index", dtype=np.int64, ndmin=1)
    num_nodes = int(test.max()) + 1
    words, classes = np.zeros((num_nodes, x.shape[1]), np.float32), np.zeros((num_nodes, y.shape[1]))
    # Row k of tx is node test[k]. CiteSeer's isolated nodes are in no table: no words, and the first class.
    for rows, known, tested in ((words, allx, tx), (classes, ally, ty)):
        rows[: len(known)] = known
        rows[test] = tested
    if len(y) + _NUM_VALID > len(ally):
        raise ValueError(f"{len(ally)} nodes beside the test nodes leave no {_NUM_VALID} to validate")
    graph = NormalizeFeatures()(Data(x=torch.from_numpy(words), edge_index=_edges(raw, name, num_nodes)))
    split = {
        "train": torch.arange(len(y)),
        "valid": torch.arange(len(y), len(y) + _NUM_VALID),
        "test": torch.from_numpy(np.sort(test)),
    }
    return graph, torch.from_numpy(classes).argmax(1), split, classes.shape[1]


def _edges(raw: Path, name: str, num_nodes: int) -> Tensor:
    neighbours = read_pickle(raw / f"ind.{name}.graph")
    source = np.repeat(list(neighbours), [len(ends) for ends in neighbours.values()])
    target = np.concatenate([np.asarray(ends, np.int64) for ends in neighbours.values()])
    edge_index = torch.from_numpy(np.stack([source, target]))
    if edge_index.min() < 0 or edge_index.max() >= num_nodes:
        raise ValueError(f"an edge ends at node {int(edge_index.max())} of {num_nodes}")
    return coalesce(remove_self_loops(edge_index)[0], num_nodes=num_nodes, sort_by_row=False)
