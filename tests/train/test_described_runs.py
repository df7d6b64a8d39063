from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ten_molecules import SMILES

from graphformer._errors import DataError, InputError
from graphformer.data.descriptors import with_descriptors
from graphformer.models.config.forest import ForestConfig
from graphformer.train import TrainConfig, evaluate, explain, export, predict, read_config, resume, train
from graphformer.train.fit import load_module
from graphformer.train.folder import RunFolder
from graphformer.train.prepare import prepare
from graphformer.train.results import as_table, find_results


@pytest.fixture
def described(loaded, task, small, monkeypatch) -> TrainConfig:
    """Settings with descriptors, for the ten molecules with their SMILES."""
    parts = {"train": SMILES, "valid": SMILES[:6], "test": SMILES[3:]}
    monkeypatch.setattr("graphformer.train.run.load", lambda name, *rest: replace(task, smiles=parts.get))
    return replace(small, descriptors=("rdkit", "morgan"), model=replace(small.model, dropout=0.0))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_reads_them_wherever_its_model_is_used(described, tmp_path, workers):
    kept = None if workers else str(tmp_path / "cache")
    config = replace(described, num_workers=workers, prepare_in_workers=workers > 0, cache=kept)
    result = train(config)
    assert read_config(f"{result.folder}/config.yaml").descriptors == ("rdkit", "morgan")
    assert evaluate(result.folder).value == pytest.approx(result.test, abs=1e-6)
    folder = RunFolder(result.folder)
    encoder = load_module(folder, folder.best).model.head.whole
    assert int(encoder.seen) == len(SMILES) * result.best_epoch
    file = export(result.folder, tmp_path / "model")
    assert predict(model=str(file), smiles=SMILES) == predict(result.folder, SMILES)
    assert explain(result.folder, "CCO").prediction == predict(result.folder, ["CCO"])[0][0].values
    plain = train(replace(config, descriptors=(), cache=None, folder=str(tmp_path / "plain")))
    assert plain.parameters < result.parameters
    table = as_table(find_results([result.folder])), as_table(find_results([plain.folder]))
    assert ["descriptors=rdkit+morgan" in text for text in table] == [True, False]


def test_an_interrupted_run_ends_as_one_that_was_not(described, monkeypatch, tmp_path):
    whole = train(described)
    short = replace(described, folder=str(tmp_path / "short"))
    from graphformer.train.module import GraphModule

    calls, plain = [], GraphModule.training_step

    def step(self, batch, index):
        calls.append(index)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return plain(self, batch, index)

    monkeypatch.setattr(GraphModule, "training_step", step)
    with pytest.raises(KeyboardInterrupt):
        train(short)
    assert resume(short.folder).test == whole.test


def test_molecules_without_smiles_are_refused(loaded, small, task, tmp_path):
    assert task.smiles is None
    with pytest.raises(DataError, match="train: descriptors must be of molecules with SMILES; got logp"):
        train(replace(small, descriptors=("rdkit", "morgan")))
    assert not (tmp_path / "run").exists()


def test_a_forest_has_its_fingerprints(loaded, small):
    with pytest.raises(InputError, match=r"train: descriptors must be left out with a forest; got \('rdkit',\)"):
        train(TrainConfig(descriptors=("rdkit",), folder=small.folder, model=ForestConfig()))


def test_a_model_whose_descriptors_this_rdkit_lacks_is_told(described, monkeypatch):
    result = train(described)
    monkeypatch.setattr("graphformer.data.descriptors._single", lambda: {"MolWt": lambda molecule: 1.0})
    with pytest.raises(InputError, match=r"model: graph_attr must have shape \[\*, 1221\]; got \[1, 1082\]"):
        predict(result.folder, ["CCO"])
    assert torch.is_tensor(load_module(RunFolder(result.folder), RunFolder(result.folder).best).model.head.whole.mean)


def test_the_cache_keeps_kinds_apart(described, task, tmp_path):
    graphs = with_descriptors(
        replace(task, smiles={"train": SMILES, "valid": SMILES[:6], "test": SMILES[3:]}.get), ["rdkit"]
    )
    widths = []
    for kinds in (("rdkit",), ("morgan",), ("rdkit",)):
        config = replace(described, descriptors=kinds, cache=str(tmp_path / "cache"))
        widths.append(prepare({"train": graphs.train}, config)["train"][0].graph_attr.shape[1])
    assert widths == [197, 1024, 197]
    assert len(list((tmp_path / "cache").iterdir())) == 2
