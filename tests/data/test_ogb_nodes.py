from __future__ import annotations

import pytest
import torch
from ogb_files import make_ogb, write_csv, write_graphs, write_split
from torch_geometric.utils import contains_isolated_nodes, is_undirected

from graphformer._errors import DataError
from graphformer.data import load
from graphformer.data._quiet_ogb import ogb_module

NAMES = ["ogbn-arxiv", "ogbn-mag", "ogbn-products", "ogbn-proteins"]


def loaded(tmp_path, name):
    make_ogb(name, tmp_path)
    return load(name, root=tmp_path)


def write_path(folder, scheme, labels, **tables):
    """A path of 6 nodes, (0, 1) to (3, 4); the last node is alone."""
    write_graphs(folder, [{"num_nodes": 6, "edge": [(i, i + 1) for i in range(4)], **tables}], labels)
    write_split(folder, scheme, 6)


@pytest.mark.parametrize("name", NAMES)
def test_the_three_parts_share_the_graph_and_differ_in_what_is_asked(tmp_path, name):
    task = loaded(tmp_path, name)
    train, valid, test = (part[0] for part in (task.train, task.valid, task.test))
    assert len(task.train) == len(task.valid) == len(task.test) == 1
    shared = set(train.keys()) - {"target_index", "y"}
    assert {"x", "edge_index"} <= shared
    for key in shared:
        assert train[key].data_ptr() == valid[key].data_ptr() == test[key].data_ptr()
    asked = torch.cat([part.target_index for part in (train, valid, test)])
    assert len(asked.unique()) == len(asked)  # nobody is asked about twice
    for part in (train, valid, test):
        assert part.y.shape == (len(part.target_index), task.num_tasks)
        assert part.target_index.max() < part.num_nodes


@pytest.mark.parametrize("name", NAMES)
def test_every_edge_goes_both_ways_with_what_it_carries(tmp_path, name):
    graph = loaded(tmp_path, name).train[0]
    attr = graph.edge_attr // 2 if name == "ogbn-mag" else graph.edge_attr  # there, a category a direction
    assert is_undirected(graph.edge_index, attr, num_nodes=graph.num_nodes)


@pytest.mark.parametrize(
    ("name", "task_type", "num_tasks", "num_outputs", "metric"),
    [
        ("ogbn-arxiv", "multiclass classification", 1, 40, "acc"),
        ("ogbn-mag", "multiclass classification", 1, 349, "acc"),
        ("ogbn-products", "multiclass classification", 1, 47, "acc"),
        ("ogbn-proteins", "binary classification", 112, 112, "rocauc"),
    ],
)
def test_the_task_is_ogbs(tmp_path, name, task_type, num_tasks, num_outputs, metric):
    task = loaded(tmp_path, name)
    assert (task.level, task.task_type, task.num_tasks, task.num_outputs) == ("node", task_type, num_tasks, num_outputs)
    assert (task.metric, task.higher_is_better) == (metric, True)
    y = torch.cat([part[0].y for part in (task.train, task.valid, task.test)])
    assert y.dtype == (torch.float32 if metric == "rocauc" else torch.int64)
    official = ogb_module("ogb.nodeproppred").Evaluator(name)
    scores = torch.rand(len(y), num_outputs)
    said = scores if metric == "rocauc" else scores.argmax(1, keepdim=True)
    assert task.evaluate(y, scores) == pytest.approx(official.eval({"y_true": y, "y_pred": said})[metric])


def test_labels_are_those_of_the_nodes_asked_about(tmp_path):
    folder = make_ogb("ogbn-arxiv", tmp_path)
    write_csv(folder / "raw/node-label.csv.gz", [node % 40 for node in range(60)])
    write_csv(folder / "split/time/valid.csv.gz", [7, 41, 3])
    graph = load("ogbn-arxiv", root=tmp_path).valid[0]
    assert graph.target_index.tolist() == [7, 41, 3]
    assert graph.y.tolist() == [[7], [1], [3]]


def test_citations_are_followed_both_ways_once(tmp_path):
    folder = make_ogb("ogbn-arxiv", tmp_path)
    features = [[node] * 128 for node in range(6)]  # whole numbers are numbers still
    write_path(folder, "time", [0] * 6, **{"node-feat": features, "node_year": [2000] * 6})
    write_csv(folder / "raw/edge.csv.gz", [(1, 0), (2, 1), (1, 2), (4, 3)])
    graph = load("ogbn-arxiv", root=tmp_path).train[0]
    assert graph.edge_index.tolist() == [[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]]
    assert (graph.x[:, 0].tolist(), graph.x.dtype) == ([0, 1, 2, 3, 4, 5], torch.float32)


def test_a_protein_is_the_mean_of_its_edges_and_zero_without_any(tmp_path):
    folder = make_ogb("ogbn-proteins", tmp_path)
    strength = [[0.1 * (i + 1)] * 8 for i in range(4)]
    labels = [[(node + task) % 2 for task in range(112)] for node in range(6)]
    write_path(folder, "species", labels, **{"edge-feat": strength, "species": [4932] * 6})
    task = load("ogbn-proteins", root=tmp_path)
    assert (task.features.node_channels, task.features.edge_channels) == (8, 8)
    graph = task.train[0]
    torch.testing.assert_close(graph.x[:, 3], torch.tensor([0.1, 0.15, 0.25, 0.35, 0.4, 0.0]))
    torch.testing.assert_close(graph.edge_attr[:, 0], torch.tensor([0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4]))
    assert contains_isolated_nodes(graph.edge_index, num_nodes=6)


def test_types_of_mag_are_one_node_set_one_after_the_other(tmp_path):
    task = loaded(tmp_path, "ogbn-mag")
    assert (task.features.node_categories, task.features.node_channels) == ((4,), 128)
    graph = task.train[0]
    assert graph.x_category.flatten().tolist() == [0] * 20 + [1] * 6 + [2] * 5 + [3] * 30  # papers come last
    raw = ogb_module("ogb.nodeproppred").PygNodePropPredDataset("ogbn-mag", root=str(tmp_path))[0]
    assert torch.equal(graph.x[31:], raw.x_dict["paper"])
    assert not graph.x[:31].any()
    assert torch.equal(graph.y, raw.y_dict["paper"][graph.target_index - 31])
    assert (task.test[0].target_index >= 31).all()


def test_each_relation_of_mag_and_its_reverse_are_a_category(tmp_path):
    task = loaded(tmp_path, "ogbn-mag")
    assert task.features.edge_categories == (8,)
    graph = task.train[0]
    raw = ogb_module("ogb.nodeproppred").PygNodePropPredDataset("ogbn-mag", root=str(tmp_path))[0]
    first = {"author": 0, "field_of_study": 20, "institution": 26, "paper": 31}
    for number, (source, relation, target) in enumerate(sorted(raw.edge_index_dict)):
        edge_index = raw.edge_index_dict[source, relation, target]
        expected = torch.stack([edge_index[0] + first[source], edge_index[1] + first[target]])
        kind = graph.edge_attr.flatten()
        assert torch.equal(graph.edge_index[:, kind == 2 * number], expected)
        assert torch.equal(graph.edge_index[:, kind == 2 * number + 1], expected.flip(0))


def test_a_class_that_is_missing_is_minus_one_and_does_not_count(tmp_path):
    folder = make_ogb("ogbn-arxiv", tmp_path)
    write_csv(folder / "raw/node-label.csv.gz", ["nan" if node == 41 else node % 4 for node in range(60)])
    task = load("ogbn-arxiv", root=tmp_path)
    y = task.valid[0].y
    assert (y[:3].tolist(), y.dtype) == ([[0], [-1], [2]], torch.int64)
    scores = torch.nn.functional.one_hot(y.flatten().clamp(min=0), 40).float()
    scores[2] = 0.0  # one is wrong
    assert task.evaluate(y, scores) == pytest.approx((len(y) - 2) / (len(y) - 1))


def test_a_task_without_labels_does_not_count(tmp_path):
    folder = make_ogb("ogbn-proteins", tmp_path)
    labels = [["nan" if task else node % 2 for task in range(112)] for node in range(60)]
    write_csv(folder / "raw/node-label.csv.gz", labels)
    task = load("ogbn-proteins", root=tmp_path)
    y = task.test[0].y
    assert y[:, 1:].isnan().all()
    assert task.evaluate(y, y.nan_to_num(0.5)) == 1.0
    with pytest.raises(DataError, match="ogbn-proteins's labels and predictions must have a rocauc; got no labels"):
        task.evaluate(y * torch.nan, y.nan_to_num(0.5))


@pytest.mark.parametrize(
    ("name", "table", "rows", "told"),
    [
        ("ogbn-arxiv", "raw/node-label.csv.gz", [40] * 60, r"the classes lie in \[0, 40\); got ids from 40 to 40"),
        ("ogbn-arxiv", "raw/node-label.csv.gz", [-2] * 60, r"the classes lie in \[0, 40\); got ids from -2 to -2"),
        (
            "ogbn-products",
            "split/sales_ranking/test.csv.gz",
            [0, 60],
            "split's node ids lie in .*; got ids from 0 to 60",
        ),
        ("ogbn-mag", "split/time/paper/test.csv.gz", [30], r"the split's node ids lie in \[0, 30\); got ids from 30"),
        (
            "ogbn-mag",
            "raw/relations/author___writes___paper/edge.csv.gz",
            [(20, 0)] * 40,
            r"the author ids of writes lie in \[0, 20\); got ids from 20",
        ),
    ],
)
def test_files_that_contradict_each_other_are_told(tmp_path, name, table, rows, told):
    write_csv(make_ogb(name, tmp_path) / table, rows)
    with pytest.raises(DataError, match=f"load: {name}'s files must agree: (the )?{told}"):
        load(name, root=tmp_path)


def test_a_graph_without_edges_is_told(tmp_path):
    folder = make_ogb("ogbn-products", tmp_path)
    write_graphs(folder, [{"num_nodes": 60, "edge": [], "node-feat": [[0.5] * 100] * 60}], [0] * 60)
    with pytest.raises(DataError, match="ogbn-products's files must be readable; got EmptyDataError"):
        load("ogbn-products", root=tmp_path)
