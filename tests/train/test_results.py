"""Series of seeds, and the table of what runs found."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from graphformer._errors import InputError, RunError
from graphformer.cli.main import main
from graphformer.train import SeedsResult, TrainConfig, as_table, evaluate, find_results, resume, train
from graphformer.train.folder import RunFolder
from graphformer.train.recipes import measured, names, recipe, recipe_mapping
from graphformer.train.record import Record


@pytest.fixture
def three(loaded, small, tmp_path) -> SeedsResult:
    return train(replace(small, epochs=1, seeds=3, folder=str(tmp_path / "series")))


def test_seeds_give_a_mean_and_a_deviation(three, small, tmp_path):
    alone = [train(replace(small, epochs=1, seed=seed, folder=str(tmp_path / f"one-{seed}"))) for seed in (3, 4, 5)]
    assert three.seeds == [3, 4, 5]
    assert three.test == pytest.approx(statistics.fmean(run.test for run in alone))
    assert three.test_std == pytest.approx(statistics.stdev(run.test for run in alone))
    assert three.valid_std == pytest.approx(statistics.stdev(run.valid for run in alone))
    assert json.loads((Path(three.folder) / "result.json").read_text())["seeds"] == [3, 4, 5]
    assert evaluate(Path(three.folder) / "seed-4").value == alone[1].test


def test_a_series_goes_on_where_it_was_cut(loaded, small, tmp_path, monkeypatch):
    config = replace(small, epochs=2, seeds=2, folder=str(tmp_path / "series"))
    whole = train(config)
    write = Record.write_rows

    def interrupt(record):
        write(record)
        if record.folder.path.name == "seed-4":
            raise KeyboardInterrupt

    cut = str(tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(Record, "write_rows", interrupt)
        with pytest.raises(KeyboardInterrupt, match=r"after 1 of 2 epochs; go on with: .* --resume .*cut$"):
            train(replace(config, folder=cut))
    assert find_results([cut])[0].seeds == [3]
    resumed = resume(cut)
    assert replace(resumed, folder="", seconds=0) == replace(whole, folder="", seconds=0)
    with pytest.raises(RunError, match="the run to resume must be unfinished"):
        resume(cut)


def test_a_series_whose_seeds_are_all_finished_is_told_without_its_data(three, loaded):
    folder = RunFolder(three.folder)
    folder.result.unlink()  # the process was killed just before it wrote this
    loaded.clear()
    assert resume(three.folder) == three
    assert folder.result.exists()
    assert loaded == []


def test_a_damaged_seed_stops_a_resume_before_the_data_are_loaded(three, loaded):
    RunFolder(three.folder).result.unlink()
    member = RunFolder(Path(three.folder) / "seed-4")
    member.result.unlink()
    member.last.write_bytes(b"half")
    loaded.clear()
    with pytest.raises(RunError, match=r"seed-4.*last.ckpt must be a whole checkpoint"):
        resume(three.folder)
    assert loaded == []


def test_the_folder_of_a_series_is_no_single_run(three):
    with pytest.raises(RunError, match="must be the folder of one run; got a series of seeds. Pass .*seed-3"):
        evaluate(three.folder)


def test_the_table_tells_runs_and_series(three, small, tmp_path, capsys):
    train(replace(small, epochs=1, folder=str(tmp_path / "alone")))
    found = find_results([tmp_path])
    assert [Path(result.folder).name for result in found] == ["alone", "series"]
    lines = as_table(found).splitlines()
    assert lines[2].startswith("| logp | graph_transformer (channels=16, layers=2, heads=2, walk_steps=4) | ")
    assert f"rmse {three.valid:.4f} ± {three.valid_std:.4f} | {three.test:.4f} ± {three.test_std:.4f}" in lines[3]
    assert main(["results", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_a_run_below_several_folders_counts_once(three, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (once,) = find_results([tmp_path, three.folder, "series/seed-4"])
    assert once.seeds == [3, 4, 5]


def test_results_that_cannot_be_read_are_told(three, tmp_path):
    with pytest.raises(RunError, match="results: .*nowhere must be a folder of runs; got no such folder"):
        find_results([tmp_path / "nowhere"])
    path = Path(three.folder) / "seed-3" / "result.json"
    path.write_text('{"test": 1.0}')
    with pytest.raises(RunError, match=r"results: .*seed-3.result.json must hold the result of a run; got other keys"):
        find_results([tmp_path])
    path.write_text("{")
    with pytest.raises(RunError, match="must be readable; got .*Remove it and resume"):
        find_results([tmp_path])


def test_several_seeds_are_for_one_device():
    with pytest.raises(InputError, match="TrainConfig: seeds must be 1 on several devices; got 3"):
        TrainConfig(seeds=3, devices=2)


def test_a_series_killed_before_a_run_was_whole_goes_on(loaded, small, tmp_path, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    config = replace(small, epochs=1, seeds=2, folder=str(tmp_path / "cut"))
    for step in ("versions", "write_config"):
        with monkeypatch.context() as patch:
            patch.setattr(f"graphformer.train.folder.{step}", killed)
            with pytest.raises(KeyboardInterrupt):
                RunFolder.create(config)
    folder = RunFolder.create(config)
    (folder.path / "seed-3" / "checkpoints").mkdir(parents=True)
    (folder.path / "seed-3" / "config.yaml.part").write_text("epochs")
    assert resume(folder.path).seeds == [3, 4]


def test_recipes_are_listed(capsys):
    assert main(["recipes"]) == 0
    told = capsys.readouterr().out
    assert all(f"| {name} | {recipe(name).dataset} | " in told for name in names())
    for name in names():
        if found := measured(name):
            assert set(found) == set(SeedsResult.__dataclass_fields__)
            assert found["dataset"] == recipe(name).dataset
    with pytest.raises(InputError, match="got 'ogbg-molesl'. Did you mean ogbg-molesol"):
        recipe_mapping("ogbg-molesl")
