"""Training on nodes, links and classes: what is asked of each batch, and that a run learns, resumes and measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.sampler import SamplerOutput

from graphformer._errors import InputError, MissingPackageError, RunError
from graphformer.cli.main import main
from graphformer.data.task import Task
from graphformer.graphs import Features
from graphformer.models.config import GraphTransformerConfig
from graphformer.train import TrainConfig, evaluate, read_config, resume, train
from graphformer.train.folder import RunFolder, read_checkpoint
from graphformer.train.loaders import training_loader
from graphformer.train.module import GraphModule
from graphformer.train.prepare import prepare
from graphformer.train.record import Record
from graphformer.train.settle import settle

NODES = 60


def two_villages(seed: int = 0) -> tuple[Data, torch.Tensor]:
    """Nodes of two kinds that mostly know their own kind; what they carry tells little."""
    draw = torch.Generator().manual_seed(seed)
    kind = torch.arange(NODES) % 2
    alike = kind.unsqueeze(0) == kind.unsqueeze(1)
    chance = torch.where(alike, 0.2, 0.01)
    upper = torch.triu(torch.rand(NODES, NODES, generator=draw) < chance, diagonal=1)
    pairs = upper.nonzero().T
    x = torch.randn(NODES, 4, generator=draw) + kind.unsqueeze(1)
    return Data(x=x, edge_index=torch.cat((pairs, pairs.flip(0)), dim=1)), kind


def asking(data: Data, **what: torch.Tensor) -> Data:
    out = Data(x=data.x, edge_index=data.edge_index)
    out.update(what)
    return out


def accuracy(y_true, y_pred):
    return float((y_pred.argmax(1) == y_true.squeeze(1)).float().mean())


def ranked(y_true, y_pred):
    """The chance that a link is judged above a pair that is none."""
    links, others = y_pred[y_true == 1], y_pred[y_true == 0]
    return float((links.unsqueeze(0) > others.unsqueeze(1)).float().mean())


def node_task() -> Task:
    data, kind = two_villages()
    places = {"train": torch.arange(0, 20), "valid": torch.arange(20, 40), "test": torch.arange(40, NODES)}
    splits = {split: [asking(data, target_index=ids, y=kind[ids].unsqueeze(1))] for split, ids in places.items()}
    kinds = {"level": "node", "task_type": "multiclass classification", "num_tasks": 1, "num_outputs": 2}
    how = {"measure": accuracy, "metric": "acc", "higher_is_better": True}
    return Task("villages", features=Features((), 4), **how, **kinds, **splits)


def link_task() -> Task:
    data, kind = two_villages()
    links = data.edge_index[:, data.edge_index[0] < data.edge_index[1]]
    other = torch.stack((torch.arange(0, 20, 2), torch.arange(1, 21, 2)))
    judged = torch.cat((links[:, :10], other), dim=1)
    y = torch.cat((torch.ones(10, 1), torch.zeros(10, 1)))
    splits = {
        "train": [asking(data, pair_index=links)],
        "valid": [asking(data, pair_index=judged, y=y)],
        "test": [asking(data, pair_index=judged, y=y)],
    }
    kinds = {"level": "link", "task_type": "link prediction", "num_tasks": 1, "num_outputs": 1}
    how = {"measure": ranked, "metric": "auc", "higher_is_better": True}
    return Task("links", features=Features((), 4), **how, **kinds, **splits)


@pytest.fixture
def quick(tmp_path) -> TrainConfig:
    model = GraphTransformerConfig(channels=16, layers=2, heads=2, walk_steps=0, dropout=0.1)
    return TrainConfig(epochs=20, learning_rate=1e-2, seed=1, folder=str(tmp_path / "run"), model=model)


@pytest.mark.parametrize(("make", "least", "size"), [(node_task, 0.9, None), (link_task, 0.8, 32)])
def test_nodes_and_links_are_learnt(make, least, size, quick, monkeypatch):
    task = make()
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: task)
    result = train(replace(quick, batch_size=size))
    assert result.test >= least
    assert result.baseline is None
    measured = evaluate(quick.folder)
    assert (measured.value, measured.rows) == (result.test, 20)


@pytest.fixture
def drawn(monkeypatch) -> list[list[int]]:
    """Neighbourhoods as pyg-lib draws them, by torch's generator, where it is not installed; the nodes of each."""
    seen: list[list[int]] = []
    edges = two_villages()[0].edge_index

    def sample(self, asked, **_):
        others = torch.randperm(NODES)
        node = torch.cat((asked.node, others[~torch.isin(others, asked.node)][:12]))
        place = torch.full((NODES,), -1)
        place[node] = torch.arange(len(node))
        row, col = place[edges][:, (place[edges] >= 0).all(0)]
        seen.append(node.tolist())
        return SamplerOutput(node, row, col, edge=None, metadata=(asked.input_id, asked.time))

    monkeypatch.setattr("torch_geometric.sampler.NeighborSampler.sample_from_nodes", sample)
    monkeypatch.setattr("torch_geometric.typing.WITH_PYG_LIB", True)
    return seen


def test_neighbourhoods_follow_from_seed_and_epoch(drawn, quick):
    graphs = prepare({"train": node_task().train}, quick)["train"]
    config = replace(quick, neighbors=(3,), batch_size=8)

    def look(config: TrainConfig, epoch: int) -> list[list[int]]:
        drawn.clear()
        batches = list(training_loader(graphs, "node", config, epoch=epoch))
        assert [len(batch.y) for batch in batches] == [8, 8, 4]
        return list(drawn)

    torch.manual_seed(1)
    first, second = look(config, 0), look(config, 1)
    asked = [node for nodes, size in zip(first, (8, 8, 4), strict=True) for node in nodes[:size]]
    assert sorted(asked) == list(range(20))
    assert first != second
    assert look(replace(config, seed=7), 0) != first
    torch.manual_seed(2)
    assert (look(config, 0), look(config, 1)) == (first, second)
    before = torch.get_rng_state()
    alone = training_loader(graphs, "node", replace(config, batch_size=1))
    alone.collate_fn([3])
    assert torch.equal(torch.get_rng_state(), before)
    rounds = []
    for epoch in (0, 1):
        alone.batch_sampler.set_epoch(epoch)
        drawn.clear()
        list(alone)
        rounds.append({nodes[0]: nodes[1:] for nodes in drawn})
    assert all(rounds[0][node] != rounds[1][node] for node in range(20))  # one node's neighbours change, too


@pytest.mark.parametrize(("make", "size"), [(node_task, None), (link_task, 32)])
def test_a_resumed_run_ends_as_one_in_one_go(make, size, quick, monkeypatch, tmp_path):
    check_resuming(make(), replace(quick, batch_size=size), monkeypatch, tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_on_neighbourhoods_ends_as_one_in_one_go(workers, drawn, quick, monkeypatch, tmp_path):
    config = replace(quick, neighbors=(3,), num_workers=workers, batch_size=8)
    check_resuming(node_task(), config, monkeypatch, tmp_path)


def check_resuming(task, config, monkeypatch, tmp_path):
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: task)
    short = replace(config, epochs=4)
    whole = train(short)
    write = Record.write_rows

    def interrupt(record):
        write(record)
        if len(record.rows) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Record, "write_rows", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(replace(short, folder=str(tmp_path / "cut")))
    monkeypatch.setattr(Record, "write_rows", write)
    resumed = resume(tmp_path / "cut")
    assert (resumed.test, resumed.valid, resumed.best_epoch) == (whole.test, whole.valid, whole.best_epoch)
    ends = [read_checkpoint(RunFolder(folder).last)["state_dict"] for folder in (short.folder, tmp_path / "cut")]
    assert all(torch.equal(weight, ends[1][name]) for name, weight in ends[0].items())


def test_parts_of_one_graph_are_prepared_once(quick):
    task = node_task()
    prepared = prepare({split: getattr(task, split) for split in ("train", "valid", "test")}, quick)
    graphs = {split: part[0] for split, part in prepared.items()}
    assert graphs["train"].attention_graph is graphs["valid"].attention_graph is graphs["test"].attention_graph
    assert graphs["valid"].target_index.tolist() == list(range(20, 40))
    assert "pair_index" not in graphs["test"]
    whole = replace(task, valid=[asking(task.valid[0], y=torch.zeros(NODES, 1).long())])  # asks for every node
    prepared = prepare({split: getattr(whole, split) for split in ("train", "valid")}, quick)
    assert "target_index" not in prepared["valid"][0]


@pytest.mark.parametrize(("make", "size"), [(link_task, 65_536), (node_task, None)])
def test_the_size_of_batches_follows_the_level_where_none_is_given(make, size, quick, monkeypatch):
    task = make()
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: task)
    train(replace(quick, epochs=1))
    assert read_config(Path(quick.folder, "config.yaml")).batch_size == size


def test_a_given_size_of_batches_is_kept_and_graphs_have_64(quick):
    assert settle(replace(quick, batch_size=32), link_task()).batch_size == 32
    graphs = replace(node_task(), level="graph", train=node_task().train * 2)
    assert settle(quick, graphs).batch_size == 64


def test_links_meet_as_many_random_pairs(quick):
    graphs = prepare({"train": link_task().train}, quick)["train"]
    config = replace(quick, batch_size=32, negatives="targets")
    loader = training_loader(graphs, "link", config)
    seen = list(loader)
    links = graphs[0].pair_index
    assert sum(len(batch.y) for batch in seen) == 2 * links.shape[1]
    positive = torch.cat([batch.pair_index[:, batch.y[:, 0] == 1] for batch in seen], dim=1)
    assert {tuple(pair) for pair in positive.T.tolist()} == {tuple(pair) for pair in links.T.tolist()}
    for batch in seen:
        half = len(batch.y) // 2
        assert torch.equal(batch.pair_index[0, :half], batch.pair_index[0, half:])
        assert batch.pair_index.max() < NODES
    again = list(training_loader(graphs, "link", config))
    assert all(torch.equal(one.pair_index, two.pair_index) for one, two in zip(seen, again, strict=True))
    loader.sampler.set_epoch(1)
    assert not torch.equal(next(iter(loader)).pair_index, seen[0].pair_index)


def test_the_throughput_counts_links_and_not_the_pairs_against_them(quick, monkeypatch, capsys):
    task = link_task()
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: task)
    monkeypatch.setattr(Record, "on_validation_start", lambda self, *arguments: setattr(self, "_training", 1.0))
    train(replace(quick, epochs=1))
    names, row = (line.split(",") for line in Path(quick.folder, "metrics.csv").read_text().splitlines())
    assert float(row[names.index("links_per_second")]) == task.train[0].pair_index.shape[1]
    assert main(["evaluate", quick.folder]) == 0
    assert capsys.readouterr().out.endswith("(20 pairs)\n")  # ten links, and ten that are none


@pytest.mark.parametrize("negatives", ["pairs", "targets"])
def test_no_drawn_pair_is_a_link(negatives, quick):
    """In a graph where every second pair is a link, as in ogbl-ddi every eighth."""
    upper = torch.triu(torch.rand(20, 20) < 0.5, diagonal=1).nonzero().T
    data = Data(x=torch.zeros(20, 1), edge_index=torch.cat((upper, upper.flip(0)), dim=1), pair_index=upper)
    links = {tuple(pair) for pair in data.edge_index.T.tolist()}
    for batch in training_loader([data], "link", replace(quick, batch_size=64, negatives=negatives)):
        drawn = batch.pair_index[:, batch.y[:, 0] == 0].T.tolist()
        assert len(drawn) == len(batch.y) // 2
        assert not any(source == target or (source, target) in links for source, target in drawn)


def test_pairs_are_drawn_though_every_pair_is_a_link(quick):
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3)).T
    data = Data(x=torch.zeros(3, 1), edge_index=pairs, pair_index=pairs)
    batch = next(iter(training_loader([data], "link", replace(quick, batch_size=9))))
    assert batch.pair_index.shape == (2, 18)
    assert batch.pair_index.max() < 3


def test_what_one_graph_cannot_be_trained_with_leaves_no_folder(quick, monkeypatch):
    task = link_task()
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: task)
    with pytest.raises(InputError, match="train: devices must be 1 where one graph holds all parts; got 2"):
        train(replace(quick, devices=2))
    graphs = [asking(two_villages()[0], y=torch.zeros(1, 1)) for _ in range(3)]
    for parts in ({"train": graphs}, {"train": graphs * 2, "valid": graphs}):
        few = replace(task, level="graph", **parts)
        with pytest.raises(
            InputError, match="train: devices must be at most [13], the graphs of the smallest part; got 4"
        ):
            settle(replace(quick, devices=4), few)
    with pytest.raises(InputError, match=r"train: neighbors must be empty but for the nodes of one big graph; got"):
        train(replace(quick, neighbors=(3,)))
    assert not Path(quick.folder).exists()


def test_neighbourhoods_are_drawn_where_pyg_can(quick, monkeypatch):
    task = node_task()
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: task)
    config = replace(quick, neighbors=(5, 5), batch_size=8)
    from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

    if WITH_PYG_LIB or WITH_TORCH_SPARSE:
        assert train(config).test >= 0.8
    else:
        with pytest.raises(MissingPackageError, match="train: neighbors need PyG's neighbour sampling; got .*pyg-lib"):
            train(config)


def test_patience_ends_a_run(quick, monkeypatch):
    task = node_task()
    constant = replace(task, measure=lambda y_true, y_pred: 0.5)
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: constant)
    train(replace(quick, patience=3))
    rows = Path(quick.folder, "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 1 + 3  # the names, the best epoch, and three no better


def test_a_run_that_patience_ended_is_not_trained_further(quick, monkeypatch):
    task = replace(node_task(), measure=lambda y_true, y_pred: 0.5)
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: task)

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("graphformer.train.fit.measure", stop)
        with pytest.raises(KeyboardInterrupt, match="after 4 of 20 epochs"):
            train(replace(quick, patience=3))
    resume(quick.folder)
    assert len(Path(quick.folder, "metrics.csv").read_text().splitlines()) == 1 + 4


def test_one_graph_that_does_not_fit_into_memory_is_told_what_helps(quick, monkeypatch):
    task = node_task()
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: task)

    def greedy(self, batch, batch_index):
        return torch.empty(2**62, dtype=torch.int8)

    monkeypatch.setattr(GraphModule, "training_step", greedy)
    with pytest.raises(RunError, match=r"a step must fit into memory; got .*memory.*\. Train on --neighbors, or a"):
        train(quick)
