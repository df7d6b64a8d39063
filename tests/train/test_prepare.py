"""What a sample passes before training: once, in the loader's workers, or read from the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from graphformer._errors import DataError
from graphformer.models import (
    ExphormerConfig,
    GATConfig,
    GraphormerConfig,
    GraphTransformerConfig,
    GRITConfig,
    GTConfig,
)
from graphformer.train import evaluate, explain, predict, train
from graphformer.train.prepare import prepare

MODELS = [
    GraphTransformerConfig(walk_steps=4),
    GTConfig(),
    GraphormerConfig(),
    GRITConfig(),
    ExphormerConfig(),
    GATConfig(),
]


@pytest.fixture
def cached(small, tmp_path):
    return replace(small, epochs=2, cache=str(tmp_path / "kept"))


def files(config):
    return sorted(path.name for path in Path(config.cache).iterdir())


def refuse_to_prepare(config):
    def step(data):
        raise AssertionError

    return step


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_what_is_read_is_what_was_kept(model, cached, task, monkeypatch):
    config = replace(cached, model=model)
    made = prepare({"train": task.train}, config)["train"]
    assert len(files(config)) == 1
    monkeypatch.setattr("graphformer.train.prepare.transform", refuse_to_prepare)
    again = prepare({"train": task.train}, config)["train"]
    for one, two in zip(made, again, strict=True):
        assert list(one.to_dict()) == list(two.to_dict())
        for name, value in one.to_dict().items():
            if torch.is_tensor(value):
                assert torch.equal(two[name].nan_to_num(), value.nan_to_num())
        graph = one.get("attention_graph")
        if graph is not None:
            assert torch.equal(two.attention_graph.edge_index, graph.edge_index)
            assert two.attention_graph.num_relations == graph.num_relations


def test_other_settings_and_other_samples_are_kept_apart(cached, task):
    prepare({"train": task.train}, cached)
    prepare({"train": task.train}, replace(cached, seed=8, learning_rate=1e-4))
    assert len(files(cached)) == 1
    prepare({"train": task.train}, replace(cached, model=replace(cached.model, walk_steps=5)))
    prepare({"train": task.train[1:]}, cached)
    changed = [graph.clone() for graph in task.train]
    changed[0].x[0, 0] += 1
    prepare({"train": changed}, cached)
    assert len(files(cached)) == 4


def test_a_damaged_file_and_a_folder_that_cannot_be_are_told(cached, task, tmp_path):
    prepare({"train": task.train}, cached)
    path = Path(cached.cache) / files(cached)[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"train: {path} must be a whole file of prepared samples; got .*. Remove it"):
        prepare({"train": task.train}, cached)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="train: cache must be a folder that can be written; got .*Pass another"):
        prepare({"train": task.train}, replace(cached, cache=str(tmp_path / "file" / "kept")))


def test_neither_cache_nor_workers_change_a_run(loaded, cached):
    plain = train(replace(cached, cache=None))
    first = train(replace(cached, folder=cached.folder + "-first"))
    second = train(replace(cached, folder=cached.folder + "-second"))
    workers = replace(cached, cache=None, num_workers=1, prepare_in_workers=True, folder=cached.folder + "-workers")
    assert plain.test == first.test == second.test == train(workers).test
    assert len(files(cached)) == 3  # a part each
    assert evaluate(workers.folder).value == plain.test
    kept = files(cached)
    assert predict(second.folder, ["CCO", "C"]) == predict(workers.folder, ["CCO", "C"])
    assert explain(second.folder, "CCO").prediction == explain(workers.folder, "CCO").prediction
    assert files(cached) == kept  # what is asked about once is not kept
