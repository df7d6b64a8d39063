"""Small whole data sets in the layout of OGB's releases, for every name that is loaded: `make_ogb(name, root)`.

What is predicted follows from what the nodes and edges carry, so that a model can learn it, and every split has labels
of both kinds. The files hold tables without a header, for all graphs end to end, and each undirected edge once.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.random import Generator

from graphformer.data import from_smiles
from graphformer.data._quiet_ogb import ogb_module

# Every other molecule has a nitrogen; the last two have no bond.
MOLECULES = [
    *("CCN", "CCO", "CN", "CO", "c1ccncc1", "c1ccccc1", "CC(=O)N", "CC(=O)O", "NCCN", "OCCO", "C1CCNCC1", "C1CCCCC1"),
    *("C#N", "C#C", "CCCN", "CCCO", "NC=O", "OC=O", "CNC", "COC", "c1cc[nH]c1", "c1ccoc1", "N", "C"),
]
NAMES_OF_FUNCTIONS = ["get name", "set name", "get the value of one key", "run", "nan", "get value", "set value", "is"]
_LACKING = ("muv", "pcba", "tox21", "toxcast", "chembl")  # sets with labels that are missing
_PARTS = ("train", "valid", "test")


def make_ogb(name: str, root: Path, seed: int = 0) -> Path:
    """Write a tiny data set `name` below `root`; its folder, which `load(name, root=root)` reads, is returned."""
    rng = numpy.random.default_rng(seed)
    folder = Path(root) / name.replace("-", "_")
    folder.mkdir(parents=True)
    (folder / f"RELEASE_v{2 if name == 'ogbn-mag' else 1}.txt").write_text("made by the tests\n")
    if name.startswith("ogbg-mol"):
        _make_molecules(folder, name, rng)
    else:
        _MAKERS[name](folder, rng)
    return folder


def write_csv(path: Path, rows: Iterable[Any], header: str = "") -> None:
    """Write a gzipped table; a row may be a single value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.write(header and header + "\n")
        for row in rows:
            values = row if isinstance(row, (list, tuple, numpy.ndarray)) else [row]
            file.write(",".join(map(str, values)) + "\n")


def write_pt(path: Path, rows: dict[str, Any], numpy_core: bytes = b"numpy.core.") -> None:
    """Write numpy arrays as torch.save does with a numpy of modules so named; by default the numpy of the releases."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(rows, buffer)
    with zipfile.ZipFile(buffer) as new, zipfile.ZipFile(path, "w") as old:
        for entry in new.infolist():
            old.writestr(entry, re.sub(rb"numpy\._?core\.", numpy_core, new.read(entry)))


def write_graphs(folder: Path, graphs: Sequence[dict[str, Any]], labels: Iterable[Any] | None = None) -> None:
    """Write graphs, each a dict of `num_nodes`, `edge` [e, 2] and further tables; labels by `graph-label`."""
    raw = folder / "raw"
    for table in graphs[0].keys() - {"num_nodes"}:
        write_csv(raw / f"{table}.csv.gz", [row for graph in graphs for row in graph[table]])
    write_csv(raw / "num-node-list.csv.gz", [graph["num_nodes"] for graph in graphs])
    write_csv(raw / "num-edge-list.csv.gz", [len(graph["edge"]) for graph in graphs])
    if labels is not None:
        write_csv(raw / f"{'node' if folder.name.startswith('ogbn') else 'graph'}-label.csv.gz", labels)


def write_split(folder: Path, scheme: str, count: int) -> None:
    """Write the split: of `count` ids in order two thirds train, a sixth validates, a sixth tests."""
    for part, ids in zip(_PARTS, _thirds(count), strict=True):
        write_csv(folder / f"split/{scheme}/{part}.csv.gz", ids)


def _thirds(count: int) -> list[range]:
    marks = [0, count - 2 * (count // 6), count - count // 6, count]
    return [range(low, high) for low, high in zip(marks, marks[1:], strict=False)]


def _make_molecules(folder: Path, name: str, rng: Generator) -> None:
    tasks = ogb_module("ogb.graphproppred").Evaluator(name)
    samples = [from_smiles(text) for text in MOLECULES]
    graphs = [
        {"num_nodes": s.num_nodes, "edge": s.edge_index.T[::2].tolist(), "edge-feat": s.edge_attr[::2].tolist()}
        | {"node-feat": s.x.tolist()}
        for s in samples
    ]
    if tasks.eval_metric == "rmse":
        labels = [[0.5 * s.num_nodes + 0.01 * rng.standard_normal()] for s in samples]
    else:
        labels = [[(row + task) % 2 for task in range(tasks.num_tasks)] for row in range(len(samples))]
    if name.removeprefix("ogbg-mol") in _LACKING:
        for row in labels[1::4]:
            row[0] = "nan"
    write_graphs(folder, graphs, labels)
    header = ",".join([*(f"label {task}" for task in range(len(labels[0]))), "smiles", "mol_id"])
    rows = [(*values, text, row) for row, (values, text) in enumerate(zip(labels, MOLECULES, strict=True))]
    write_csv(folder / "mapping/mol.csv.gz", rows, header)
    write_split(folder, "scaffold", len(graphs))


def _make_associations(folder: Path, rng: Generator) -> None:
    graphs, labels = [], []
    for row in range(24):
        count = int(rng.integers(5, 10))
        edge = _random_pairs(rng, count, 2 * count, numpy.arange(count) % 2)
        strength = rng.uniform(0, 0.2, (len(edge), 7)) + 0.25 * (row % 3)
        graphs.append({"num_nodes": count, "edge": edge, "edge-feat": strength.round(3)})
        labels.append(row % 3)
    write_graphs(folder, graphs, labels)
    write_split(folder, "species", len(graphs))


def _make_functions(folder: Path, rng: Generator) -> None:
    graphs = [_syntax_tree(1 if row == 9 else 30 if row == 8 else 5 + row % 6, row, rng) for row in range(24)]
    labels = [NAMES_OF_FUNCTIONS[row % len(NAMES_OF_FUNCTIONS)] for row in range(22)]
    write_graphs(folder, graphs, [*labels, "never seen", "get unheard"])
    write_split(folder, "project", len(graphs))
    write_csv(folder / "mapping/typeidx2type.csv.gz", [(i, f"kind{i}") for i in range(8)], "type idx,type")
    write_csv(folder / "mapping/attridx2attr.csv.gz", [(i, f"word{i}") for i in range(30)], "attr idx,attr")


def _syntax_tree(count: int, row: int, rng: Generator) -> dict[str, Any]:
    """A tree in depth-first order: a chain where it is large, so that it is deep."""
    parents = [i - 1 if count > 20 else int(rng.integers(0, i)) for i in range(1, count)]
    depth = [0]
    for parent in parents:
        depth.append(depth[parent] + 1)
    return {
        "num_nodes": count,
        "edge": [(parent, i) for i, parent in enumerate(parents, 1)],
        "node-feat": [(row % 8, int(rng.integers(0, 30))) for _ in range(count)],
        "node_is_attributed": [i % 2 for i in range(count)],
        "node_dfs_order": list(range(count)),
        "node_depth": depth,
    }


def _random_pairs(rng: Generator, count: int, tries: int, group: numpy.ndarray) -> numpy.ndarray:
    """Distinct pairs (low, high), four in five of them inside a group; a path through each group is among them."""
    pairs = {
        (low, high)
        for k in set(group)
        for low, high in zip(*(numpy.flatnonzero(group == k)[i:] for i in (0, 1)), strict=False)
    }
    for low, high in rng.integers(0, count, (tries, 2)):
        if low != high and (group[low] == group[high] or rng.random() < 0.2):
            pairs.add((int(min(low, high)), int(max(low, high))))
    return numpy.array(sorted(pairs))


def _vectors(rng: Generator, group: numpy.ndarray, width: int) -> numpy.ndarray:
    """Features around a centre of each group."""
    centres = rng.standard_normal((group.max() + 1, width))
    return (centres[group] + 0.3 * rng.standard_normal((len(group), width))).round(3)


def _make_arxiv(folder: Path, rng: Generator) -> None:
    group = numpy.arange(60) % 4
    graph = {
        "num_nodes": 60,
        "edge": _random_pairs(rng, 60, 200, group)[:, ::-1],
        "node-feat": _vectors(rng, group, 128),
    }
    write_graphs(folder, [graph | {"node_year": 1960 + numpy.arange(60)}], group)
    write_split(folder, "time", 60)


def _make_products(folder: Path, rng: Generator) -> None:
    group = numpy.arange(60) % 5
    graph = {"num_nodes": 60, "edge": _random_pairs(rng, 60, 200, group), "node-feat": _vectors(rng, group, 100)}
    write_graphs(folder, [graph], group)
    write_split(folder, "sales_ranking", 60)


def _make_proteins(folder: Path, rng: Generator) -> None:
    group = numpy.arange(60) % 2
    edge = _random_pairs(rng, 60, 200, group)
    strength = (0.4 * group[edge].mean(1, keepdims=True) + rng.uniform(0, 0.3, (len(edge), 8))).round(3)
    species = [(3702, 4932, 9606)[i // 20] for i in range(60)]
    labels = (group[:, None] + numpy.arange(112)) % 2
    write_graphs(folder, [{"num_nodes": 60, "edge": edge, "edge-feat": strength, "species": species}], labels)
    write_split(folder, "species", 60)


def _make_mag(folder: Path, rng: Generator) -> None:
    counts = {"author": 20, "field_of_study": 6, "institution": 5, "paper": 30}
    raw, group = folder / "raw", numpy.arange(30) % 3
    write_csv(raw / "num-node-dict.csv.gz", [list(counts.values())], ",".join(counts))
    write_csv(raw / "nodetype-has-label.csv.gz", [["False", "False", "False", "True"]], ",".join(counts))
    relations = [
        ("author", "affiliated_with", "institution"),
        ("author", "writes", "paper"),
        ("paper", "cites", "paper"),
        ("paper", "has_topic", "field_of_study"),
    ]
    write_csv(raw / "triplet-type-list.csv.gz", relations)
    for number, (source, relation, target) in enumerate(relations):
        edge = numpy.stack([rng.integers(0, counts[kind], 40) for kind in (source, target)], axis=1)
        if relation == "has_topic":
            edge[:, 1] = group[edge[:, 0]]
        at = raw / "relations" / f"{source}___{relation}___{target}"
        write_csv(at / "edge.csv.gz", edge)
        write_csv(at / "num-edge-list.csv.gz", [len(edge)])
        write_csv(at / "edge_reltype.csv.gz", [number] * len(edge))
    write_csv(raw / "node-feat/paper/node-feat.csv.gz", _vectors(rng, group, 128))
    write_csv(raw / "node-feat/paper/node_year.csv.gz", 2000 + numpy.arange(30) // 2)
    write_csv(raw / "node-label/paper/node-label.csv.gz", group)
    write_csv(folder / "split/time/nodetype-has-split.csv.gz", [["False", "False", "False", "True"]], ",".join(counts))
    write_split(folder, "time/paper", 30)


def _make_links(folder: Path, rng: Generator, scheme: str, rivals: int, **tables: Any) -> None:
    """A graph of the training links; a validation and a test of 12 links and `rivals` pairs that are none."""
    group = numpy.arange(50) % 5
    edge = rng.permutation(_random_pairs(rng, 50, 300, group))
    taken = {tuple(pair) for pair in edge.tolist()}
    free = [(low, high) for high in range(50) for low in range(high) if (low, high) not in taken]
    free = rng.permutation([pair for pair in free if group[pair[0]] != group[pair[1]]])
    train, valid, test = edge[24:], edge[:12], edge[12:24]
    weights = {part: {} for part in _PARTS}
    graph = {"num_nodes": 50, "edge": train}
    if "width" in tables:
        graph["node-feat"] = _vectors(rng, group, tables["width"])
    if tables.get("weighted"):
        train = numpy.concatenate([train, train[:10]])  # those who wrote together twice
        graph |= {"edge": train, "edge_weight": [1] * len(train), "edge_year": [2000] * len(train)}
        weights = {
            part: {"weight": numpy.ones(count, dtype=numpy.int64), "year": numpy.full(count, 2000)}
            for part, count in zip(_PARTS, (len(train), 12, 12), strict=True)
        }
    write_graphs(folder, [graph])
    write_pt(folder / f"split/{scheme}/train.pt", {"edge": train, **weights["train"]})
    for part, links, others in (("valid", valid, free[:rivals]), ("test", test, free[rivals : 2 * rivals])):
        write_pt(folder / f"split/{scheme}/{part}.pt", {"edge": links, "edge_neg": others, **weights[part]})


def _make_citation(folder: Path, rng: Generator) -> None:
    group = numpy.arange(50) % 5
    edge = rng.permutation(_random_pairs(rng, 50, 300, group)[:, ::-1])
    graph = {"num_nodes": 50, "edge": edge[24:], "node-feat": _vectors(rng, group, 128)}
    write_graphs(folder, [graph | {"node_year": 1970 + numpy.arange(50)}])
    for part, links in zip(_PARTS, (edge[24:], edge[:12], edge[12:24]), strict=True):
        rows = {"source_node": links[:, 0], "target_node": links[:, 1]}
        if part != "train":
            strangers = [numpy.flatnonzero(group != group[source]) for source in links[:, 0]]
            rows["target_node_neg"] = numpy.stack([rng.choice(nodes, 10, replace=False) for nodes in strangers])
        write_pt(folder / f"split/time/{part}.pt", rows)


_MAKERS = {
    "ogbg-ppa": _make_associations,
    "ogbg-code2": _make_functions,
    "ogbn-arxiv": _make_arxiv,
    "ogbn-mag": _make_mag,
    "ogbn-products": _make_products,
    "ogbn-proteins": _make_proteins,
    "ogbl-citation2": _make_citation,
    "ogbl-collab": lambda folder, rng: _make_links(folder, rng, "time", 120, width=128, weighted=True),
    "ogbl-ddi": lambda folder, rng: _make_links(folder, rng, "target", 60),
    "ogbl-ppa": lambda folder, rng: _make_links(folder, rng, "throughput", 150, width=58),
}
