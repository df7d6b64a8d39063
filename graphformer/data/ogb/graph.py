"""ogbg-mol* and ogbg-ppa: a label, or several, for each graph."""

from __future__ import annotations

import csv
import gzip
from functools import partial
from typing import Any

from torch import Tensor
from torch_geometric.data import Data

from graphformer._checks import refuse
from graphformer._errors import DataError
from graphformer.data.molecule import molecule_features
from graphformer.data.ogb.measures import as_they_are, chosen_class, official_measure
from graphformer.data.ogb.reading import Release, labels_of, require_ids, require_rows, require_whole
from graphformer.data.task import Task
from graphformer.graphs.features import Features

_TABLE = "mapping/mol.csv.gz"  # a column for each label, then these two
_NO_LABELS = ("smiles", "mol_id")
_PPA = Features(edge_channels=7)  # a protein carries nothing, an association seven strengths


def load_graphs(release: Release) -> Task:
    """The molecules of ogbg-mol*, with float labels and NaN where one is missing, or the associations of ogbg-ppa."""
    layout, dataset = release.layout, release.dataset
    multiclass = dataset.task_type == "multiclass classification"
    features = _PPA if layout.name == "ogbg-ppa" else molecule_features()
    y = labels_of(release, dataset._data.y)
    is_molecule = layout.name.startswith("ogbg-mol")
    parts = {
        part: [_graph(dataset, i, y, features) for i in split_ids(release, part).tolist()] for part in release.split
    }
    return Task(
        name=layout.name,
        level="graph",
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        task_type=dataset.task_type,
        num_tasks=dataset.num_tasks,
        num_outputs=dataset.num_classes if multiclass else dataset.num_tasks,
        metric=dataset.eval_metric,
        higher_is_better=dataset.eval_metric != "rmse",
        features=features,
        measure=official_measure(layout, chosen_class if multiclass else as_they_are),
        smiles=partial(_smiles, release) if is_molecule else None,
        task_names=_task_names(release) if is_molecule else (),
    )


def split_ids(release: Release, part: str) -> Tensor:
    """The ids of a part's graphs.

    Raises:
        DataError: There is no graph of such an id.
    """
    ids = release.split[part]
    require_ids(ids, len(release.dataset), release.layout.name, "the split's graph ids")
    return ids


def _smiles(release: Release, part: str) -> list[str]:
    """The SMILES of a part's molecules, from the table that OGB gives beside the graphs.

    Raises:
        DataError: The table is not there, cannot be read or has not one row for each graph.
    """
    table = release.folder / _TABLE
    try:
        with gzip.open(table, "rt", newline="", encoding="utf-8") as file:
            smiles = [row["smiles"] for row in csv.DictReader(file)]
    except Exception as error:  # noqa: BLE001 - whatever a missing or damaged file makes gzip or csv raise
        got, remedy = f"{type(error).__name__}: {error}", "OGB's archive of the data set holds it: fetch it anew."
        refuse("load", str(table), "be a readable table with a column smiles", got, remedy, DataError)
    require_rows(smiles, len(release.dataset), release.layout.name, "SMILES")
    return [smiles[row] for row in split_ids(release, part).tolist()]


def _task_names(release: Release) -> tuple[str, ...]:
    """The names of the labels, from the header of the table; none where it does not tell one for each."""
    try:
        with gzip.open(release.folder / _TABLE, "rt", newline="", encoding="utf-8") as file:
            header = next(csv.reader(file), [])
    except Exception:  # noqa: BLE001 - names are welcome but not needed; who needs the table is told by `_smiles`
        return ()
    names = tuple(" ".join(name.split()) for name in header if name not in _NO_LABELS)
    return names if len(names) == release.dataset.num_tasks else ()


def _graph(dataset: Any, i: int, y: Tensor, features: Features) -> Data:
    graph = dataset[i]
    require_whole(graph, dataset.name)
    graph.y = y[i : i + 1]
    if features.edge_channels:
        graph.edge_attr = graph.edge_attr.float()
    return graph
