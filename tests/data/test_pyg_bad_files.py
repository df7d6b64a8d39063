from __future__ import annotations

import gzip
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pyg_files import labels, make_lrgb, make_peptides, make_planetoid, make_tu, make_zinc, write_pickle
from torch_geometric.data import Data
from torch_geometric.datasets import ZINC, LRGBDataset, Planetoid, TUDataset

from graphformer._errors import DataError
from graphformer.data import load
from graphformer.data.pyg.files import PARTS, cached
from graphformer.data.pyg.standardize import standardize

# name, maker, a file below the set's folder, whether it is read by a pickle reader
FILES = [
    ("cora", make_planetoid, "raw/ind.cora.allx", True),
    ("cora", make_planetoid, "raw/ind.cora.ty", True),
    ("cora", make_planetoid, "raw/ind.cora.graph", True),
    ("cora", make_planetoid, "raw/ind.cora.test.index", False),
    ("tu-mutag", make_tu, "raw/MUTAG_A.txt", False),
    ("tu-mutag", make_tu, "raw/MUTAG_graph_indicator.txt", False),
    ("zinc", make_zinc, "raw/train.pickle", True),
    ("zinc", make_zinc, "raw/val.index", False),
    ("pascalvoc-sp", make_lrgb, "raw/test.pickle", True),
    ("peptides-struct", lambda root: make_lrgb(root, "peptides-struct"), "raw/val.pt", True),
    ("peptides-func", make_peptides, "raw/peptide_multi_class_dataset.csv.gz", False),
    ("peptides-func", make_peptides, "splits_random_stratified_peptide.npz", False),
]
PICKLES = [row for row in FILES if row[3]]
IDS = [f"{name} {Path(file).name}" for name, _, file, _ in FILES]


class Evil:
    """A pickle that makes a folder when it is read with trust."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize(("name", "make", "file", "_"), FILES, ids=IDS)
def test_a_missing_file_is_named(name, make, file, _, tmp_path):
    folder = make(tmp_path)
    (folder / file).unlink()
    part = Path(file).name if "peptides-functional" not in str(folder) else Path(file).name.removesuffix(".gz")
    with pytest.raises(DataError, match=f"load: {name} must lie in .*{folder.name}.*; got a folder without .*{part}"):
        load(name, root=tmp_path)


@pytest.mark.parametrize(("name", "make", "file", "_"), FILES, ids=IDS)
@pytest.mark.parametrize("damage", ["garbage", "truncated"])
def test_a_damaged_file_is_told(name, make, file, _, damage, tmp_path):
    path = make(tmp_path) / file
    path.write_bytes(b"\x00 not this" if damage == "garbage" else path.read_bytes()[: path.stat().st_size * 2 // 5])
    with pytest.raises(DataError, match=rf"load: {name}'s files must be readable; got .* while reading .*raw|splits"):
        load(name, root=tmp_path)
    assert not (path.parents[1] / "processed").exists()


@pytest.mark.parametrize(("name", "make", "file", "_"), PICKLES, ids=[" ".join(row[::2][:2]) for row in PICKLES])
def test_a_malicious_pickle_is_refused(name, make, file, _, tmp_path):
    path = make(tmp_path) / file
    if path.suffix == ".pt":
        torch.save([Evil(tmp_path / "made")], path)
    else:
        write_pickle(path, [Evil(tmp_path / "made")])
    with pytest.raises(DataError, match=f"load: {name}'s files must be readable; got UnpicklingError"):
        load(name, root=tmp_path)
    assert not (tmp_path / "made").exists()


def test_a_split_of_objects_is_refused(tmp_path):
    folder = make_peptides(tmp_path)
    evil = np.array([Evil(tmp_path / "made")], dtype=object)
    np.savez(folder / "splits_random_stratified_peptide.npz", train=evil, val=evil, test=evil)
    with pytest.raises(DataError, match="peptides-func's files must be readable; got ValueError: .*allow_pickle"):
        load("peptides-func", root=tmp_path)
    assert not (tmp_path / "made").exists()


def test_the_published_split_of_peptides_is_not_read(tmp_path):
    make_peptides(tmp_path, "pickle")
    with pytest.raises(DataError, match=r"got a folder without splits_random_stratified_peptide.npz \(or .json\)"):
        load("peptides-func", root=tmp_path)


def zinc_with(root, **changes):
    folder = make_zinc(root)
    molecule = {
        "atom_type": torch.tensor([1, 2]),
        "bond_type": torch.tensor([[0, 1], [1, 0]]),
        "logP_SA_cycle_normalized": torch.tensor([0.5]),
    }
    write_pickle(folder / "raw/train.pickle", [molecule | changes] * 12)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"atom_type": torch.tensor([1, 28])}, r"a category of graph 0 does not lie below \[28\]"),
        ({"bond_type": torch.tensor([[0, 4], [4, 0]])}, r"a category of graph 0 does not lie below \[4\]"),
        ({"bond_type": torch.ones(3, 3)}, "an edge of graph 0 does not end at one of its 2 nodes"),
    ],
    ids=["atom", "bond", "edge"],
)
def test_graphs_that_are_none_are_told(changes, told, tmp_path):
    zinc_with(tmp_path, **changes)
    with pytest.raises(DataError, match=f"zinc's files must be readable; got ValueError: {told} .*train.pickle"):
        load("zinc", root=tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (0, torch.zeros(5, 13), "features of graph 0 have shape .5, 13., not .5, 14."),
        (1, torch.zeros(9, 2), "features of graph 0 have shape .9, 2., not .10, 2."),
        (3, [0, 1, 2, 3, 21], "a label of graph 0 is no class below 21"),
        (3, [0, 1, 2, 3], "labels of graph 0 have shape .4, 1., not .5, 1."),
    ],
)
def test_superpixels_that_are_none_are_told(place, value, told, tmp_path):
    path = make_lrgb(tmp_path) / "raw/train.pickle"
    row = [torch.zeros(5, 14), torch.zeros(10, 2), torch.zeros(2, 10, dtype=torch.int64), [0, 1, 2, 3, 20]]
    row[place] = value
    write_pickle(path, [tuple(row)])
    with pytest.raises(DataError, match=f"pascalvoc-sp's files must be readable; got ValueError: {told}"):
        load("pascalvoc-sp", root=tmp_path)


def test_an_index_that_ends_early_is_told(tmp_path):
    path = make_zinc(tmp_path) / "raw/train.index"
    path.write_text(path.read_text()[:4])  # whole numbers, but fewer
    with pytest.raises(DataError, match="got ValueError: its line has no end while reading .*train.index"):
        load("zinc", root=tmp_path)


def test_a_part_without_graphs_is_told(tmp_path):
    write_pickle(make_lrgb(tmp_path) / "raw/val.pickle", [])
    with pytest.raises(DataError, match="got ValueError: it holds no graph while reading .*val.pickle"):
        load("pascalvoc-sp", root=tmp_path)


@pytest.mark.parametrize(
    ("table", "text", "told"),
    [
        ("A", "1, 2\n2, 999\n", "A has an edge that ends at none of the"),
        ("A", "0, 2\n", "A has an edge that ends at none of the"),
        ("A", "1, 4\n", "A has an edge between two graphs"),
        ("A", "1, 2, 3\n", "too many values"),
        ("graph_indicator", "1\n3\n", "graph_indicator does not number the graphs 1, 2, 3"),
        ("graph_labels", "1\n", "graph_labels has 1 rows, not 30"),
        ("graph_labels", "1, 0\n" * 30, "graph_labels has 2 columns; one label a graph can be learned"),
        ("node_labels", "1\n" * 3, "node_labels has 3 rows, not"),
        ("node_attributes", "a\n" * 3, "could not convert string 'a'"),
    ],
)
def test_tu_tables_that_do_not_fit_are_told(table, text, told, tmp_path):
    folder = make_tu(tmp_path)
    (folder / f"raw/MUTAG_{table}.txt").write_text(text)
    with pytest.raises(DataError, match=f"tu-mutag's files must be readable; got ValueError: {told}"):
        load("tu-mutag", root=tmp_path)


def test_too_few_tu_graphs_are_told(tmp_path):
    make_tu(tmp_path, num_graphs=9)
    with pytest.raises(DataError, match="9 graphs cannot be dealt out to 10 folds"):
        load("tu-mutag", root=tmp_path)


def test_tu_graphs_without_edges_are_graphs(tmp_path):
    folder = make_tu(tmp_path, tables="bare")
    (folder / "raw/MUTAG_A.txt").write_text("")
    task = load("tu-mutag", root=tmp_path)
    assert task.train[0].edge_index.shape == (2, 0)
    assert task.train[0].num_nodes > 0


@pytest.mark.parametrize(
    ("part", "content", "told"),
    [
        ("graph", {0: [1, 10_000]}, "an edge ends at node 10000 of 560"),
        ("ally", np.ones((400, 2)), "400 nodes beside the test nodes leave no 500 to validate"),
    ],
)
def test_planetoid_tables_that_do_not_fit_are_told(part, content, told, tmp_path):
    write_pickle(make_planetoid(tmp_path) / f"raw/ind.cora.{part}", content)
    with pytest.raises(DataError, match=f"cora's files must be readable; got ValueError: {told}"):
        load("cora", root=tmp_path)


def test_peptides_that_do_not_fit_are_told(tmp_path):
    folder = make_peptides(tmp_path / "rows", "json")
    (folder / "splits_random_stratified_peptide.json").write_text('{"train": [0, 1], "val": [1], "test": [2]}')
    with pytest.raises(DataError, match="its 4 rows are not the 20 of the table, each once"):
        load("peptides-func", root=tmp_path / "rows")
    folder = make_peptides(tmp_path / "labels")
    with gzip.open(folder / "raw/peptide_multi_class_dataset.csv.gz", "wt") as table:
        table.write('smiles,labels\nCC,"[1, 0]"\n')
    with pytest.raises(DataError, match=r"labels of shape \[1, 2\], not 10 a row"):
        load("peptides-func", root=tmp_path / "labels")
    with gzip.open(folder / "raw/peptide_multi_class_dataset.csv.gz", "wt") as table:
        table.writelines(["smiles,labels\n", *(f'C(,"{labels(0)}"\n' for _ in range(20))])
    with pytest.raises(DataError, match="smiles must be readable by RDKit; got row 0: 'C\\('"):
        load("peptides-func", root=tmp_path / "labels")


CACHED = [
    ("zinc", make_zinc, "raw/train.pickle"),
    ("pascalvoc-sp", make_lrgb, "raw/test.pickle"),
    ("peptides-struct", lambda root: make_lrgb(root, "peptides-struct"), "raw/val.pt"),
    ("peptides-func", make_peptides, "splits_random_stratified_peptide.npz"),
]


@pytest.mark.parametrize(("name", "make", "file"), CACHED)
def test_made_graphs_are_kept_and_made_anew_with_their_source(name, make, file, tmp_path):
    folder = make(tmp_path)
    first = load(name, root=tmp_path)
    kept = folder / "processed/graphformer.pt"
    assert set(torch.load(kept, weights_only=True)) == {"stamp", "train", "valid", "test"}
    assert [path.name for path in kept.parent.iterdir()] == ["graphformer.pt"]
    source = folder / file
    times = source.stat()
    source.write_bytes(b"x" * times.st_size)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = load(name, root=tmp_path)  # not from the source
    for ours, theirs in ((first.train, again.train), (first.valid, again.valid), (first.test, again.test)):
        for graph, other in zip(ours, theirs, strict=True):
            assert graph.to_dict().keys() == other.to_dict().keys()
            assert all(value.dtype == other[key].dtype and torch.equal(value, other[key]) for key, value in graph)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    with pytest.raises(DataError, match="must be readable"):
        load(name, root=tmp_path)


@pytest.mark.parametrize("value", [-1, 255, 256, -40_000, 70_000, 2**40])
def test_kept_integers_are_what_they_were(value, tmp_path):
    graph = Data(x=torch.tensor([[0], [value]]), edge_index=torch.zeros(2, 0, dtype=torch.int64), y=torch.ones(1, 1))
    parts = {part: [graph, graph] for part in PARTS}
    cached("a set", tmp_path, [], lambda: parts)
    found = cached("a set", tmp_path, [], lambda: pytest.fail("made anew"))["test"][1]
    assert torch.equal(found.x, graph.x)
    assert found.x.dtype == found.edge_index.dtype == torch.int64
    assert found.y.dtype == torch.float32


def test_kept_graphs_of_another_rdkit_are_made_anew(tmp_path, monkeypatch):
    make_peptides(tmp_path)
    load("peptides-func", root=tmp_path)
    calls = []
    read = "graphformer.data.pyg.peptides.from_smiles_list"
    monkeypatch.setattr(read, lambda *args: calls.append(args) or pytest.fail("read anew"))
    load("peptides-func", root=tmp_path)
    assert not calls
    monkeypatch.setattr("rdkit.rdBase.rdkitVersion", "1900.01.1")
    with pytest.raises(pytest.fail.Exception, match="read anew"):
        load("peptides-func", root=tmp_path)


@pytest.mark.parametrize("content", ["damaged", "malicious"])
def test_a_kept_file_that_cannot_be_read_is_told(content, tmp_path):
    kept = make_zinc(tmp_path) / "processed/graphformer.pt"
    load("zinc", root=tmp_path)
    if content == "damaged":
        kept.write_bytes(kept.read_bytes()[:200])
    else:
        torch.save({"stamp": Evil(tmp_path / "made")}, kept)
    with pytest.raises(
        DataError, match=r"zinc's files must be readable; got .*graphformer.pt. Remove this file and try"
    ):
        load("zinc", root=tmp_path)
    assert not (tmp_path / "made").exists()


def test_a_folder_that_cannot_be_written_is_read_all_the_same(tmp_path):
    folder = make_zinc(tmp_path)
    (folder / "processed").write_text("in the way")  # root may write anywhere, so a mode would not do
    assert len(load("zinc", root=tmp_path).train) == 8


def archive(tmp_path, folder, inside) -> str:
    shutil.copytree(folder / "raw", tmp_path / "zip" / inside)
    return Path(shutil.make_archive(str(tmp_path / inside), "zip", tmp_path / "zip")).as_uri()


def test_planetoid_is_fetched_on_request(tmp_path, monkeypatch):
    folder = make_planetoid(tmp_path / "server")
    monkeypatch.setattr(Planetoid, "url", (folder / "raw").as_uri())
    with pytest.raises(DataError, match=r"cora must lie in .*Cora/raw; got no such folder.*--root.*--download"):
        load("cora", root=tmp_path / "here")
    assert not (tmp_path / "here").exists()
    assert len(load("cora", root=tmp_path / "here", download=True).train[0].y) == 6
    assert [path.name for path in (tmp_path / "here/Cora").iterdir()] == ["raw"]


def test_tu_is_fetched_on_request(tmp_path, monkeypatch):
    url = archive(tmp_path, make_tu(tmp_path / "server", "Mutagenicity"), "Mutagenicity")
    monkeypatch.setattr(TUDataset, "url", url.rpartition("/")[0])
    assert load("tu-mutagenicity", root=tmp_path / "here", download=True).features.node_channels == 5


def test_zinc_is_fetched_on_request(tmp_path, monkeypatch):
    folder = make_zinc(tmp_path / "server")
    monkeypatch.setattr(ZINC, "url", archive(tmp_path, folder, "molecules"))
    monkeypatch.setattr(ZINC, "split_url", (folder / "raw").as_uri() + "/{}.index")
    assert len(load("zinc", root=tmp_path / "here", download=True).train) == 8


def test_lrgb_is_fetched_on_request(tmp_path, monkeypatch):
    url = archive(tmp_path, make_lrgb(tmp_path / "server"), "voc")
    monkeypatch.setitem(LRGBDataset.urls, "pascalvoc-sp", url)
    assert len(load("pascalvoc-sp", root=tmp_path / "here", download=True).train) == 6


def test_a_failed_fetch_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Planetoid, "url", (tmp_path / "nowhere").as_uri())
    with pytest.raises(
        DataError, match="load: cora must be downloadable; got URLError: .* Check the network, or place"
    ):
        load("cora", root=tmp_path / "here", download=True)
    assert not (tmp_path / "here").exists()


def test_an_interrupted_fetch_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(url, path):
        Path(path).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr("torch.hub.download_url_to_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("cora", root=tmp_path / "here", download=True)
    assert not (tmp_path / "here").exists()


def test_nothing_is_fetched_into_a_folder_that_holds_something(tmp_path):
    folder = make_planetoid(tmp_path)
    (folder / "raw/ind.cora.graph").unlink()
    with pytest.raises(
        DataError, match="must be whole or absent to download cora; got a folder without ind.cora.graph"
    ):
        load("cora", root=tmp_path, download=True)


def test_columns_that_are_all_alike_become_zero():
    parts = {"train": [Data(x=torch.full((3, 2), 7.0))], "valid": [], "test": [Data(x=torch.full((1, 2), 8.0))]}
    standardize(parts, "x", 1)
    assert parts["train"][0].x.tolist() == [[0.0, 7.0]] * 3
    assert parts["test"][0].x.tolist() == [[1.0, 8.0]]


def test_the_malicious_pickle_is_one(tmp_path):
    pickle.loads(pickle.dumps(Evil(tmp_path / "made")))
    assert (tmp_path / "made").exists()
