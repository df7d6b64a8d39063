"""Where measures are made, and in what precision."""

from __future__ import annotations

from dataclasses import replace

import torch
from lightning.pytorch import Trainer
from torch_geometric.data import Data

from graphformer.models import GraphTransformer
from graphformer.train import evaluate, train
from graphformer.train.fit import best_device
from graphformer.train.module import GraphModule


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


def test_the_device_is_the_one_that_the_trainer_takes(small, tmp_path):
    assert best_device() == Trainer(accelerator="auto", devices=1, logger=False).strategy.root_device
