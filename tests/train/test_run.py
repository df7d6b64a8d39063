from __future__ import annotations

import csv
import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ten_molecules import LABELS

from graphformer._errors import DataError, InputError, RunError
from graphformer.train import evaluate, predict, read_config, record, resume, train
from graphformer.train.folder import RunFolder, write_checkpoint
from graphformer.train.loaders import GraphBatches
from graphformer.train.module import GraphModule
from graphformer.train.record import Record


def rows_of(folder: str) -> list[dict[str, str]]:
    with (Path(folder) / "metrics.csv").open(newline="") as file:
        return [{key: text for key, text in row.items() if "second" not in key} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def finished(task, tmp_path_factory):
    """A run of two epochs that several tests read."""
    from graphformer.models.config import GraphTransformerConfig
    from graphformer.train import TrainConfig

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphformer.train.run.load", lambda name, root, download: task)
        model = GraphTransformerConfig(channels=16, layers=1, heads=2, walk_steps=4)
        folder = tmp_path_factory.mktemp("runs") / "ten"
        return train(TrainConfig(epochs=2, batch_size=4, folder=str(folder), model=model))


def test_ten_molecules_are_learnt_by_heart(loaded, small):
    model = replace(small.model, dropout=0.0)
    config = replace(small, epochs=120, batch_size=10, learning_rate=5e-3, weight_decay=0.0, model=model)
    result = train(config)
    assert result.test < 0.05
    assert result.baseline > 1.5


def test_the_run_folder_is_whole(finished):
    folder = Path(finished.folder)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    checkpoints = {"checkpoints/best.ckpt", "checkpoints/last.ckpt"}
    assert files == {"config.yaml", "versions.json", "metrics.csv", "curve.png", "result.json"} | checkpoints
    assert json.loads((folder / "versions.json").read_text())["torch"] == torch.__version__.split("+")[0]
    result = json.loads((folder / "result.json").read_text())
    assert result["test"] == finished.test
    assert result["seed"] == 0
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    rows = rows_of(finished.folder)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    best = min(rows, key=lambda row: float(row["valid_rmse"]))
    assert (int(best["epoch"]), float(best["valid_rmse"])) == (finished.best_epoch, finished.valid)


def test_the_baseline_is_the_mean_predictor(finished, task):
    train_y = torch.cat([graph.y for graph in task.train])
    test_y = torch.cat([graph.y for graph in task.test])
    assert finished.baseline == pytest.approx((test_y - train_y.mean()).square().mean().sqrt().item())


def test_evaluate_repeats_the_result(finished, loaded):
    measured = evaluate(finished.folder)
    assert measured.value == finished.test
    assert (measured.metric, measured.rows) == ("rmse", 7)
    assert evaluate(finished.folder, "valid").value == finished.valid
    assert evaluate(finished.folder, "train", root="elsewhere").rows == 10
    assert [asked[1] for asked in loaded] == ["dataset", "dataset", "elsewhere"]


def test_evaluate_knows_its_splits(finished):
    with pytest.raises(
        InputError, match="evaluate: split must be one of train, valid, test; got 'tests'. Did you mean"
    ):
        evaluate(finished.folder, "tests")


def test_predict_needs_no_data_set_and_agrees_with_evaluate(finished, task, monkeypatch):
    monkeypatch.delattr("graphformer.train.run.load")
    predictions, problems = predict(
        finished.folder, ["CCN(C)C", "C1CCCCC1", "CCCl", "OCCO", "CC#N", "c1ccncc1O", "CCCCCCC"]
    )
    assert problems == []
    y_pred = torch.tensor([prediction.values for prediction in predictions])
    assert task.evaluate(torch.cat([graph.y for graph in task.test]), y_pred) == pytest.approx(finished.test)


def test_predict_names_bad_rows_and_can_go_on(finished):
    with pytest.raises(DataError, match="row 1: 'C\\('"):
        predict(finished.folder, ["CCO", "C(", "CC"])
    predictions, problems = predict(finished.folder, ["CCO", "C(", "CC"], skip_invalid=True)
    assert [(prediction.row, prediction.smiles) for prediction in predictions] == [(0, "CCO"), (2, "CC")]
    assert len(problems) == 1
    assert predict(finished.folder, ["C("], skip_invalid=True) == (
        [],
        problems[:0] + ["row 0: 'C(' (it is not SMILES syntax)"],
    )


def test_every_epoch_has_an_order_of_its_own(loaded, small, monkeypatch, tmp_path):
    seen = []
    step = GraphModule.training_step

    def note(self, batch, batch_index):
        seen.append((self.current_epoch, batch.y.flatten().tolist()))
        return step(self, batch, batch_index)

    monkeypatch.setattr(GraphModule, "training_step", note)
    for workers in (0, 1):
        seen.clear()
        train(replace(small, num_workers=workers, folder=str(tmp_path / f"with-{workers}")))
        orders = [[y for epoch, rows in seen if epoch == number for y in rows] for number in range(4)]
        assert len({tuple(order) for order in orders}) == 4
        assert len({tuple(sorted(order)) for order in orders}) == 1
        assert orders[2] == [y for batch in batches_of(small, 2) for y in loaded_labels(batch)]


def batches_of(config, epoch):
    batches = GraphBatches(10, config.batch_size, config.seed)
    batches.set_epoch(epoch)
    return batches


def loaded_labels(rows):
    return torch.tensor(LABELS)[rows].tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_ends_like_one_that_was_not_interrupted(loaded, small, monkeypatch, tmp_path, workers):
    small = replace(small, num_workers=workers)
    whole = train(small)
    interrupted = replace(small, folder=str(tmp_path / "again"))
    step = GraphModule.training_step

    def stop_in_the_third_epoch(self, batch, batch_index):
        if self.current_epoch == 2 and batch_index == 1:
            raise KeyboardInterrupt
        return step(self, batch, batch_index)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(GraphModule, "training_step", stop_in_the_third_epoch)
        with pytest.raises(
            KeyboardInterrupt, match=r"after 2 of 4 epochs; go on with: graphformer train --resume .*again"
        ):
            train(interrupted)
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(rows_of(interrupted.folder)) == 2
    assert not RunFolder(interrupted.folder).result.exists()

    torch.manual_seed(99)  # what the process drew meanwhile must not matter
    again = resume(interrupted.folder)
    assert rows_of(again.folder) == rows_of(whole.folder)
    assert (again.test, again.valid, again.best_epoch) == (whole.test, whole.valid, whole.best_epoch)
    one, other = (torch.load(RunFolder(run.folder).last, weights_only=True) for run in (whole, again))
    assert all(torch.equal(one["state_dict"][name], other["state_dict"][name]) for name in one["state_dict"])


def test_a_crash_between_row_and_checkpoint_is_resumable(loaded, small, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Record, "write_rows", lambda self: (_ for _ in ()).throw(OSError("the disk is full")))
        with pytest.raises(OSError, match="the disk is full"):
            train(small)
    assert [row["epoch"] for row in rows_of(resume(small.folder).folder)] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_a_crash_while_a_checkpoint_is_written_is_resumable(loaded, small, monkeypatch, name):
    """Also in the first epoch: the epoch is repeated, and the best checkpoint is the best epoch's."""
    whole = train(replace(small, folder=small.folder + "-whole"))

    def full(checkpoint, path):
        if path.name == name:
            raise OSError("the disk is full")
        write_checkpoint(checkpoint, path)

    with monkeypatch.context() as patch:
        patch.setattr(record, "write_checkpoint", full)
        with pytest.raises(OSError, match="the disk is full"):
            train(small)
    result = resume(small.folder)
    assert (result.best_epoch, result.valid, result.test) == (whole.best_epoch, whole.valid, whole.test)


def test_a_run_interrupted_in_its_first_epoch_starts_anew(loaded, small, monkeypatch):
    def stop(self, batch, batch_index):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GraphModule, "training_step", stop)
        with pytest.raises(KeyboardInterrupt, match="interrupted; go on with: graphformer train --resume"):
            train(small)
    with pytest.raises(RunError, match=r"best.ckpt must be a checkpoint; got no such file. Finish the first epoch"):
        predict(small.folder, ["CC"])
    assert len(rows_of(resume(small.folder).folder)) == 4


def test_a_run_interrupted_while_it_is_measured_goes_on_there(loaded, small, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("graphformer.train.fit.measure", stop)
        with pytest.raises(KeyboardInterrupt, match="after 4 of 4 epochs"):
            train(small)
    result = resume(small.folder)
    assert [row["epoch"] for row in rows_of(small.folder)] == ["1", "2", "3", "4"]
    assert evaluate(small.folder).value == result.test


def test_a_diverged_run_is_told(loaded, small, monkeypatch):
    predictions = GraphModule.predict_batch
    monkeypatch.setattr(GraphModule, "predict_batch", lambda self, batch: predictions(self, batch) / 0)
    with pytest.raises(
        RunError, match="train: predictions must be finite; got NaN or infinity in epoch 1. Lower --learn"
    ):
        train(small)


def test_workers_change_nothing(loaded, small, tmp_path):
    alone = train(replace(small, epochs=1))
    helped = train(replace(small, epochs=1, num_workers=1, folder=str(tmp_path / "helped")))
    assert helped.test == alone.test


def test_a_finished_run_is_not_resumed(finished):
    with pytest.raises(RunError, match="train: the run to resume must be unfinished; got .*result.json"):
        resume(finished.folder)


def test_a_folder_with_something_in_it_is_refused(loaded, small):
    Path(small.folder).mkdir()
    (Path(small.folder) / "mine.txt").write_text("keep me")
    with pytest.raises(RunError, match="train: folder must be new or empty; got .*--resume"):
        train(small)


def test_a_folder_that_cannot_be_made_is_told(loaded, small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        RunError, match="train: folder must be one that can be written; got .*Not a directory.*--folder"
    ):
        train(replace(small, folder=str(tmp_path / "file" / "run")))


def test_default_folders_count_up(small, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = replace(small, folder=None, dataset="ogbg-molesol")
    assert [str(RunFolder.create(config).path) for _ in range(2)] == ["runs/ogbg-molesol-1", "runs/ogbg-molesol-2"]
    assert read_config("runs/ogbg-molesol-2/config.yaml") == config


def test_a_pattern_that_cannot_be_read_leaves_no_folder(loaded, small):
    config = replace(small, model=replace(small.model, pattern="Windw(3)"))
    with pytest.raises(InputError, match="Did you mean Window"):
        train(config)
    assert not Path(small.folder).exists()
    assert loaded == []


@pytest.fixture
def copy(finished, tmp_path):
    import shutil

    return RunFolder(shutil.copytree(finished.folder, tmp_path / "copy"))


@pytest.mark.parametrize("damage", ["cut", "other", "empty", "foreign"])
def test_a_damaged_checkpoint_is_told(copy, damage):
    whole = copy.best.read_bytes()
    copy.best.write_bytes({"cut": whole[:2000], "other": b"not a checkpoint", "empty": b"", "foreign": whole}[damage])
    if damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, copy.best)
    with pytest.raises(RunError, match=r"run: .*best.ckpt must be a whole checkpoint of graphformer; got .*train anew"):
        predict(copy.path, ["CC"])


def test_a_checkpoint_is_never_executed(copy, tmp_path):
    witness = tmp_path / "executed"
    torch.save({"state_dict": Trap(witness)}, copy.best)
    with pytest.raises(RunError, match="got UnpicklingError"):
        predict(copy.path, ["CC"])
    assert not witness.exists()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_damaged_last_checkpoint_stops_a_resume(copy, loaded):
    copy.result.unlink()
    copy.last.write_bytes(b"half")
    with pytest.raises(RunError, match="last.ckpt must be a whole checkpoint"):
        resume(copy.path)
    assert loaded == []


def test_a_config_that_does_not_fit_the_weights_is_told(copy):
    text = copy.config.read_text()
    copy.config.write_text(text.replace("channels: 16", "channels: 24"))
    with pytest.raises(RunError, match=r"best.ckpt must fit the model of .*config.yaml; got .*size mismatch"):
        predict(copy.path, ["CC"])
    copy.config.write_text(text.replace("channels:", "chanels:"))
    with pytest.raises(RunError, match="Did you mean model.channels"):
        predict(copy.path, ["CC"])


def test_a_folder_that_is_no_run_is_told(tmp_path):
    with pytest.raises(RunError, match="run: .*nowhere must be the folder of a run; got no such folder"):
        predict(tmp_path / "nowhere", ["CC"])
    with pytest.raises(RunError, match="got a folder without config.yaml"):
        evaluate(tmp_path)


def test_classification_trains_with_missing_labels(task, small, monkeypatch):
    def labelled(graphs):
        rows = [[float(i % 2), float("nan") if i == 2 else float(i % 3 == 0)] for i in range(len(graphs))]
        copies = [graph.clone() for graph in graphs]
        for graph, row in zip(copies, rows, strict=True):
            graph.y = torch.tensor([row])
        return copies

    def accuracy(y_true, y_pred):
        assert ((y_pred >= 0) & (y_pred <= 1)).all()
        return float(((y_pred > 0.5) == (y_true > 0.5)).float().mean())

    parts = {part: labelled(getattr(task, part)) for part in ("train", "valid", "test")}
    kind = {
        "task_type": "binary classification",
        "num_tasks": 2,
        "num_outputs": 2,
        "metric": "accuracy",
        "higher_is_better": True,
    }
    binary = replace(task, measure=accuracy, **kind, **parts)
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: binary)
    result = train(replace(small, epochs=2))
    assert result.baseline is None
    assert result.valid == max(float(row["valid_accuracy"]) for row in rows_of(result.folder))


def test_a_process_that_nobody_started_is_told(small, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("GRAPHFORMER_RUN_FOLDER", raising=False)
    with pytest.raises(
        RunError, match="train: the command must run in processes that it starts itself; got LOCAL_RANK=1"
    ):
        RunFolder.create(small)


def test_running_out_of_memory_is_told(loaded, small, monkeypatch):
    def greedy(self, batch, batch_index):
        return torch.empty(2**62, dtype=torch.int8)

    monkeypatch.setattr(GraphModule, "training_step", greedy)
    with pytest.raises(RunError, match=r"train: a step must fit into memory; got .*memory.*\. Lower --batch_size"):
        train(small)


def test_accumulated_batches_make_the_step_of_a_whole_one(loaded, small):
    model = replace(small.model, norm="layer", dropout=0.0, walk_steps=0)
    whole = replace(small, epochs=2, batch_size=10, weight_decay=0.0, model=model)
    one = train(whole)
    halves = train(replace(whole, batch_size=5, accumulate=2, folder=small.folder + "-halves"))
    assert halves.test == pytest.approx(one.test, rel=1e-4)
    assert halves.valid == pytest.approx(one.valid, rel=1e-4)
