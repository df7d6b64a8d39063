from __future__ import annotations

import gzip
import pickle
import shutil
import socket
import urllib.error
import zipfile
from pathlib import Path

import pytest
import torch
from ogb_files import make_ogb

from graphformer._errors import DataError, InputError
from graphformer.data import load, names
from graphformer.data._quiet_ogb import ogb_module
from graphformer.data.ogb import NAMES
from graphformer.data.ogb.layout import layout

ONE_OF_EACH_FORMAT = [
    "ogbg-molesol",
    "ogbg-ppa",
    "ogbg-code2",
    "ogbn-proteins",
    "ogbn-mag",
    "ogbl-collab",
    "ogbl-citation2",
]
NOT_LOADED = {"ogbn-papers100M", "ogbl-wikikg2", "ogbl-biokg", "ogbl-vessel"}


def loader_module(name: str):
    return ogb_module(f"ogb.{layout(name).level}proppred.dataset_pyg")


def test_the_blocker_blocks():
    with pytest.raises(OSError, match="blocked"):
        socket.create_connection(("localhost", 9))


def test_the_names_are_those_of_ogb():
    package = Path(ogb_module("ogb").__file__).parent
    tables = [package / f"{level}proppred/master.csv" for level in ("graph", "node", "link")]
    known = {name for table in tables for name in table.read_text().splitlines()[0].split(",")[1:]}
    assert set(NAMES) == known - NOT_LOADED
    assert [name for name in names() if name.startswith("ogb")] == list(NAMES)


def test_unknown_names_suggest_near_ones():
    with pytest.raises(
        InputError, match=r"load: name must be one of \d+ names; got 'ogbg-molhvi'. Did you mean ogbg-molhiv.*: logp, "
    ):
        load("ogbg-molhvi")


@pytest.mark.parametrize("name", NAMES)
def test_every_name_loads_whole_and_again_and_is_measured(tmp_path, name, capfd):
    make_ogb(name, tmp_path)
    load(name, root=tmp_path)
    task = load(name, root=tmp_path)
    assert task.name == name
    for part in (task.train, task.valid, task.test):
        assert len(part) > 0
    y = torch.cat([graph.y for graph in task.test])
    width = {"multiclass classification": task.num_outputs, "subtoken prediction": task.length}
    said = torch.zeros(len(y), width.get(task.task_type, task.num_tasks))
    said = said.long() if task.task_type == "subtoken prediction" else said.bfloat16()
    assert 0 <= task.evaluate(y, said) < 10
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["ogbn-mag", "ogbg-molhiv"])
def test_absent_data_say_where_they_were_looked_for(tmp_path, name):
    where = name.replace("-", "_")
    with pytest.raises(DataError, match=rf"{name} must lie in .*{where}; got no such folder.*--root.*--download"):
        load(name, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("ogbg-molesol", "RELEASE_v1.txt"),
        ("ogbg-molesol", "raw/edge.csv.gz"),
        ("ogbg-molesol", "split/scaffold/test.csv.gz"),
        ("ogbg-code2", "raw/node_depth.csv.gz"),
        ("ogbg-code2", "mapping/typeidx2type.csv.gz"),
        ("ogbn-arxiv", "raw/node-label.csv.gz"),
        ("ogbn-mag", "RELEASE_v2.txt"),
        ("ogbn-mag", "raw/relations/paper___cites___paper/edge.csv.gz"),
        ("ogbn-mag", "split/time/paper/valid.csv.gz"),
        ("ogbl-collab", "raw/edge_weight.csv.gz"),
        ("ogbl-ddi", "split/target/valid.pt"),
    ],
)
@pytest.mark.parametrize("processed", [False, True])  # ogb itself goes to the network even beside processed graphs
def test_a_part_that_is_missing_is_named_and_nothing_is_asked(tmp_path, name, part, processed):
    folder = make_ogb(name, tmp_path)
    if processed:
        load(name, root=tmp_path)
    (folder / part).unlink()
    with pytest.raises(DataError, match=f"got a folder without {part}"):
        load(name, root=tmp_path)


def test_either_name_of_the_species_will_do(tmp_path):
    folder = make_ogb("ogbn-proteins", tmp_path)
    load("ogbn-proteins", root=tmp_path)
    assert (folder / "raw/node_species.csv.gz").exists()  # ogb has renamed it
    shutil.rmtree(folder / "processed")
    load("ogbn-proteins", root=tmp_path)
    (folder / "raw/node_species.csv.gz").unlink()
    with pytest.raises(DataError, match="a folder without raw/node_species.csv.gz"):
        load("ogbn-proteins", root=tmp_path)


def edges_of(folder: Path) -> Path:
    return min(folder.glob("raw/**/edge.csv.gz"))


def split_of(folder: Path) -> Path:
    return min(folder.glob("split/**/test.*"))


@pytest.mark.parametrize(
    ("which", "remedy"), [(edges_of, "raw. Remove .*processed"), (split_of, "split.*[a-z]. Fetch the data anew")]
)
@pytest.mark.parametrize("name", ONE_OF_EACH_FORMAT)
def test_a_truncated_file_is_told(tmp_path, name, which, remedy):
    path = which(make_ogb(name, tmp_path))
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError, match=f"load: {name}'s files must be readable; got .* while reading .*{remedy}"):
        load(name, root=tmp_path)


@pytest.mark.parametrize("name", ONE_OF_EACH_FORMAT)
def test_a_truncated_processed_file_is_told(tmp_path, name):
    path = make_ogb(name, tmp_path) / "processed/geometric_data_processed.pt"
    load(name, root=tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=f"load: {name}'s files must be readable; got .* reading .*{path.name}"):
        load(name, root=tmp_path)


def test_what_is_no_archive_is_told(tmp_path):
    (make_ogb("ogbg-code2", tmp_path) / "mapping/attridx2attr.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"load: ogbg-code2's files must be readable; got .*gzip.*Remove"):
        load("ogbg-code2", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "table", "told"),
    [
        ("ogbg-molesol", "raw/node-feat.csv.gz", r"there are \d+ rows of node features; got"),
        ("ogbg-ppa", "raw/edge-feat.csv.gz", r"there are \d+ rows of edge features; got"),
        ("ogbg-code2", "raw/node-feat.csv.gz", r"there are \d+ rows of node features; got"),
        ("ogbn-arxiv", "raw/node-feat.csv.gz", "there are 60 rows of node features; got 30"),
        ("ogbn-products", "raw/node-label.csv.gz", "there are 60 rows of node labels; got 30"),
        ("ogbn-proteins", "raw/edge-feat.csv.gz", r"there are \d+ rows of edge features; got"),
        ("ogbn-mag", "raw/node-feat/paper/node-feat.csv.gz", "there are 30 rows of paper features; got 15"),
        ("ogbn-mag", "raw/node-label/paper/node-label.csv.gz", "there are 30 rows of paper labels; got 15"),
        ("ogbl-ppa", "raw/node-feat.csv.gz", "there are 50 rows of node features; got 25"),
    ],
)
def test_half_a_table_is_told(tmp_path, name, table, told):
    path = make_ogb(name, tmp_path) / table
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(lines[: len(lines) // 2])))
    with pytest.raises(DataError, match=f"^load: {name}'s files must agree: {told}.*fetch it anew"):
        load(name, root=tmp_path)


@pytest.mark.parametrize("name", ["ogbg-molesol", "ogbg-ppa", "ogbg-code2", "ogbn-arxiv", "ogbn-proteins", "ogbl-ddi"])
def test_an_edge_to_no_node_is_told(tmp_path, name):
    """Also where a batch of graphs would have that node: in the next graph."""
    path = make_ogb(name, tmp_path) / "raw/edge.csv.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join([b"0,60\n", *lines[1:]])))
    with pytest.raises(DataError, match=rf"{name}'s files must agree: the edges' node ids lie in \[0, \d+\); got ids"):
        load(name, root=tmp_path).train[0]


def test_a_split_dict_is_read_in_place_of_the_tables(tmp_path):
    folder = make_ogb("ogbl-ddi", tmp_path)
    expected = load("ogbl-ddi", root=tmp_path).test[0].pair_index
    parts = {part: torch.load(folder / f"split/target/{part}.pt") for part in ("train", "valid", "test")}
    torch.save(parts, folder / "split/target/split_dict.pt")
    for part in parts:
        (folder / f"split/target/{part}.pt").unlink()
    assert torch.equal(load("ogbl-ddi", root=tmp_path).test[0].pair_index, expected)
    del parts["valid"]
    torch.save(parts, folder / "split/target/split_dict.pt")
    with pytest.raises(DataError, match="ogbl-ddi's files must be readable; got KeyError: 'valid'"):
        load("ogbl-ddi", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ogbg-molesol", "processed/geometric_data_processed.pt"),
        ("ogbg-molesol", "processed/pre_transform.pt"),
        ("ogbg-molesol", "processed/pre_filter.pt"),
        ("ogbn-mag", "processed/geometric_data_processed.pt"),
        ("ogbl-ddi", "split/target/train.pt"),
    ],
)
def test_no_file_is_ever_executed(tmp_path, name, file):
    folder = make_ogb(name, tmp_path)
    load(name, root=tmp_path)
    witness = tmp_path / "executed"
    trap = Trap(witness)
    torch.save((trap, None) if "geometric" in file else trap, folder / file)
    with pytest.raises(DataError, match="files must be readable; got UnpicklingError"):
        load(name, root=tmp_path)
    assert not witness.exists()
    pickle.loads(pickle.dumps(Trap(witness)))  # the trap works where pickles are trusted
    assert witness.exists()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_read_only_folder_is_told(tmp_path, monkeypatch):
    make_ogb("ogbn-arxiv", tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(DataError, match="must be writable; got a read-only folder.*copy the data set"):
        load("ogbn-arxiv", root=tmp_path)


@pytest.mark.parametrize("name", ["ogbg-molesol", "ogbn-mag", "ogbl-ddi"])
def test_a_download_without_network_leaves_nothing(tmp_path, name):
    root = tmp_path / "deep" / "root"
    with pytest.raises(DataError, match=f"load: {name} must be downloadable; got URLError.*blocked.*Check the network"):
        load(name, root=root, download=True)
    assert list(tmp_path.iterdir()) == []


def serve(monkeypatch, name: str, archive: bytes) -> None:
    """Let ogb's download of `name` give this archive, after ogb's own question about large ones."""
    download_name = Path(layout_row(name)["url"]).name

    def fetch(url, folder, log=True):
        path = Path(folder) / download_name
        path.write_bytes(archive)
        return str(path)

    monkeypatch.setattr("builtins.input", lambda *prompt: __import__("sys").stdin.readline().strip())
    monkeypatch.setattr(loader_module(name), "decide_download", lambda url: input("Will you proceed?") == "y")
    monkeypatch.setattr(loader_module(name), "download_url", fetch)


def layout_row(name: str) -> dict[str, str]:
    table = Path(layout(name).package.__file__).with_name("master.csv").read_text().splitlines()
    place = table[0].split(",").index(name)
    return {line.split(",")[0]: line.split(",")[place] for line in table if '"' not in line}


def zipped(source: Path, name: str) -> bytes:
    path = source.parent / "served.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in source.rglob("*"):
            archive.write(file, Path(layout_row(name)["download_name"]) / file.relative_to(source))
    return path.read_bytes()


@pytest.mark.parametrize("name", ["ogbg-molesol", "ogbn-mag", "ogbl-citation2"])
def test_a_download_puts_the_whole_set_in_place_and_says_yes_for_the_caller(tmp_path, monkeypatch, name):
    source = make_ogb(name, tmp_path / "server")
    serve(monkeypatch, name, zipped(source, name))
    root = tmp_path / "root"
    (root / source.name).mkdir(parents=True)  # left over from an earlier attempt
    assert len(load(name, root=root, download=True).train) > 0
    assert [path.name for path in root.iterdir()] == [source.name]


@pytest.mark.parametrize("name", ["ogbg-molesol", "ogbn-mag"])
@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_a_truncated_archive_leaves_nothing(tmp_path, monkeypatch, name, kept):
    archive = zipped(make_ogb(name, tmp_path / "server"), name)
    shutil.rmtree(tmp_path / "server")
    serve(monkeypatch, name, archive[: int(kept * len(archive))])
    with pytest.raises(DataError, match=f"load: {name} must be downloadable; got BadZipFile"):
        load(name, root=tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_of_damaged_tables_leaves_nothing(tmp_path, monkeypatch):
    source = make_ogb("ogbn-arxiv", tmp_path / "server")
    (source / "raw/edge.csv.gz").write_bytes(gzip.compress(b""))
    serve(monkeypatch, "ogbn-arxiv", zipped(source, "ogbn-arxiv"))
    with pytest.raises(DataError, match="ogbn-arxiv must be downloadable; got EmptyDataError"):
        load("ogbn-arxiv", root=tmp_path / "root", download=True)
    assert not (tmp_path / "root").exists()


def test_a_download_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    def broken(url, folder, log=True):
        (Path(folder) / "esol.zip").write_bytes(b"PK half of it")
        raise RuntimeError("Stopped downloading due to interruption.")

    monkeypatch.setattr(loader_module("ogbg-molesol"), "decide_download", lambda url: True)
    monkeypatch.setattr(loader_module("ogbg-molesol"), "download_url", broken)
    with pytest.raises(DataError, match="must be downloadable; got RuntimeError: Stopped"):
        load("ogbg-molesol", root=tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_download_stays_an_interruption(tmp_path, monkeypatch):
    def interrupted(url):
        raise KeyboardInterrupt

    monkeypatch.setattr(loader_module("ogbg-molesol"), "decide_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load("ogbg-molesol", root=tmp_path / "root", download=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["ogbg-molesol", "ogbn-mag"])
def test_a_download_over_an_incomplete_folder_is_refused(tmp_path, name):
    release = min(make_ogb(name, tmp_path).glob("RELEASE*"))
    release.unlink()
    with pytest.raises(DataError, match=f"must be whole or absent to download {name}; got a folder without RELEASE"):
        load(name, root=tmp_path, download=True)


def test_the_blocked_network_is_what_url_errors_come_from():
    with pytest.raises(urllib.error.URLError, match="blocked"):
        ogb_module("ogb.utils.url").decide_download("http://localhost/esol.zip")
