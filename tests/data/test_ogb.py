from __future__ import annotations

import builtins
import gzip
import pickle
import socket
import urllib.error
import zipfile
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data

from graphformer._errors import DataError, InputError
from graphformer.data import from_smiles, load, names
from graphformer.data._quiet_ogb import ogb_module
from graphformer.data.ogb import NAMES

SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN", "C1CCCCC1", "CCCl", "OCCO"]
SPLIT = {"train": [6, 0, 2, 3], "valid": [1], "test": [5, 4]}


def write_csv(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.writelines(",".join(map(str, row)) + "\n" for row in rows)


def write_ogb(root: Path, name: str, labels) -> Path:
    """A data set in OGB's layout: every bond once, tables for all graphs end to end."""
    folder = root / name.replace("-", "_")
    graphs = [from_smiles(text) for text in SMILES]
    write_csv(folder / "raw/edge.csv.gz", [row for g in graphs for row in g.edge_index.T[::2].tolist()])
    write_csv(folder / "raw/edge-feat.csv.gz", [row for g in graphs for row in g.edge_attr[::2].tolist()])
    write_csv(folder / "raw/node-feat.csv.gz", [row for g in graphs for row in g.x.tolist()])
    write_csv(folder / "raw/num-node-list.csv.gz", [[g.num_nodes] for g in graphs])
    write_csv(folder / "raw/num-edge-list.csv.gz", [[g.num_edges // 2] for g in graphs])
    write_csv(folder / "raw/graph-label.csv.gz", labels)
    for part, rows in SPLIT.items():
        write_csv(folder / f"split/scaffold/{part}.csv.gz", [[row] for row in rows])
    (folder / "RELEASE_v1.txt").write_text("test\n")
    return folder


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No network, and nothing may be asked."""

    def refuse(*args, **kwargs):
        raise OSError("the network is blocked")

    def asked(*args):
        raise AssertionError("something was asked on standard input")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(builtins, "input", asked)


@pytest.fixture
def esol(tmp_path):
    return write_ogb(tmp_path, "ogbg-molesol", [[0.5 * row] for row in range(7)])


def test_the_blocker_blocks():
    with pytest.raises(OSError, match="blocked"):
        socket.create_connection(("localhost", 9))


def test_a_data_set_on_disk_loads_with_its_split(esol, capfd):
    task = load("ogbg-molesol", root=esol.parent)
    assert [graph.y.item() for graph in task.train] == [3.0, 0.0, 1.0, 1.5]
    assert [graph.y.item() for graph in task.valid] == [0.5]
    assert [graph.y.item() for graph in task.test] == [2.5, 2.0]
    assert (task.num_tasks, task.task_type, task.metric, task.higher_is_better) == (1, "regression", "rmse", False)
    assert capfd.readouterr() == ("", "")


def test_its_graphs_are_those_of_the_molecules(esol):
    task = load("ogbg-molesol", root=esol.parent)
    for row, graph in zip(SPLIT["train"], task.train, strict=True):
        expected = from_smiles(SMILES[row])
        assert torch.equal(graph.x, expected.x)
        assert torch.equal(graph.edge_index, expected.edge_index)
        assert torch.equal(graph.edge_attr, expected.edge_attr)


def test_it_loads_again_from_the_processed_file(esol):
    load("ogbg-molesol", root=esol.parent)
    (esol / "raw/node-feat.csv.gz").write_bytes(b"not read any more")
    assert len(load("ogbg-molesol", root=esol.parent).train) == 4


def test_pyg_can_still_load_its_own_files_afterwards(esol, tmp_path):
    load("ogbg-molesol", root=esol.parent)
    torch.save(Data(x=torch.zeros(2, 1)), tmp_path / "data.pt")
    assert torch.load(tmp_path / "data.pt", weights_only=True).num_nodes == 2


def test_raw_files_are_asked_for_even_beside_processed_ones(esol):
    load("ogbg-molesol", root=esol.parent)
    (esol / "raw/edge.csv.gz").unlink()  # ogb itself would go to the network now
    with pytest.raises(DataError, match="got a folder without raw/edge.csv.gz"):
        load("ogbg-molesol", root=esol.parent)


def test_it_loads_from_the_folder_name_of_older_releases(esol):
    esol.rename(esol.parent / "ogbg_molesol_pyg")
    assert len(load("ogbg-molesol", root=esol.parent).test) == 2


def test_the_measure_is_the_official_one(esol):
    task = load("ogbg-molesol", root=esol.parent)
    y_true, y_pred = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[2.0], [2.0], [1.0]])
    official = ogb_module("ogb.graphproppred").Evaluator("ogbg-molesol")
    expected = official.eval({"y_true": y_true, "y_pred": y_pred})["rmse"]
    assert task.evaluate(y_true, y_pred) == pytest.approx(expected)
    assert expected == pytest.approx((10 / 3) ** 0.5)


def test_missing_labels_are_nan_and_do_not_count(tmp_path):
    rows = [[row % 2, (row // 2) % 2] for row in range(7)]
    rows[6][1] = "nan"
    write_ogb(tmp_path, "ogbg-molclintox", rows)
    task = load("ogbg-molclintox", root=tmp_path)
    assert (task.num_tasks, task.metric, task.higher_is_better) == (2, "rocauc", True)
    assert task.train[0].y.isnan().tolist() == [[False, True]]
    y_true = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, torch.nan]])
    y_pred = torch.tensor([[0.9, 0.2], [0.1, 0.7], [0.8, 0.99]])
    assert task.evaluate(y_true, y_pred) == 1.0


def test_whole_numbers_become_float_labels(tmp_path):
    write_ogb(tmp_path, "ogbg-molbace", [[row % 2] for row in range(7)])
    assert load("ogbg-molbace", root=tmp_path).train[0].y.dtype == torch.float32


def test_a_measure_that_is_not_defined_is_told(tmp_path):
    write_ogb(tmp_path, "ogbg-molbace", [[row % 2] for row in range(7)])
    task = load("ogbg-molbace", root=tmp_path)
    with pytest.raises(DataError, match="evaluate: ogbg-molbace's labels and predictions must have a rocauc"):
        task.evaluate(torch.ones(3, 1), torch.rand(3, 1))


def test_evaluate_checks_shapes(esol):
    task = load("ogbg-molesol", root=esol.parent)
    with pytest.raises(InputError, match=r"evaluate: y_true must have shape \[rows, 1\]; got \[3, 2\]"):
        task.evaluate(torch.ones(3, 2), torch.ones(3, 2))
    with pytest.raises(InputError, match=r"evaluate: y_pred must have shape \[3, 1\]; got \[4, 1\]"):
        task.evaluate(torch.ones(3, 1), torch.ones(4, 1))


def test_unknown_names_suggest_near_ones():
    with pytest.raises(
        InputError, match=r"load: name must be one of logp, .*got 'ogbg-molhvi'.*Did you mean ogbg-molhiv"
    ):
        load("ogbg-molhvi")


def test_the_names_are_those_of_ogb():
    master = Path(ogb_module("ogb").__file__).parent / "graphproppred" / "master.csv"
    known = master.read_text().splitlines()[0].split(",")
    assert set(NAMES) == {name for name in known if name.startswith("ogbg-mol")}
    assert names() == ["logp", *NAMES]


def test_absent_data_say_where_they_were_looked_for(tmp_path):
    with pytest.raises(
        DataError, match=r"ogbg-molhiv must lie in .*ogbg_molhiv; got no such folder.*--root.*--download"
    ):
        load("ogbg-molhiv", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["RELEASE_v1.txt", "raw/edge.csv.gz", "split/scaffold/test.csv.gz"])
def test_a_part_that_is_missing_is_named_and_nothing_is_asked(esol, part):
    (esol / part).unlink()
    with pytest.raises(DataError, match=f"got a folder without {part}"):
        load("ogbg-molesol", root=esol.parent)


def test_damaged_files_are_told(esol):
    (esol / "raw/node-feat.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"load: ogbg-molesol's files must be readable; got .*gzip.*Remove"):
        load("ogbg-molesol", root=esol.parent)


@pytest.mark.parametrize("name", ["geometric_data_processed.pt", "pre_transform.pt", "pre_filter.pt"])
def test_a_processed_file_is_never_executed(esol, name):
    load("ogbg-molesol", root=esol.parent)
    witness = esol.parent / "executed"
    trap = Trap(witness)
    torch.save((trap, None) if name.startswith("geometric") else trap, esol / "processed" / name)
    with pytest.raises(DataError, match="files must be readable; got UnpicklingError"):
        load("ogbg-molesol", root=esol.parent)
    assert not witness.exists()
    pickle.loads(pickle.dumps(Trap(witness)))  # the trap works where pickles are trusted
    assert witness.exists()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_read_only_folder_is_told(esol, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(DataError, match="must be writable; got a read-only folder.*copy the data set"):
        load("ogbg-molesol", root=esol.parent)


def test_a_download_without_network_leaves_nothing(tmp_path):
    root = tmp_path / "deep" / "root"
    with pytest.raises(
        DataError, match="load: ogbg-molesol must be downloadable; got URLError.*blocked.*Check the network"
    ):
        load("ogbg-molesol", root=root, download=True)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    def broken(url, folder, log=True):
        (Path(folder) / "esol.zip").write_bytes(b"PK half of it")
        raise RuntimeError("Stopped downloading due to interruption.")

    module = ogb_module("ogb.graphproppred.dataset_pyg")
    monkeypatch.setattr(module, "decide_download", lambda url: True)
    monkeypatch.setattr(module, "download_url", broken)
    with pytest.raises(DataError, match="must be downloadable; got RuntimeError: Stopped"):
        load("ogbg-molesol", root=tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []


def test_a_download_puts_the_whole_set_in_place(tmp_path, monkeypatch):
    source = write_ogb(tmp_path / "server", "ogbg-molesol", [[row] for row in range(7)])

    def fetch(url, folder, log=True):
        path = Path(folder) / "esol.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in source.rglob("*"):
                archive.write(file, Path("esol") / file.relative_to(source))
        return str(path)

    module = ogb_module("ogb.graphproppred.dataset_pyg")
    monkeypatch.setattr(module, "decide_download", lambda url: True)
    monkeypatch.setattr(module, "download_url", fetch)
    root = tmp_path / "root"
    (root / "ogbg_molesol").mkdir(parents=True)  # left over from an earlier attempt
    assert len(load("ogbg-molesol", root=root, download=True).train) == 4
    assert [path.name for path in root.iterdir()] == ["ogbg_molesol"]


def test_a_download_asks_nothing(tmp_path, monkeypatch):
    module = ogb_module("ogb.graphproppred.dataset_pyg")
    monkeypatch.undo()
    monkeypatch.setattr(module, "decide_download", lambda url: input("This is large. Will you proceed?") == "y")
    with pytest.raises(DataError, match="must be downloadable; got EOFError"):
        load("ogbg-molesol", root=tmp_path, download=True)


def test_a_download_over_an_incomplete_folder_is_refused(esol):
    (esol / "RELEASE_v1.txt").unlink()
    with pytest.raises(
        DataError, match="must be whole or absent to download ogbg-molesol; got a folder without RELEASE"
    ):
        load("ogbg-molesol", root=esol.parent, download=True)


def test_the_blocked_network_is_what_url_errors_come_from():
    with pytest.raises(urllib.error.URLError, match="blocked"):
        ogb_module("ogb.utils.url").decide_download("http://localhost/esol.zip")
