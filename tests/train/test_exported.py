from __future__ import annotations

import copy
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from ten_molecules import SMILES
from torch_geometric.data import Data

from graphformer._errors import InputError, RunError
from graphformer.cli.main import main
from graphformer.graphs import Features
from graphformer.models import transform
from graphformer.train import explain, export, predict, train, weights
from graphformer.train.exported import load_exported
from graphformer.train.fit import load_module
from graphformer.train.folder import RunFolder


@pytest.fixture
def run(loaded, small) -> str:
    return train(replace(small, epochs=2, model=replace(small.model, dropout=0.0))).folder


@pytest.fixture
def shipped(run, tmp_path, monkeypatch) -> Path:
    """The run's model as one that comes with the package, `ten`."""
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "weights")
    return export(run, tmp_path / "weights" / "ten")


def test_an_exported_model_predicts_bit_for_bit_as_its_run(run, shipped):
    assert predict(model="ten", smiles=SMILES) == predict(run, SMILES)
    assert predict(model=str(shipped), smiles=SMILES) == predict(run, SMILES)
    folder = RunFolder(run)
    module = load_module(folder, folder.best)
    module.averaged.module.load_state_dict(module.model.state_dict())
    torch.save({**torch.load(folder.best), "state_dict": module.state_dict()}, folder.best)
    assert predict(run, SMILES) != predict(model="ten", smiles=SMILES)  # the averaged weights were exported


def test_the_explanation_is_the_runs(run, shipped):
    mine, its = explain(model="ten", smiles="CCO"), explain(run, "CCO")
    assert torch.equal(mine.matrices, its.matrices)
    assert mine.prediction == its.prediction


def test_the_file_tells_settings_task_and_result(run, shipped):
    with safe_open(shipped, framework="pt") as file:
        about = {key: json.loads(text) for key, text in file.metadata().items()}
    assert about["config"]["model"]["channels"] == 16
    assert about["config"]["batch_size"] == 4
    assert about["task"]["metric"] == "rmse"
    assert about["result"] == {
        key: value for key, value in json.loads(Path(run, "result.json").read_text()).items() if key != "folder"
    }
    assert run not in json.dumps(about)  # nothing of the machine that trained it
    weights_only = sum(value.numel() for value in load_module(RunFolder(run), RunFolder(run).best).model.parameters())
    assert about["result"]["parameters"] == weights_only
    assert shipped.stat().st_size < 4 * weights_only + 20_000


def test_damaged_and_foreign_files_are_told(shipped, tmp_path):
    whole, tensors = shipped.read_bytes(), load_file(shipped)
    with safe_open(shipped, framework="pt") as file:
        about = file.metadata()
    bad = tmp_path / "bad.safetensors"

    def refused(message: str) -> None:
        with pytest.raises(RunError, match=rf"predict: .*bad.safetensors must {message}.*graphformer export"):
            predict(model=str(bad), smiles=["CCO"])

    refused("be an exported model; got FileNotFoundError")
    for content in (whole[: len(whole) // 2], b"", b"PK\x03\x04 a pickle of torch"):
        bad.write_bytes(content)
        refused("be an exported model; got SafetensorError")
    save_file(tensors, bad)
    refused("be an exported model; got a file without 'config'")
    save_file(tensors, bad, {**about, "task": "{"})
    refused("be an exported model; got JSONDecodeError")
    for key, change in (
        ("config", {"model": {"name": "graph_transformer", "layers": 3}}),
        ("config", {"model": {"name": "of tomorrow"}}),
        ("config", {"epoch": 3}),
        ("task", {"colour": "red"}),
        ("task", {"task_names": 3}),
        ("task", {"features": {"node_channels": "many"}}),
    ):
        save_file(tensors, bad, {**about, key: json.dumps({**json.loads(about[key]), **change})})
        refused("hold a whole model; got ")
    save_file({key: value for key, value in tensors.items() if "mean" not in key}, bad, about)
    refused("hold a whole model; got .*Missing key")


def test_only_finished_runs_are_exported_and_only_to_where_one_can_write(run, tmp_path):
    (tmp_path / "a file").write_text("")
    with pytest.raises(RunError, match="export: --out must be a file that can be written; got .*a file"):
        export(run, tmp_path / "a file" / "model")
    Path(run, "result.json").unlink()
    with pytest.raises(RunError, match="export: the run must be finished; got .* without a result.json"):
        export(run, tmp_path / "model")
    with pytest.raises(RunError, match="must be the folder of a run"):
        export(tmp_path / "nowhere", tmp_path / "model")
    assert not (tmp_path / "model.safetensors").exists()


def test_a_run_or_a_model_is_given(run, shipped):
    with pytest.raises(InputError, match="predict: run must be given, or a model, and not both; got neither"):
        predict(smiles=["CCO"])
    with pytest.raises(InputError, match="explain: run must be given, or a model, and not both; got both"):
        explain(run, "CCO", model="ten")
    with pytest.raises(InputError, match="predict: model must be one of ten; got 'tenn'. Did you mean ten.*export"):
        predict(model="tenn", smiles=["CCO"])


def test_the_commands(run, shipped, tmp_path, capsys):
    assert main(["export", run, "--out", str(tmp_path / "mine")]) == 0
    assert capsys.readouterr().out.startswith(f"model: {tmp_path / 'mine.safetensors'} (")
    (tmp_path / "more.txt").write_text("CCN\n")
    told = []
    for source in ([run], ["--model", "ten"], [f"--model={tmp_path / 'mine.safetensors'}"]):
        assert main(["predict", *source, "CCO", "CC", "--file", str(tmp_path / "more.txt")]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] == told[2]
    assert [line.split()[0] for line in told[0].splitlines()] == ["CCO", "CC", "CCN"]
    assert main(["explain", "CCO", "--model", "ten", "--out", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").exists()
    for command in ("predict", "explain"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "comes with the package (ten)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("names", [("NR-AR", "Cysts, and polyps"), ()])
def test_several_labels_have_a_line_of_names_where_they_are_known(names, task, small, tmp_path, capsys, monkeypatch):
    double = [copy.copy(graph) for graph in task.train]
    for graph in double:
        graph.y = torch.cat((graph.y, -graph.y), dim=1)
    kinds = {"num_tasks": 2, "num_outputs": 2, "task_names": names}
    two = replace(task, train=double, valid=double, test=double, **kinds)
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: two)
    run = train(replace(small, epochs=1)).folder
    mine = str(export(run, tmp_path / "two"))
    (found, _), _ = predict(model=mine, smiles=["CCO", "CCCCCCCC"])
    assert found.task_names == names
    capsys.readouterr()
    for source in ([run], ["--model", mine]):
        assert main(["predict", *source, "CCO", "CCCCCCCC"]) == 0
        lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        header = [["smiles  ", *names]] if names else []
        assert lines[: len(header)] == header
        assert [line[0] for line in lines[len(header) :]] == ["CCO     ", "CCCCCCCC"]
        assert [float(text) for text in lines[len(header)][1:]] == pytest.approx(found.values, abs=1e-4)
    assert main(["predict", run, "no molecule", "--skip-invalid"]) == 0
    assert capsys.readouterr().out == ""


def test_one_label_needs_no_line_of_names(task, small, capsys, monkeypatch):
    named = replace(task, task_names=("logP",))
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: named)
    run = train(replace(small, epochs=1)).folder
    assert main(["predict", run, "CCO"]) == 0
    assert re.fullmatch(r"CCO\t\S+\n", capsys.readouterr().out)


def test_a_file_of_before_the_names_predicts_as_it_did(shipped, tmp_path):
    with safe_open(shipped, framework="pt") as file:
        about = file.metadata()
    old = {key: value for key, value in json.loads(about["task"]).items() if key != "task_names"}
    assert len(old) + 1 == len(json.loads(about["task"]))
    before = tmp_path / "before.safetensors"
    save_file(load_file(shipped), before, {**about, "task": json.dumps(old)})
    assert predict(model=str(before), smiles=SMILES) == predict(model="ten", smiles=SMILES)


def test_the_told_command_can_be_typed(run, tmp_path, capsys):
    assert main(["export", run, "--out", str(tmp_path / "my models" / "one")]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith("predict with it: graphformer predict ")
    assert main(shlex.split(told.partition("graphformer ")[2])) == 0
    assert capsys.readouterr().out.startswith("CCO\t")


def test_a_model_of_no_molecules_is_told_as_what_it_is(small, task, tmp_path, capsys, monkeypatch):
    ring = Data(x=torch.ones(3, 2), edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]), y=torch.ones(1, 1))
    parts = {"train": [ring] * 4, "valid": [ring] * 2, "test": [ring] * 2}
    rings = replace(task, name="rings", features=Features((), 2), **parts)
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: rings)
    folder = train(replace(small, epochs=1)).folder
    assert main(["export", folder, "--out", str(tmp_path / "rings")]) == 0
    out = capsys.readouterr().out
    assert "graphformer predict" not in out
    names: dict = {}
    exec(out.splitlines()[-1].partition("load it: ")[2], names)
    assert names["module"].predict_batch(transform(small.model)(ring)).shape == (1, 1)
    assert main(["predict", "CCO", "--model", str(tmp_path / "rings.safetensors")]) == 2
    assert "model must have learnt from molecules; got that of rings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict"], "predict: RUN must be given, or --model; got neither"),
        (["predict", "RUN", "CCO", "--model", "ten"], "predict: RUN must not be given with --model; got the run .*ten"),
        (["predict", "CCO", "--model", "tin"], "predict: model must be one of ten; got 'tin'. Did you mean ten"),
        (["predict", "--model", "ten"], "predict: SMILES must be given; got none"),
        (["explain", "RUN"], "explain: SMILES must be one molecule; got none"),
        (["explain", "CC", "CCO", "--model", "ten"], r"explain: SMILES must be one molecule; got \['CC', 'CCO'\]"),
        (["export"], "export: arguments must be valid; got .*run"),
    ],
)
def test_wrong_words_are_told(run, shipped, words, message, capsys):
    assert main([run if word == "RUN" else word for word in words]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("name", weights.names())
def test_what_comes_with_the_package_is_small_and_answers(name):
    path = weights.path_of(name)
    assert path.stat().st_size < 500_000
    assert sum(value.numel() for value in load_exported(path).model.parameters()) <= 100_000
    (found,), _ = predict(model=name, smiles=["CCO"])
    assert all(abs(value) < 100 for value in found.values)
