from __future__ import annotations

import numpy as np
import pytest
import torch
from pyg_files import PEPTIDES, labels, make_lrgb, make_peptides, make_planetoid, make_tu, make_zinc
from torch_geometric.datasets import ZINC, LRGBDataset, Planetoid, TUDataset
from torch_geometric.transforms import NormalizeFeatures

from graphformer._errors import InputError
from graphformer.data import from_smiles, load, names
from graphformer.data.pyg.lrgb import _COCO
from graphformer.data.pyg.tudataset import fold_of
from graphformer.nn import EdgeEncoder, NodeEncoder

MAKERS = {
    "cora": make_planetoid,
    "tu-mutag": make_tu,
    "zinc": make_zinc,
    "pascalvoc-sp": make_lrgb,
    "coco-sp": lambda root: make_lrgb(root, "coco-sp"),
    "peptides-func": make_peptides,
    "peptides-struct": lambda root: make_lrgb(root, "peptides-struct"),
}
SPLITS = {"train": "train", "valid": "val", "test": "test"}


def graphs_of(task):
    return [*task.train, *task.valid, *task.test]


def same(ours, theirs) -> bool:
    """The same graph, with y in whatever shape."""
    return (
        torch.equal(ours.edge_index, theirs.edge_index)
        and torch.equal(ours.x, theirs.x)
        and torch.equal(ours.edge_attr.flatten(), theirs.edge_attr.flatten())
        and torch.equal(ours.y.flatten(), theirs.y.flatten())
    )


def numbers_of(graph) -> list[float]:
    """A graph of a TUDataset in a row: edges, label, and the labels of its edges, which nothing standardises."""
    edge_labels = [] if graph.edge_attr is None else graph.edge_attr[:, 1:].flatten().tolist()
    return [graph.num_nodes, *graph.edge_index.flatten().tolist(), *graph.y.flatten().tolist(), *edge_labels]


@pytest.mark.parametrize("name", MAKERS)
def test_each_task_is_what_it_says(name, tmp_path):
    """Shapes, kinds and ranges as Task and Features promise; encoders and measure take them."""
    MAKERS[name](tmp_path)
    task = load(name, root=tmp_path)
    assert task.name == name
    rows = []
    for graph in graphs_of(task):
        NodeEncoder(task.features, 4)(graph)
        if task.features.edge_width:
            EdgeEncoder(task.features, 4)(graph)
        count = {"graph": 1, "node": graph.num_nodes}[task.level]
        asked = graph.target_index if "target_index" in graph else torch.arange(count)
        assert graph.y.shape == (len(asked), task.num_tasks)
        rows.append(graph.y)
    y = torch.cat(rows)
    if task.task_type == "multiclass classification":
        assert y.dtype == torch.int64
        assert y.min() >= 0
        assert y.max() < task.num_outputs
        perfect = torch.nn.functional.one_hot(y[:, 0], task.num_outputs).float()
    else:
        assert y.dtype == torch.float32
        assert task.num_outputs == task.num_tasks
        perfect = y
    assert task.evaluate(y, perfect) == (1.0 if task.higher_is_better else 0.0)


@pytest.mark.parametrize("gaps", [(), (3, 11)], ids=["cora", "citeseer"])
def test_planetoid_is_that_of_pyg(gaps, tmp_path):
    name, pyg_name = ("citeseer", "CiteSeer") if gaps else ("cora", "Cora")
    make_planetoid(tmp_path, name, gaps=gaps)
    expected = Planetoid(str(tmp_path), pyg_name, transform=NormalizeFeatures())[0]
    task = load(name, root=tmp_path)
    masks = (expected.train_mask, expected.val_mask, expected.test_mask)
    for (graph,), mask in zip((task.train, task.valid, task.test), masks, strict=True):
        assert torch.equal(graph.x, expected.x)
        assert torch.equal(graph.edge_index, expected.edge_index)
        assert torch.equal(graph.target_index, mask.nonzero()[:, 0])
        assert torch.equal(graph.y[:, 0], expected.y[mask])
    assert (task.level, task.metric, task.num_outputs) == ("node", "acc", 2)
    assert [len(part[0].y) for part in (task.train, task.valid, task.test)] == [6, 500, 40]
    assert task.train[0].x is task.test[0].x


def test_planetoid_rows_sum_to_one(tmp_path):
    make_planetoid(tmp_path)
    sums = load("cora", root=tmp_path).train[0].x.sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize("tables", ["all", "bare", "numbers"])
def test_tu_is_that_of_pyg(tables, tmp_path):
    make_tu(tmp_path, "Mutagenicity", tables=tables)
    expected = TUDataset(str(tmp_path), "Mutagenicity", use_node_attr=True, use_edge_attr=True)
    task = load("tu-mutagenicity", root=tmp_path)
    ours, theirs = sorted(map(numbers_of, graphs_of(task))), sorted(map(numbers_of, expected))
    assert ours == theirs
    assert len(graphs_of(task)) == len(expected) == 30
    assert task.features.node_channels == expected.num_node_features
    assert task.features.edge_channels == expected.num_edge_features
    assert (task.metric, task.task_type) == {
        "numbers": ("mae", "regression"),
    }.get(tables, ("acc", "multiclass classification"))
    assert task.num_outputs == 2


def test_tu_attributes_are_standardised_by_the_training_graphs_and_labels_one_hot(tmp_path):
    make_tu(tmp_path)
    task = load("tu-mutag", root=tmp_path)
    x = torch.cat([graph.x for graph in task.train])
    torch.testing.assert_close(x[:, :2].mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(x[:, :2].std(0, unbiased=False), torch.ones(2))
    assert set(x[:, 2:].flatten().tolist()) == {0.0, 1.0}
    assert (x[:, 2:].sum(1) == 1).all()
    everything = torch.cat([graph.x for graph in graphs_of(task)])
    assert everything[:, :2].mean(0).abs().max() > 1e-3  # the other graphs had no part in it
    edges = torch.cat([graph.edge_attr for graph in task.train])
    torch.testing.assert_close(edges[:, 0].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)


def test_tu_split_is_stratified_and_always_the_same(tmp_path):
    make_tu(tmp_path, num_graphs=60)
    task = load("tu-mutag", root=tmp_path)
    counts = [
        torch.cat([graph.y for graph in part]).flatten().bincount().tolist()
        for part in (task.train, task.valid, task.test)
    ]
    assert counts == [[16, 32], [2, 4], [2, 4]]
    # From numpy's frozen stream; another draw would move graphs between train and test of every user.
    assert fold_of(torch.zeros(12, dtype=torch.int64)).tolist() == [0, 6, 4, 9, 2, 1, 0, 7, 5, 8, 3, 1]


def test_any_tu_name_and_case_is_taken(tmp_path):
    make_tu(tmp_path, "deezer_Ego")
    assert len(graphs_of(load("tu-DEEZER_ego", root=tmp_path))) == 30
    with pytest.raises(InputError, match=r"load: name must be one of .*: logp, "):
        load("tu-", root=tmp_path)
    with pytest.raises(InputError, match=r"load: name must be one of .*: logp, "):
        load("tu-../x", root=tmp_path)


def test_zinc_is_that_of_pyg(tmp_path, capfd):
    folder = make_zinc(tmp_path)
    task = load("zinc", root=tmp_path)
    for part, split in SPLITS.items():
        expected = ZINC(str(folder), subset=True, split=split)
        graphs = getattr(task, part)
        assert len(graphs) == len(expected) == {"train": 8}.get(part, 3)
        assert all(same(ours, theirs) for ours, theirs in zip(graphs, expected, strict=True))
    assert (task.metric, task.higher_is_better) == ("mae", False)


def test_superpixels_are_those_of_pyg_standardised(tmp_path):
    make_lrgb(tmp_path)
    task = load("pascalvoc-sp", root=tmp_path)
    expected = {part: LRGBDataset(str(tmp_path), "PascalVOC-SP", split) for part, split in SPLITS.items()}
    for name in ("x", "edge_attr"):
        training = torch.cat([graph[name] for graph in expected["train"]])
        mean, deviation = training.mean(0), training.std(0, unbiased=False)
        for part, theirs in expected.items():
            for graph, other in zip(getattr(task, part), theirs, strict=True):
                torch.testing.assert_close(graph[name], (other[name] - mean) / deviation, atol=1e-5, rtol=1e-5)
                assert torch.equal(graph.edge_index, other.edge_index)
                assert torch.equal(graph.y[:, 0], other.y)
    assert (task.level, task.metric, task.num_outputs) == ("node", "F1", 21)


def test_coco_labels_are_those_of_pyg(tmp_path):
    make_lrgb(tmp_path, "coco-sp")
    task = load("coco-sp", root=tmp_path)
    expected = LRGBDataset(str(tmp_path), "COCO-SP", "train")
    assert [graph.y[:, 0].tolist() for graph in task.train] == [graph.y.tolist() for graph in expected]
    assert {number: place for place, number in enumerate(_COCO)} == LRGBDataset.label_remap_coco(None)
    assert task.num_outputs == 81


@pytest.mark.parametrize("name", ["peptides-func", "peptides-struct"])
def test_peptides_are_those_of_pyg(name, tmp_path):
    make_lrgb(tmp_path, name)
    task = load(name, root=tmp_path)
    for part, split in SPLITS.items():
        expected = LRGBDataset(str(tmp_path), name, split)
        assert all(same(ours, theirs) for ours, theirs in zip(getattr(task, part), expected, strict=True))
    assert (task.metric, task.num_tasks) == (("ap", 10) if name == "peptides-func" else ("mae", 11))


@pytest.mark.parametrize("split", ["npz", "json"])
def test_peptides_come_from_their_table(split, tmp_path):
    make_peptides(tmp_path, split)
    task = load("peptides-func", root=tmp_path)
    rows = {"train": range(1, 13), "valid": [0, 13, 14, 15], "test": [19, 18, 17, 16]}
    for part, which in rows.items():
        for graph, row in zip(getattr(task, part), which, strict=True):
            expected = from_smiles(PEPTIDES[row], labels(row))
            assert same(graph, expected)
            assert graph.x.dtype == graph.edge_attr.dtype == graph.edge_index.dtype == torch.int64
        assert task.smiles(part) == [PEPTIDES[row] for row in which]
    assert (task.metric, task.num_tasks, task.task_type) == ("ap", 10, "binary classification")


def test_pygs_files_of_peptides_are_taken_before_the_table(tmp_path):
    make_peptides(tmp_path)
    make_lrgb(tmp_path, "peptides-func")
    task = load("peptides-func", root=tmp_path)
    assert len(task.train) == 6
    assert task.smiles is None


def test_names_hold_the_sets():
    assert {*MAKERS, "citeseer", "pubmed", "tu-enzymes", "tu-imdb-binary"} <= set(names())
    assert len(names()) == len(set(names()))


def test_folds_of_small_classes_differ_by_one_graph():
    label = torch.from_numpy(np.repeat([0, 1, 2], [23, 4, 41]))
    for kind, count in enumerate((23, 4, 41)):
        sizes = fold_of(label)[label == kind].bincount(minlength=10)
        assert sizes.sum() == count
        assert sizes.max() - sizes.min() <= 1
