"""Sets of the TUDataset collection (Morris et al. 2020) from their text files."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch_geometric.data import Data
from torch_geometric.datasets import TUDataset
from torch_geometric.utils import coalesce, remove_self_loops

from graphformer.data.measures import accuracy, mae
from graphformer.data.pyg.files import Parts, fetch_zip, folder_of, reading, require_files
from graphformer.data.pyg.standardize import standardize
from graphformer.data.task import Task
from graphformer.graphs.features import Features

PREFIX = "tu-"
# Names of the collection that are looked for most; any other works as well, written as its folder is.
_KNOWN = (
    *("AIDS", "COLLAB", "DD", "ENZYMES", "FRANKENSTEIN", "IMDB-BINARY", "IMDB-MULTI", "MUTAG", "Mutagenicity"),
    *("NCI1", "NCI109", "PROTEINS", "PTC_MR", "REDDIT-BINARY", "REDDIT-MULTI-5K", "REDDIT-MULTI-12K", "Synthie"),
)
NAMES = tuple(f"{PREFIX}{name.lower()}" for name in _KNOWN)
_NUM_FOLDS = 10


def load_tu(name: str, root: Path, download: bool = False) -> Task:
    """A set of the TUDataset collection: classes of graphs, or numbers where the set has those.

    The collection has no official split. Here the graphs are shuffled by a fixed draw, each class is dealt out to ten
    folds in turn, the first fold tests, the second validates and the other eight train; always the same ones.

    Nodes carry their attributes, at mean 0 and deviation 1 over the training graphs, followed by their labels one-hot,
    and edges the same. Loops and repeated edges are gone, as in PyG's `TUDataset`.

    Args:
        name: "tu-" and the name of the set, in any case: "tu-mutag".
        root: Folder that holds ``MUTAG/raw``.
        download: Fetch the files if they are not there.

    Raises:
        DataError: The files are not there, or cannot be fetched or read.
    """
    written = name.removeprefix(PREFIX)
    written = next((known for known in _KNOWN if known.lower() == written.lower()), written)
    folder = folder_of(root, written)
    prefix = folder.name
    files = [f"{prefix}_A.txt", f"{prefix}_graph_indicator.txt"]
    require_files(name, folder, files, download, partial(fetch_zip, f"{TUDataset.url}/{prefix}.zip"))
    with reading(name, folder / "raw", "Fetch the files anew."):
        tables = _Tables(folder / "raw", prefix)
        parts, classes = _parts(tables)
    standardize(parts, "x", tables.node_attributes.shape[1])
    standardize(parts, "edge_attr", tables.edge_attributes.shape[1])
    num_tasks = 1 if classes else parts["train"][0].y.shape[1]
    return Task(
        name=name,
        level="graph",
        task_type="multiclass classification" if classes else "regression",
        num_tasks=num_tasks,
        num_outputs=classes or num_tasks,
        metric="acc" if classes else "mae",
        higher_is_better=classes > 0,
        features=Features(node_channels=tables.node_numbers.shape[1], edge_channels=tables.edge_numbers.shape[1]),
        measure=accuracy if classes else mae,
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
    )


class _Tables:
    """The text files of one set as tensors, over all its graphs."""

    def __init__(self, raw: Path, prefix: str) -> None:
        self.raw, self.prefix = raw, prefix
        self.graph = self._read("graph_indicator", np.int64)[:, 0] - 1
        self.num_graphs = int(self.graph[-1]) + 1
        edges = self._read("A", np.int64)
        source, target = edges.T if len(edges) else edges.new_zeros(2, 0)
        self.edge_index = torch.stack([source, target]) - 1
        self._require_whole()
        num_nodes, num_edges = len(self.graph), self.edge_index.shape[1]
        self.node_attributes = self._numbers("node_attributes", num_nodes)
        self.edge_attributes = self._numbers("edge_attributes", num_edges)
        self.node_numbers = torch.cat([self.node_attributes, self._one_hot("node_labels", num_nodes)], dim=1)
        edge_numbers = torch.cat([self.edge_attributes, self._one_hot("edge_labels", num_edges)], dim=1)
        kept, edge_numbers = remove_self_loops(self.edge_index, edge_numbers)
        self.edge_index, self.edge_numbers = coalesce(kept, edge_numbers, num_nodes)

    def labels(self) -> tuple[Tensor, int]:
        """One row a graph, and the number of classes; 0 where the labels are numbers."""
        if self._has("graph_attributes"):
            return self._numbers("graph_attributes", self.num_graphs), 0
        labels = self._rows(self._read("graph_labels", np.int64), "graph_labels", self.num_graphs)
        if labels.shape[1] != 1:
            raise ValueError(f"graph_labels has {labels.shape[1]} columns; one label a graph can be learned")
        classes, label = labels.unique(return_inverse=True)
        return label, len(classes)

    def _require_whole(self) -> None:
        steps = self.graph.diff()
        if self.graph[0] != 0 or not ((steps == 0) | (steps == 1)).all():
            raise ValueError("graph_indicator does not number the graphs 1, 2, 3, ...")
        if not ((self.edge_index >= 0) & (self.edge_index < len(self.graph))).all():
            raise ValueError(f"A has an edge that ends at none of the {len(self.graph)} nodes")
        ends = self.graph[self.edge_index]
        if not torch.equal(ends[0], ends[1]):
            raise ValueError("A has an edge between two graphs")

    def _has(self, table: str) -> bool:
        return (self.raw / f"{self.prefix}_{table}.txt").exists()

    def _read(self, table: str, kind: type) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")
            path = self.raw / f"{self.prefix}_{table}.txt"
            return torch.from_numpy(np.loadtxt(path, kind, delimiter=",", ndmin=2))

    def _rows(self, values: Tensor, table: str, count: int) -> Tensor:
        if len(values) != count:
            raise ValueError(f"{table} has {len(values)} rows, not {count}")
        return values

    def _numbers(self, table: str, count: int) -> Tensor:
        if not self._has(table):
            return torch.zeros(count, 0)
        return self._rows(self._read(table, np.float32), table, count)

    def _one_hot(self, table: str, count: int) -> Tensor:
        if not self._has(table):
            return torch.zeros(count, 0)
        labels = self._rows(self._read(table, np.int64), table, count)
        return torch.cat([one_hot(column - column.min()).float() for column in labels.T], dim=1)


def _parts(tables: _Tables) -> tuple[Parts, int]:
    labels, num_classes = tables.labels()
    sizes = tables.graph.bincount(minlength=tables.num_graphs)
    first_node = sizes.cumsum(0) - sizes
    edge_sizes = tables.graph[tables.edge_index[0]].bincount(minlength=tables.num_graphs).tolist()
    columns = (
        tables.node_numbers.split(sizes.tolist()),
        tables.edge_index.split(edge_sizes, dim=1),
        tables.edge_numbers.split(edge_sizes),
    )
    graphs = []
    for i, (x, edge_index, edge_attr) in enumerate(zip(*columns, strict=True)):
        graph = Data(edge_index=edge_index - first_node[i], y=labels[i : i + 1])
        if x.shape[1]:
            graph.x = x
        else:
            graph.num_nodes = len(x)
        if edge_attr.shape[1]:
            graph.edge_attr = edge_attr
        graphs.append(graph)
    if len(graphs) < _NUM_FOLDS:
        raise ValueError(f"{len(graphs)} graphs cannot be dealt out to {_NUM_FOLDS} folds")
    folds = fold_of(labels[:, 0] if num_classes else torch.zeros(len(graphs), dtype=torch.int64))
    parts: Parts = {"train": [], "valid": [], "test": []}
    for graph, fold in zip(graphs, folds.tolist(), strict=True):
        parts[{0: "test", 1: "valid"}.get(fold, "train")].append(graph)
    return parts, num_classes


def fold_of(label: Tensor) -> Tensor:
    """The fold of each graph, 0 to 9: graphs in a fixed random order are dealt out in turn, class after class.

    Args:
        label: Class of each graph, shape `[graphs]` int64.

    Example:
        >>> fold_of(torch.tensor([0, 1] * 20)).bincount().tolist()
        [4, 4, 4, 4, 4, 4, 4, 4, 4, 4]
    """
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(label)))  # noqa: NPY002 - a stream that numpy keeps as it is
    order = order[label[order].sort(stable=True).indices]
    fold = torch.empty_like(label)
    fold[order] = torch.arange(len(label)) % _NUM_FOLDS
    return fold
