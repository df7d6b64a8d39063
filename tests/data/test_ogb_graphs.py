from __future__ import annotations

import gzip
from dataclasses import replace

import pytest
import torch
from ogb_files import MOLECULES, make_ogb, write_csv, write_graphs, write_split
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from graphformer._errors import DataError, InputError
from graphformer.data import from_smiles, load
from graphformer.data._quiet_ogb import ogb_module


@pytest.fixture
def esol(tmp_path):
    return make_ogb("ogbg-molesol", tmp_path)


def relabel(folder, labels):
    write_csv(folder / "raw/graph-label.csv.gz", labels)


def resplit(folder, **parts):
    for part, ids in parts.items():
        write_csv(folder / f"split/scaffold/{part}.csv.gz", ids)


def test_a_data_set_on_disk_loads_with_its_split(esol, capfd):
    relabel(esol, [0.5 * row for row in range(24)])
    resplit(esol, train=[6, 0, 2, 3], valid=[1], test=[5, 4])
    task = load("ogbg-molesol", root=esol.parent)
    assert [graph.y.item() for graph in task.train] == [3.0, 0.0, 1.0, 1.5]
    assert [graph.y.item() for graph in task.valid] == [0.5]
    assert [graph.y.item() for graph in task.test] == [2.5, 2.0]
    assert (task.level, task.num_tasks, task.num_outputs) == ("graph", 1, 1)
    assert (task.task_type, task.metric, task.higher_is_better) == ("regression", "rmse", False)
    assert capfd.readouterr() == ("", "")


def test_its_graphs_are_those_of_the_molecules(esol):
    task = load("ogbg-molesol", root=esol.parent)
    for text, graph in zip(MOLECULES, [*task.train, *task.valid, *task.test], strict=True):
        expected = from_smiles(text)
        assert torch.equal(graph.x, expected.x)
        assert torch.equal(graph.edge_index, expected.edge_index)
        assert torch.equal(graph.edge_attr, expected.edge_attr)


def test_a_molecule_of_one_atom_has_no_edges_and_goes_into_a_batch(esol):
    task = load("ogbg-molesol", root=esol.parent)
    assert [(graph.num_nodes, graph.num_edges) for graph in task.test[-2:]] == [(1, 0), (1, 0)]
    batch = next(iter(DataLoader(task.test, batch_size=4)))
    assert (batch.num_nodes, batch.y.shape, batch.edge_attr.shape[1]) == (12, (4, 1), 3)


def test_it_loads_again_from_the_processed_file(esol):
    load("ogbg-molesol", root=esol.parent)
    (esol / "raw/node-feat.csv.gz").write_bytes(b"not read any more")
    assert len(load("ogbg-molesol", root=esol.parent).train) == 16


def test_pyg_can_still_load_its_own_files_afterwards(esol, tmp_path):
    load("ogbg-molesol", root=esol.parent)
    torch.save(Data(x=torch.zeros(2, 1)), tmp_path / "data.pt")
    assert torch.load(tmp_path / "data.pt", weights_only=True).num_nodes == 2


def test_it_loads_from_the_folder_name_of_older_releases(esol):
    esol.rename(esol.parent / "ogbg_molesol_pyg")
    assert len(load("ogbg-molesol", root=esol.parent).test) == 4


def test_the_measure_is_the_official_one(esol):
    task = load("ogbg-molesol", root=esol.parent)
    y_true, y_pred = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[2.0], [2.0], [1.0]])
    official = ogb_module("ogb.graphproppred").Evaluator("ogbg-molesol")
    expected = official.eval({"y_true": y_true, "y_pred": y_pred})["rmse"]
    assert task.evaluate(y_true, y_pred) == pytest.approx(expected)
    assert expected == pytest.approx((10 / 3) ** 0.5)


def test_missing_labels_are_nan_and_do_not_count(tmp_path):
    folder = make_ogb("ogbg-molclintox", tmp_path)
    rows = [[row % 2, (row // 2) % 2] for row in range(24)]
    rows[0][1] = "nan"
    relabel(folder, rows)
    task = load("ogbg-molclintox", root=tmp_path)
    assert (task.num_tasks, task.metric, task.higher_is_better) == (2, "rocauc", True)
    assert task.train[0].y.isnan().tolist() == [[False, True]]
    y_true = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, torch.nan]])
    y_pred = torch.tensor([[0.9, 0.2], [0.1, 0.7], [0.8, 0.99]])
    assert task.evaluate(y_true, y_pred) == 1.0


def test_a_task_without_labels_or_with_one_class_does_not_count(tmp_path):
    folder = make_ogb("ogbg-molclintox", tmp_path)
    relabel(folder, [["nan", row % 2] for row in range(24)])
    task = load("ogbg-molclintox", root=tmp_path)
    y_true = torch.cat([graph.y for graph in task.test])
    assert y_true[:, 0].isnan().all()
    right = torch.tensor([[0.3, 0.0], [0.1, 1.0], [0.2, 0.0], [0.4, 1.0]])
    assert task.evaluate(y_true, right) == 1.0
    assert task.evaluate(y_true.nan_to_num(1.0), 1 - right) == 0.0


def test_whole_numbers_become_float_labels(tmp_path):
    make_ogb("ogbg-molbace", tmp_path)
    assert load("ogbg-molbace", root=tmp_path).train[0].y.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "y_true", "y_pred", "reason"),
    [
        ("ogbg-molbace", torch.ones(3, 1), torch.rand(3, 1), "No positively labeled data"),
        ("ogbg-molbace", torch.full((3, 1), torch.nan), torch.rand(3, 1), "no labels"),
        ("ogbg-molbace", torch.tensor([[0.0], [1.0]]), torch.full((2, 1), torch.nan), "Input contains NaN"),
        ("ogbg-molesol", torch.full((3, 1), torch.nan), torch.rand(3, 1), "no labels"),
        ("ogbg-ppa", torch.full((3, 1), -1), torch.rand(3, 37), "no labels"),
        ("ogbg-ppa", torch.ones(1, 1).long(), torch.full((1, 37), torch.nan), "predictions that are NaN"),
    ],
)
def test_a_measure_that_is_not_defined_is_told(tmp_path, name, y_true, y_pred, reason):
    make_ogb(name, tmp_path)
    task = load(name, root=tmp_path)
    rule = f"evaluate: {name}'s labels and predictions must have a {task.metric}; got {reason}.*Check for NaN"
    with pytest.raises(DataError, match=rule):
        task.evaluate(y_true, y_pred)


def test_evaluate_checks_shapes(esol):
    task = load("ogbg-molesol", root=esol.parent)
    with pytest.raises(InputError, match=r"evaluate: y_true must have shape \[rows, 1\]; got \[3, 2\]"):
        task.evaluate(torch.ones(3, 2), torch.ones(3, 2))
    with pytest.raises(InputError, match=r"evaluate: y_pred must have shape \[3, 1\]; got \[4, 1\]"):
        task.evaluate(torch.ones(3, 1), torch.ones(4, 1))


def test_associations_carry_edge_features_and_a_class(tmp_path):
    make_ogb("ogbg-ppa", tmp_path)
    task = load("ogbg-ppa", root=tmp_path)
    assert (task.task_type, task.num_tasks, task.num_outputs) == ("multiclass classification", 1, 37)
    assert (task.features.node_categories, task.features.node_channels, task.features.edge_width) == ((), 0, 7)
    graph = task.train[4]
    assert graph.x is None
    assert (graph.edge_attr.shape, graph.edge_attr.dtype) == ((graph.num_edges, 7), torch.float32)
    assert (graph.y.tolist(), graph.y.dtype) == ([[1]], torch.int64)
    batch = next(iter(DataLoader(task.train, batch_size=16)))
    assert batch.num_nodes == sum(graph.num_nodes for graph in task.train) > batch.edge_index.max()


def test_associations_of_whole_strengths_are_numbers_still(tmp_path):
    folder = make_ogb("ogbg-ppa", tmp_path)
    graphs = [{"num_nodes": 2, "edge": [(0, 1)], "edge-feat": [[1] * 7]}, {"num_nodes": 1, "edge": [], "edge-feat": []}]
    write_graphs(folder, graphs * 6, [row % 2 for row in range(12)])
    write_split(folder, "species", 12)
    task = load("ogbg-ppa", root=tmp_path)
    assert (task.train[0].edge_attr.tolist(), task.train[0].edge_attr.dtype) == ([[1.0] * 7] * 2, torch.float32)
    assert (task.train[1].num_nodes, task.train[1].edge_attr.shape) == (1, (0, 7))


def test_classes_are_measured_by_their_highest_score(tmp_path):
    make_ogb("ogbg-ppa", tmp_path)
    task = load("ogbg-ppa", root=tmp_path)
    y_true = torch.tensor([[3], [36], [0], [-1]])
    y_pred = torch.zeros(4, 37)
    y_pred[[0, 1, 2, 3], [3, 36, 5, 7]] = 1.0
    assert task.evaluate(y_true, y_pred) == pytest.approx(2 / 3)  # the last has no label


def test_a_class_that_there_is_not_is_told(tmp_path):
    folder = make_ogb("ogbg-ppa", tmp_path)
    relabel(folder, [37] * 24)
    with pytest.raises(DataError, match=r"ogbg-ppa's files must agree: the classes lie in \[0, 37\); got ids from 37"):
        load("ogbg-ppa", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "scheme"), [("ogbg-molesol", "scaffold"), ("ogbg-ppa", "species"), ("ogbg-code2", "project")]
)
def test_a_split_that_names_no_graph_is_told(tmp_path, name, scheme):
    write_csv(make_ogb(name, tmp_path) / f"split/{scheme}/test.csv.gz", [3, 24])
    told = rf"^load: {name}'s files must agree: the split's graph ids lie in \[0, 24\); got ids from 3 to 24"
    with pytest.raises(DataError, match=told):
        load(name, root=tmp_path)


def test_the_smiles_are_those_of_each_part(esol):
    resplit(esol, train=[6, 0, 2, 3], valid=[1], test=[5, 4])
    task = load("ogbg-molesol", root=esol.parent)
    assert task.smiles("train") == [MOLECULES[row] for row in (6, 0, 2, 3)]
    assert task.smiles("test") == [MOLECULES[row] for row in (5, 4)]
    for part in ("train", "valid", "test"):
        for text, graph in zip(task.smiles(part), getattr(task, part), strict=True):
            assert torch.equal(from_smiles(text).x, graph.x)


def test_smiles_that_are_missing_damaged_or_too_few_are_told_when_they_are_asked_for(esol):
    table = esol / "mapping/mol.csv.gz"
    whole = table.read_bytes()
    task = load("ogbg-molesol", root=esol.parent)
    for damaged, got in ((whole[:60], "EOFError"), (b"smiles", "BadGzipFile"), (None, "FileNotFoundError")):
        table.unlink() if damaged is None else table.write_bytes(damaged)
        with pytest.raises(
            DataError, match=rf"load: .*mol.csv.gz must be a readable table with a column smiles; got {got}"
        ):
            task.smiles("train")
    write_csv(table, ["CC"], "text")
    with pytest.raises(DataError, match="column smiles; got KeyError: 'smiles'"):
        task.smiles("train")
    write_csv(table, MOLECULES[:-1], "smiles")
    with pytest.raises(DataError, match="there are 24 rows of SMILES; got 23"):
        task.smiles("train")


def test_graphs_that_are_no_molecules_have_no_smiles(tmp_path):
    make_ogb("ogbg-ppa", tmp_path)
    task = load("ogbg-ppa", root=tmp_path)
    assert task.smiles is None
    assert task.task_names == ()


def test_the_labels_are_called_as_in_the_header_of_the_table(tmp_path):
    folder = make_ogb("ogbg-molclintox", tmp_path)
    assert load("ogbg-molclintox", root=tmp_path).task_names == ("label 0", "label 1")
    for header in ('"Cysts, and\tpolyps",CT_TOX,smiles,mol_id', 'mol_id,"Cysts, and polyps",smiles,CT_TOX'):
        write_csv(folder / "mapping/mol.csv.gz", [], header)
        assert load("ogbg-molclintox", root=tmp_path).task_names == ("Cysts, and polyps", "CT_TOX")


def test_a_table_that_tells_no_name_for_each_label_keeps_nobody_from_training(tmp_path):
    table = make_ogb("ogbg-molclintox", tmp_path) / "mapping/mol.csv.gz"
    whole = table.read_bytes()
    zeros = whole[:40] + bytes(20) + whole[60:]
    for damaged in (whole[:12], zeros, b"smiles", gzip.compress(b""), gzip.compress(b"\xff\xfe,a,smiles\n")):
        table.write_bytes(damaged)
        assert load("ogbg-molclintox", root=tmp_path).task_names == ()
    for header in ("FDA_APPROVED,smiles,mol_id", "a,b,c,smiles,mol_id"):
        write_csv(table, [], header)
        assert load("ogbg-molclintox", root=tmp_path).task_names == ()
    table.unlink()
    task = load("ogbg-molclintox", root=tmp_path)
    assert (task.task_names, len(task.train)) == ((), 16)


def test_a_task_has_as_many_names_as_labels_or_none(esol):
    task = load("ogbg-molesol", root=esol.parent)
    with pytest.raises(InputError, match="Task: task_names must be empty or name the 1 tasks; got 2 names. Give one"):
        replace(task, task_names=("a", "b"))
