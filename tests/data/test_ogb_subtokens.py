from __future__ import annotations

import pytest
import torch
from ogb_files import NAMES_OF_FUNCTIONS, make_ogb, write_csv, write_graphs
from torch_geometric.loader import DataLoader

from graphformer._errors import DataError
from graphformer.data import load
from graphformer.data._quiet_ogb import ogb_module
from graphformer.data.ogb import subtokens


@pytest.fixture
def code(tmp_path):
    make_ogb("ogbg-code2", tmp_path)
    return load("ogbg-code2", root=tmp_path)


def name_functions(folder, names):
    write_csv(folder / "raw/graph-label.csv.gz", names)


def test_the_task_is_to_say_five_words(code):
    assert (code.level, code.task_type, code.metric, code.higher_is_better) == (
        "graph",
        "subtoken prediction",
        "F1",
        True,
    )
    assert (code.num_tasks, code.length) == (1, 5)
    assert code.num_outputs == len({word for name in NAMES_OF_FUNCTIONS for word in name.split()})
    assert (code.features.node_categories, code.features.edge_categories) == ((8, 30, 21), (4,))


def test_a_node_has_type_attribute_and_depth_up_to_20(tmp_path):
    folder = make_ogb("ogbg-code2", tmp_path)
    chain = {
        "num_nodes": 30,
        "edge": [(i, i + 1) for i in range(29)],
        "node-feat": [(i % 8, 29 - i) for i in range(30)],
        "node_is_attributed": [0] * 30,
        "node_dfs_order": list(range(30)),
        "node_depth": list(range(30)),
    }
    write_graphs(folder, [chain] * 24, ["get name"] * 24)
    graph = load("ogbg-code2", root=tmp_path).train[0]
    expected = [[i % 8, 29 - i, min(i, 20)] for i in range(30)]
    assert (graph.x.tolist(), graph.x.dtype) == (expected, torch.int64)
    assert graph.edge_attr.flatten().tolist() == [0] * 29 + [1] * 29


def test_edges_go_along_the_tree_and_from_token_to_token_both_ways(tmp_path):
    folder = make_ogb("ogbg-code2", tmp_path)
    tree = {
        "num_nodes": 5,
        "edge": [(0, 1), (0, 2), (2, 3), (2, 4)],
        "node-feat": [(0, 0)] * 5,
        "node_is_attributed": [0, 1, 0, 1, 1],
        "node_dfs_order": [0, 4, 1, 2, 3],  # node 1 comes last
        "node_depth": [0, 1, 1, 2, 2],
    }
    write_graphs(folder, [tree] * 24, ["get name"] * 24)
    graph = load("ogbg-code2", root=tmp_path).valid[1]
    edges = list(zip(*graph.edge_index.tolist(), graph.edge_attr.flatten().tolist(), strict=True))
    tree_edges = [(0, 1), (0, 2), (2, 3), (2, 4)]
    next_tokens = [(3, 4), (4, 1)]
    expected = {(a, b, 0) for a, b in tree_edges} | {(b, a, 1) for a, b in tree_edges}
    expected |= {(a, b, 2) for a, b in next_tokens} | {(b, a, 3) for a, b in next_tokens}
    assert set(edges) == expected
    assert len(edges) == len(expected)


def test_a_tree_of_one_node_has_no_edges_and_goes_into_a_batch(code):
    alone = code.train[9]
    assert (alone.num_nodes, alone.edge_index.shape, alone.edge_attr.shape) == (1, (2, 0), (0, 1))
    batch = next(iter(DataLoader(code.train, batch_size=16)))
    assert batch.y.shape[0] == 16
    assert batch.edge_attr.shape == (batch.num_edges, 1)


def test_a_part_is_a_sequence_of_trees(code):
    assert len(code.train) == 16
    assert [graph.num_nodes for graph in code.train[8:10]] == [30, 1]
    assert torch.equal(code.train[-1].x, code.train[15].x)
    assert len(list(code.train)) == 16
    with pytest.raises(IndexError):
        code.train[16]


def test_the_vocabulary_is_what_training_names_say_most(monkeypatch, tmp_path):
    monkeypatch.setattr(subtokens, "_NUM_WORDS", 3)
    folder = make_ogb("ogbg-code2", tmp_path)
    # b: 16 times, a and c: 8 times and a first, d: only once; in validation d comes up often
    name_functions(folder, ["a b"] * 8 + ["c b"] * 7 + ["c b d"] + ["d e"] * 8)
    task = load("ogbg-code2", root=tmp_path)
    assert task.num_outputs == 3
    assert task.train[0].y.tolist() == [[1, 0, -1]]
    assert task.train[15].y.tolist() == [[2, 0, 3]]
    assert task.valid[0].y.tolist() == [[3, 4, -1]]


def test_names_longer_than_what_is_predicted_are_kept_whole(code):
    longest = max(len(name.split()) for name in NAMES_OF_FUNCTIONS)
    assert longest > code.length
    assert (code.train[2].y >= 0).sum() == longest
    assert code.train[3].y.shape == (1, longest)


def said(task, *names):
    """The ids of what a model says, by the ids of the training names."""
    ids = {}
    for name, graph in zip(NAMES_OF_FUNCTIONS, task.train, strict=False):
        ids.update(zip(name.split(), graph.y.flatten().tolist(), strict=False))
    rows = [[ids[word] for word in name.split()] for name in names]
    return torch.tensor([row + [-1] * (task.length - len(row)) for row in rows])


def test_the_measure_is_ogbs_on_the_true_names(code):
    spoken = ["get name", "get name value", "run", "key of", "set", "is is is is", "", "value get"]
    truth = [NAMES_OF_FUNCTIONS[row % 8] for row in range(8)]
    official = ogb_module("ogb.graphproppred").Evaluator("ogbg-code2")
    expected = official.eval({"seq_ref": [t.split() for t in truth], "seq_pred": [s.split() for s in spoken]})["F1"]
    y_true = torch.cat([graph.y for graph in code.train[:8]])
    assert 0 < expected < 1
    assert code.evaluate(y_true, said(code, *spoken)) == pytest.approx(expected)


def test_words_out_of_the_vocabulary_count_in_the_truth_and_cannot_be_hit(code):
    y_true = torch.cat([graph.y for graph in code.test[2:]])  # "never seen", "get unheard"
    assert (y_true[0, :2] >= code.num_outputs).all()
    right = y_true[:, : code.length]
    assert code.evaluate(y_true, right) == pytest.approx((0 + 0.5) / 2)  # of two words one is hit, beside a wrong one
    nothing_wrong = right.where(right < code.num_outputs, -1)
    assert code.evaluate(y_true, nothing_wrong) == pytest.approx((0 + 2 / 3) / 2)


def test_an_unknown_word_may_be_said_where_every_word_is_known(tmp_path):
    name_functions(make_ogb("ogbg-code2", tmp_path), ["get name"] * 24)
    task = load("ogbg-code2", root=tmp_path)
    assert task.evaluate(task.test[0].y, torch.tensor([[0, task.num_outputs, -1, -1, -1]])) == 0.5


def test_no_names_are_no_measure(code):
    with pytest.raises(DataError, match="must have a F1; got no labels"):
        code.evaluate(torch.full((2, 6), -1), torch.zeros(2, 5, dtype=torch.int64))
