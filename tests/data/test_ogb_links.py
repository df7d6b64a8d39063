from __future__ import annotations

import re

import numpy
import pytest
import torch
from ogb_files import make_ogb, write_pt
from torch_geometric.utils import is_undirected

from graphformer._errors import DataError
from graphformer.data import load
from graphformer.data._quiet_ogb import ogb_module

NAMES = ["ogbl-citation2", "ogbl-collab", "ogbl-ddi", "ogbl-ppa"]
SCHEME = {"ogbl-citation2": "time", "ogbl-collab": "time", "ogbl-ddi": "target", "ogbl-ppa": "throughput"}


def loaded(tmp_path, name):
    make_ogb(name, tmp_path)
    return load(name, root=tmp_path)


def official_split(tmp_path, name):
    return ogb_module("ogb.linkproppred").PygLinkPropPredDataset(name, root=str(tmp_path)).get_edge_split()


def links(rows):
    return rows["edge"].T if "edge" in rows else torch.stack([rows["source_node"], rows["target_node"]])


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_is_that_of_the_training_links_each_once_in_either_direction(tmp_path, name):
    task = loaded(tmp_path, name)
    train, valid, test = (part[0] for part in (task.train, task.valid, task.test))
    assert train.edge_index.data_ptr() == valid.edge_index.data_ptr() == test.edge_index.data_ptr()
    assert train.x.data_ptr() == valid.x.data_ptr() == test.x.data_ptr()
    edges = list(map(tuple, train.edge_index.T.tolist()))
    expected = {tuple(pair) for pair in links(official_split(tmp_path, name)["train"]).T.tolist()}
    assert set(edges) == expected | {(b, a) for a, b in expected}
    assert len(edges) == len(set(edges))
    assert is_undirected(train.edge_index, num_nodes=train.num_nodes)


@pytest.mark.parametrize("name", NAMES)
def test_no_link_of_validation_or_test_is_in_the_graph(tmp_path, name):
    task = loaded(tmp_path, name)
    edges = set(map(tuple, task.train[0].edge_index.T.tolist()))
    for part in (task.valid, task.test):
        held_out = part[0].pair_index[:, part[0].y.flatten() == 1].T.tolist()
        assert len(held_out) == 12
        assert not edges & set(map(tuple, held_out))


@pytest.mark.parametrize("name", NAMES)
def test_training_holds_links_and_the_others_links_and_then_official_pairs(tmp_path, name):
    task = loaded(tmp_path, name)
    split = official_split(tmp_path, name)
    assert torch.equal(task.train[0].pair_index, links(split["train"]))
    assert (task.train[0].y == 1).all()
    for part, rows in (("valid", split["valid"]), ("test", split["test"])):
        graph = getattr(task, part)[0]
        assert torch.equal(graph.pair_index[:, :12], links(rows))
        others = graph.pair_index[:, 12:]
        if name == "ogbl-citation2":
            assert torch.equal(others[0].view(12, 10), rows["source_node"][:, None].expand(12, 10))
            assert torch.equal(others[1].view(12, 10), rows["target_node_neg"])
        else:
            assert torch.equal(others, rows["edge_neg"].T)
        assert graph.y.tolist() == [[1.0]] * 12 + [[0.0]] * others.size(1)


@pytest.mark.parametrize(
    ("name", "metric", "categories", "numbers"),
    [
        ("ogbl-citation2", "mrr", (), 128),
        ("ogbl-collab", "hits@50", (), 128),
        ("ogbl-ddi", "hits@20", (50,), 0),
        ("ogbl-ppa", "hits@100", (), 58),
    ],
)
def test_the_task_is_ogbs(tmp_path, name, metric, categories, numbers):
    task = loaded(tmp_path, name)
    assert (task.level, task.task_type, task.num_tasks, task.num_outputs) == ("link", "link prediction", 1, 1)
    assert (task.metric, task.higher_is_better) == (metric, True)
    assert (task.features.node_categories, task.features.node_channels) == (categories, numbers)
    assert task.features.edge_width == 0
    graph = task.test[0]
    assert graph.x.shape == (50, numbers or 1)
    official = ogb_module("ogb.linkproppred").Evaluator(name)
    scores = torch.rand(len(graph.y), 1)
    positive, negative = scores[:12, 0], scores[12:, 0]
    if metric == "mrr":
        expected = official.eval({"y_pred_pos": positive, "y_pred_neg": negative.view(12, 10)})["mrr_list"].mean()
    else:
        expected = official.eval({"y_pred_pos": positive, "y_pred_neg": negative})[metric]
    assert 0 < expected < 1
    assert task.evaluate(graph.y, scores) == pytest.approx(float(expected))


def test_a_drug_is_told_by_its_number(tmp_path):
    assert loaded(tmp_path, "ogbl-ddi").train[0].x.flatten().tolist() == list(range(50))


def test_each_link_is_ranked_among_its_own_rivals(tmp_path):
    task = loaded(tmp_path, "ogbl-citation2")
    scores = torch.full((132,), -1.0)
    scores[:12] = 0.0
    scores[12:22] = 1.0  # the rivals of the first link
    assert task.evaluate(task.test[0].y, scores[:, None]) == pytest.approx((1 / 11 + 11) / 12)


@pytest.mark.parametrize(
    ("name", "y", "scores", "reason"),
    [
        ("ogbl-ddi", torch.zeros(40, 1), torch.rand(40, 1), "no labels"),
        ("ogbl-ddi", torch.ones(40, 1), torch.rand(40, 1), "no pairs that are none"),
        ("ogbl-citation2", torch.ones(40, 1), torch.rand(40, 1), "no pairs that are none"),
        ("ogbl-ddi", torch.ones(40, 1), torch.full((40, 1), torch.nan), "predictions that are NaN"),
        ("ogbl-citation2", torch.tensor([[1.0], [1.0], [0.0]]), torch.rand(3, 1), "shape"),
    ],
)
def test_a_measure_that_is_not_defined_is_told(tmp_path, name, y, scores, reason):
    task = loaded(tmp_path, name)
    with pytest.raises(DataError, match=f"{name}'s labels and predictions must have a {task.metric}; got .*{reason}"):
        task.evaluate(y, scores)


@pytest.mark.parametrize("numpy_core", [b"numpy.core.", b"numpy._core."])
@pytest.mark.parametrize("zipped", [False, True])  # torch's file format before and after 1.6
def test_the_splits_of_older_and_newer_packages_are_read(tmp_path, numpy_core, zipped):
    folder = make_ogb("ogbl-ddi", tmp_path)
    expected = load("ogbl-ddi", root=tmp_path).test[0].pair_index
    path = folder / "split/target/test.pt"
    rows = {"edge": expected[:, :12].T.numpy(), "edge_neg": expected[:, 12:].T.numpy()}
    if zipped:
        write_pt(path, rows, numpy_core)
    else:
        torch.save(rows, path, _use_new_zipfile_serialization=False)
        path.write_bytes(re.sub(rb"numpy\._?core\.", numpy_core, path.read_bytes()))
    assert numpy_core in path.read_bytes()
    assert torch.equal(load("ogbl-ddi", root=tmp_path).test[0].pair_index, expected)


@pytest.mark.parametrize("name", NAMES)
def test_ids_that_name_no_node_are_told(tmp_path, name):
    folder = make_ogb(name, tmp_path)
    ends = numpy.array([[0, 1], [2, 50]])
    rows = {"edge": ends} if name != "ogbl-citation2" else {"source_node": ends[:, 0], "target_node": ends[:, 1]}
    write_pt(folder / f"split/{SCHEME[name]}/train.pt", rows)
    with pytest.raises(DataError, match=rf"{name}'s files must agree: the split's node ids lie in \[0, 50\)"):
        load(name, root=tmp_path)
