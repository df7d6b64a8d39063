"""Where measures are made, and in what precision."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Trainer
from torch_geometric.data import Data

from graphformer.models import GraphTransformer
from graphformer.train import evaluate, train
from graphformer.train.fit import best_device
from graphformer.train.loaders import training_loader
from graphformer.train.module import GraphModule
from graphformer.train.prepare import prepare


def test_half_precision_trains_and_is_measured_in_float32(loaded, small, monkeypatch):
    seen = set()
    forward = GraphTransformer.forward

    def note(self, batch):
        out = forward(self, batch)
        seen.add((self.training, out.dtype))
        return out

    monkeypatch.setattr(GraphTransformer, "forward", note)
    result = train(replace(small, epochs=1, precision="bf16-mixed"))
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert evaluate(result.folder, "valid").value == result.valid
    assert evaluate(result.folder, "test").value == result.test


def test_what_is_measured_goes_to_the_device_that_trains(loaded, small, monkeypatch):
    """A device that tells which way tensors went, for there is none but the CPU here."""
    moved = []
    monkeypatch.setattr("graphformer.train.fit.best_device", lambda: torch.device("cpu", 0))
    for kind in (GraphModule, Data):
        to = kind.to
        monkeypatch.setattr(
            kind, "to", lambda self, device, kind=kind, to=to: moved.append((kind, device)) or to(self, device)
        )
    config = replace(small, epochs=1)
    train(config)
    where = torch.device("cpu", 0)
    assert moved[-3:] == [(GraphModule, where), (Data, where), (Data, where)]
    moved.clear()
    evaluate(config.folder)
    assert moved == [(GraphModule, where), (Data, where), (Data, where)]


def test_the_device_is_the_one_that_the_trainer_takes():
    assert best_device() == Trainer(accelerator="auto", devices=1, logger=False).strategy.root_device


def one_graph() -> dict[str, list[Data]]:
    """Three parts of one graph, each of which asks for something else."""
    ring = Data(x=torch.ones(4, 2), edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]))
    parts = {part: copy.copy(ring) for part in ("train", "valid", "test")}
    for number, data in enumerate(parts.values()):
        data.pair_index = ring.edge_index[:, number : number + 2]
    return {part: [data] for part, data in parts.items()}


def test_one_graph_is_on_the_device_once(small):
    splits = one_graph()
    prepared = prepare(splits, small, torch.device("meta"))
    train, valid, test = (prepared[part][0] for part in ("train", "valid", "test"))
    assert train.x is valid.x is test.x
    assert train.edge_index is test.edge_index
    assert train.attention_graph is test.attention_graph
    assert (train.x.device.type, train.attention_graph.device.type) == ("meta", "meta")
    assert splits["train"][0].x.device.type == "cpu"
    assert prepare(splits, small)["train"][0].x.device.type == "cpu"


def test_batches_of_links_share_the_graph_that_is_there(small):
    graphs = prepare(one_graph(), small, torch.device("meta"))["train"]
    (batch,) = training_loader(graphs, "link", small)
    assert batch.x is graphs[0].x
    assert batch.attention_graph is graphs[0].attention_graph
    assert batch.pair_index.shape == (2, 4)


@pytest.mark.gpu
def test_a_gpu_that_trains_also_measures(loaded, small, monkeypatch):
    seen = set()
    forward = GraphTransformer.forward
    monkeypatch.setattr(
        GraphTransformer, "forward", lambda self, batch: seen.add(batch.x.device.type) or forward(self, batch)
    )
    result = train(replace(small, epochs=1, precision="bf16-mixed"))
    assert evaluate(result.folder).value == pytest.approx(result.test, rel=1e-5)
    assert seen == {"cuda"}
