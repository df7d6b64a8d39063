"""Small data sets in the on-disk formats of PyG's Planetoid, TUDataset, ZINC and LRGBDataset, and the peptides' table.

Each maker writes below `root` what :func:`graphformer.data.load` looks for there, and returns the set's own folder.
Labels follow from the features, so that a model can learn them.
"""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import scipy.sparse
import torch

from graphformer.data import from_smiles

PROTOCOL = 2  # of the published files
PEPTIDES = ["NCC(=O)O", "NC(C)C(=O)O", "NCC(=O)NCC(=O)O", "NC(CO)C(=O)O", "NC(CS)C(=O)NCC(=O)O"] * 4


def write_pickle(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=PROTOCOL))


def make_planetoid(root: Path, name: str = "cora", num_test: int = 40, gaps: tuple[int, ...] = ()) -> Path:
    """Two classes, 10 words each; 6 nodes train, 500 validate. `gaps`: places among the tests that are in no table."""
    folder = root / {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}[name]
    draw = np.random.default_rng(0)
    num_known, num_train = 6 + 500 + 14, 6
    num_nodes = num_known + num_test + len(gaps)
    label = np.arange(num_nodes) % 2
    words = (draw.random((num_nodes, 20)) < 0.3) & (np.arange(20) // 10 == label[:, None])
    words[np.arange(num_nodes), label * 10] = True
    x, y = scipy.sparse.csr_matrix(words.astype(np.float32)), np.eye(2, dtype=np.int32)[label]
    test = draw.permutation(np.delete(np.arange(num_known, num_nodes), gaps))
    rows = {"": slice(num_train), "all": slice(num_known), "t": test}
    neighbours = {i: sorted({(i + 2) % num_nodes, (i - 2) % num_nodes}) for i in range(num_nodes)}
    neighbours[0] = [*neighbours[0], 0, 2]  # a loop, and a citation twice
    for part, which in rows.items():
        write_pickle(folder / f"raw/ind.{name}.{part}x", x[which])
        write_pickle(folder / f"raw/ind.{name}.{part}y", y[which])
    write_pickle(folder / f"raw/ind.{name}.graph", neighbours)
    (folder / f"raw/ind.{name}.test.index").write_text("".join(f"{node}\n" for node in test))
    return folder


def make_tu(root: Path, name: str = "MUTAG", num_graphs: int = 30, tables: str = "all") -> Path:
    """Rings (1) and stars (-1) of 3 to 7 nodes. `tables`: "all", "bare" (classes only), "numbers" (regression)."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    columns: dict[str, list[str]] = {"A": [], "graph_indicator": [], "graph_labels": []}
    optional: dict[str, list[str]] = {
        "node_labels": [],
        "node_attributes": [],
        "edge_labels": [],
        "edge_attributes": [],
    }
    first = 1
    for i in range(num_graphs):
        size = 3 + i % 5
        pairs = [(k, (k + 1) % size) for k in range(size)] if i % 3 else [(0, k) for k in range(1, size)]
        pairs = sorted(pairs + [(target, source) for source, target in pairs])
        pairs += [(0, 0), pairs[0]] if i == 4 else []  # a loop and a repeated edge
        columns["A"] += [f"{first + source}, {first + target}" for source, target in pairs]
        columns["graph_indicator"] += [str(i + 1)] * size
        columns["graph_labels"] += ["1" if i % 3 else "-1"]
        optional["node_labels"] += [str(2 + (k > 0) + (k > 1)) for k in range(size)]
        optional["node_attributes"] += [f" {100 + 7 * k + i}.5, {k}.25" for k in range(size)]
        optional["edge_labels"] += [str(source % 2) for source, _ in pairs]
        optional["edge_attributes"] += [f"{source + target}.0" for source, target in pairs]
        first += size
    if tables == "all":
        columns |= optional
    if tables == "numbers":
        columns["graph_attributes"] = [f"{i}.5, {i * i}.0" for i in range(num_graphs)]
    for table, lines in columns.items():
        (raw / f"{name}_{table}.txt").write_text("".join(f"{line}\n" for line in lines))
    return raw.parent


def make_zinc(root: Path) -> Path:
    """Chains of 3 to 7 atoms; of 12, 6 and 6 molecules, the index names 8, 3 and 3."""
    raw = root / "ZINC" / "raw"
    draw = torch.Generator().manual_seed(0)
    for split, count, chosen in (("train", 12, 8), ("val", 6, 3), ("test", 6, 3)):
        molecules = []
        for i in range(count):
            size = 3 + i % 5
            bonds = torch.zeros(size, size, dtype=torch.int64)
            kind = torch.randint(1, 4, (size - 1,), generator=draw)
            bonds[torch.arange(size - 1), torch.arange(1, size)] = kind
            atoms = torch.randint(0, 28, (size,), generator=draw)
            molecules.append(
                {
                    "num_atom": size,
                    "atom_type": atoms,
                    "bond_type": bonds + bonds.T,
                    "logP_SA_cycle_normalized": atoms.float().mean(0, keepdim=True) / 28,
                }
            )
        write_pickle(raw / f"{split}.pickle", molecules)
        (raw / f"{split}.index").write_text(",".join(map(str, range(count - 1, count - 1 - chosen, -1))) + "\n")
    return raw.parent


def make_lrgb(root: Path, name: str = "pascalvoc-sp") -> Path:
    """Superpixels or peptides as PyG's LRGBDataset wants them: 6, 3 and 3 graphs."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        if name.endswith("-sp"):
            write_pickle(raw / f"{split}.pickle", [_superpixels(5 + i, name, draw) for i in range(count)])
        else:
            torch.save([_peptide(name, i) for i in range(count)], raw / f"{split}.pt")
    return raw.parent


def _superpixels(size: int, name: str, draw: torch.Generator) -> tuple[object, ...]:
    ring = torch.arange(size)
    edges = torch.cat([torch.stack([ring, ring.roll(1)]), torch.stack([ring.roll(1), ring])], dim=1)
    x = 50 + 9 * torch.randn(size, 14, generator=draw)
    label = [(0, 7, 90)[i % 3] if name == "coco-sp" else (0, 7, 20)[i % 3] for i in range(size)]
    return x, 3 + 2 * torch.randn(2 * size, 2, generator=draw), edges, label


def _peptide(name: str, i: int) -> tuple[torch.Tensor, ...]:
    graph = from_smiles(PEPTIDES[i])
    label = labels(i) if name == "peptides-func" else [0.1 * i - 0.01 * k for k in range(11)]
    return graph.x, graph.edge_attr, graph.edge_index, torch.tensor([label])


def labels(i: int) -> list[int]:
    """Ten labels of peptide `i`."""
    return [(i + k) % 2 for k in range(10)]


def make_peptides(root: Path, split: str = "npz") -> Path:
    """The table of peptides-func and its split: of 20 peptides, 12, 4 and 4."""
    folder = root / "peptides-functional"
    (folder / "raw").mkdir(parents=True)
    with gzip.open(folder / "raw/peptide_multi_class_dataset.csv.gz", "wt") as table:
        table.write(",smiles,peptide_seq,labels,identifier\n")
        table.writelines(f'{i},{text},G,"{labels(i)}",{i}\n' for i, text in enumerate(PEPTIDES))
    rows = {"train": list(range(1, 13)), "val": [0, 13, 14, 15], "test": [19, 18, 17, 16]}
    path = folder / f"splits_random_stratified_peptide.{split}"
    if split == "npz":
        np.savez(path, **{part: np.array(which) for part, which in rows.items()})
    elif split == "json":
        path.write_text(json.dumps(rows))
    else:
        write_pickle(path, rows)
    return folder
