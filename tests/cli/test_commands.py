from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

import graphformer
from graphformer.cli import main as cli
from graphformer.cli.main import COMMANDS, main
from graphformer.data import from_smiles_list, molecule_features
from graphformer.data.task import Task, rmse

TINY = ["--model.channels=8", "--model.layers=1", "--model.heads=2", "--model.walk_steps=2", "--batch_size=3"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def asked(monkeypatch):
    graphs = from_smiles_list(["CCO", "CC", "CCC", "CCCC", "CCN"], [0.1, 0.2, 0.5, 0.9, -0.4]).samples
    calls = []

    def load(name, root, download=False):
        calls.append((name, root, download))
        kinds = {"level": "graph", "task_type": "regression", "num_tasks": 1, "num_outputs": 1, "metric": "rmse"}
        parts = {"train": graphs, "valid": graphs, "test": graphs, "features": molecule_features()}
        return Task(name=name, measure=rmse, higher_is_better=False, **kinds, **parts)

    monkeypatch.setattr("graphformer.train.run.load", load)
    return calls


def test_train_evaluate_and_predict(asked, capsys, tmp_path):
    assert main(["train", "--epochs", "1", "--seed=5", *TINY]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^logp: test rmse [\d.]+ at the best validation epoch 1 \(valid [\d.]+\)$", told, re.MULTILINE)
    assert re.search(r"^predicting the training mean: test rmse [\d.]+, [\d.]+ times as much$", told, re.MULTILINE)
    assert "seed 5\nrun folder: runs/logp-1\n" in told
    value = re.search(r"test rmse ([\d.]+)", told).group(1)

    assert main(["evaluate", "runs/logp-1"]) == 0
    assert capsys.readouterr().out == f"logp: test rmse {value} (5 graphs)\n"
    assert main(["evaluate", "runs/logp-1", "--split", "valid", "--root", "other"]) == 0
    assert asked[-1][:2] == ("logp", "other")
    capsys.readouterr()

    (tmp_path / "more.txt").write_text("CCCCC pentane\n\nxyz\n")
    assert main(["predict", "runs/logp-1", "C", "--file", "more.txt", "--skip-invalid"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["C", "CCCCC"]
    assert all(re.fullmatch(r"\S+ *\t-?\d+\.\d{4}", line) for line in out.splitlines())
    assert "left out row 2: 'xyz'" in err


def test_settings_come_from_defaults_recipe_file_and_options_in_this_order(asked, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("graphformer.train.run.train", lambda config: seen.append(config) or pytest.skip)
    monkeypatch.setattr("graphformer.cli.train._tell", lambda *told: None)
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "ogbg-mollipo.yaml").write_text("epochs: 11\nbatch_size: 12\nmodel: {layers: 2, channels: 16}\n")
    monkeypatch.setattr("graphformer.train.recipes.FOLDER", recipes)
    (tmp_path / "c.yaml").write_text("dataset: ogbg-mollipo\nbatch_size: 13\nseed: 4\nmodel: {channels: 24}\n")

    assert main(["train", "ogbg-mollipo"]) == 0
    assert main(["train", "--config", "c.yaml", "--seed", "9", "--model.heads", "4", "--download"]) == 0
    assert main(["train", "logp", "--config", "c.yaml"]) == 0
    assert main(["train", "ogbg-mollipo", "--model", "graph_transformer", "--model.layers", "7"]) == 0
    recipe, merged, other, grouped = seen
    assert grouped.model.layers == 7
    assert (recipe.dataset, recipe.epochs, recipe.batch_size, recipe.model.layers) == ("ogbg-mollipo", 11, 12, 2)
    assert (merged.dataset, merged.epochs, merged.batch_size, merged.seed) == ("ogbg-mollipo", 11, 13, 9)
    assert (merged.model.layers, merged.model.channels, merged.model.heads) == (2, 24, 4)
    assert (merged.download, recipe.download) == (True, False)
    assert (other.dataset, other.batch_size, other.model.channels) == ("logp", 13, 24)
    assert other.epochs != 11


def test_descriptors_of_a_recipe_are_for_its_model(asked, monkeypatch, tmp_path):
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "logp.yaml").write_text("descriptors: [rdkit]\nmodel: {name: gps}\n")
    (tmp_path / "c.yaml").write_text("descriptors: [morgan]\n")
    monkeypatch.setattr("graphformer.train.recipes.FOLDER", recipes)
    seen = []
    monkeypatch.setattr("graphformer.train.train", lambda config: seen.append(config.descriptors))
    monkeypatch.setattr("graphformer.cli.train._tell", lambda *told: None)
    for words in ([], ["--model.name", "gps"], ["--model", "mpnn"], ["--model", "forest"], ["--descriptors", "[]"]):
        assert main(["train", "logp", *words]) == 0
    assert main(["train", "logp", "--model", "mpnn", "--config", str(tmp_path / "c.yaml")]) == 0
    assert main(["train", "logp", "--model", "mpnn", "--descriptors", "[rdkit,morgan]"]) == 0
    assert seen == [("rdkit",), ("rdkit",), (), (), (), ("morgan",), ("rdkit", "morgan")]


def test_what_a_recipe_set_is_told(asked, monkeypatch, capsys, tmp_path):
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "logp.yaml").write_text("epochs: 1\nbatch_size: 3\nmodel: {layers: 1, heads: 2}\n")
    (recipes / "mine.yaml").write_text("dataset: logp\nepochs: 1\n")
    monkeypatch.setattr("graphformer.train.recipes.FOLDER", recipes)
    (tmp_path / "c.yaml").write_text("batch_size: 4\nmodel: {walk_steps: 2}\n")
    small = ["--model.channels", "8"]

    def told(*words):
        assert main(["train", *words]) == 0
        *_, origin, folder = capsys.readouterr().out.splitlines()
        assert folder.startswith("run folder: ")
        return origin

    assert told("logp", *small) == "from the recipe logp: epochs, batch_size, model.layers, model.heads"
    assert told("--config", "c.yaml", *small, "--model.heads=4") == "from the recipe logp: epochs, model.layers"
    assert told("logp", "--model", "mpnn", *small, "--model.layers=1") == "from the recipe logp: epochs, batch_size"
    assert told("logp", "--recipe=mine", *TINY) == "from the recipe mine: epochs"
    assert re.search("seed 0$", told("logp", "--recipe=mine", *TINY, "--epochs=2"))
    assert re.search("seed 0$", told("ogbg-molesol", *TINY, "--epochs=1"))


def test_ctrl_c_says_how_to_go_on_and_resume_does(asked, monkeypatch, capsys):
    from graphformer.train.module import GraphModule

    def stop(self, batch, batch_index):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GraphModule, "training_step", stop)
        assert main(["train", "--epochs=1", *TINY]) == 130
    hint = "error: interrupted; go on with: graphformer train --resume runs/logp-1"
    assert capsys.readouterr().err.splitlines()[-1] == hint
    assert main(["train", "--resume", "runs/logp-1"]) == 0
    assert "run folder: runs/logp-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "command must be one of train, .*, env; got 'trian'. Did you mean train?"),
        (
            ["train", "--epoch", "3"],
            "train: option must be one of .* names; got '--epoch'. Did you mean --epochs.* --help,",
        ),
        (["train", "--model.chanels=3"], "got '--model.chanels'. Did you mean --model.channels"),
        (["train", "--epochs", "many"], "train: arguments must be valid; got .*epochs.*many"),
        (["train", "--epochs"], "train: arguments must be valid; got .*expected one argument"),
        (["train", "--model"], "train: arguments must be valid; got .*model.name.*expected one argument"),
        (["train", "--model="], "model: name must be one of .*; got ''"),
        (["train", "--model.virtual_node", "--epochs", "1"], "train: .*model.virtual_node.*expected one argument"),
        (["results", "."], "results: FOLDER must hold a finished run; got none below ."),
        (["train", "logp", "esol"], "train: arguments must be valid; got .*esol"),
        (["train", "ogbg-molhvi"], "load: name must be one of .* names; .*Did you mean ogbg-molhiv.*: logp, "),
        (["train", "ogbg-molhiv", "--root", "nowhere"], "ogbg-molhiv must lie in .*nowhere.*--download"),
        (["train", "--config", "none.yaml"], "none.yaml must be a readable YAML file"),
        (["train", "--resume", "r", "--seed", "1"], "train: --resume must stand alone; got --seed 1"),
        (["train", "--resume=r"], "run: r must be the folder of a run; got no such folder"),
        (["evaluate"], "evaluate: arguments must be valid; got .*run"),
        (["evaluate", "r"], "run: r must be the folder of a run"),
        (["predict", "CCO"], "Or name a model that needs no run: --model NAME"),
        (["predict", "--model", "m"], "predict: SMILES must be given; got none"),
        (
            ["predict", "--model", "m", "--file", "none.txt"],
            "predict: --file must be a readable text file; got .*none.txt",
        ),
        (["show", "Windw(3)"], "got 'Windw'. Did you mean Window"),
        (["show", "__import__('os').system('true')"], "parse: .*must"),
        (["show", "Full()", "--nodes", "0"], "show: --nodes must be at least 1; got 0"),
        (["show", "Full()", "--nodes", "4,x"], "show: --nodes must be at least 1; got 4,x"),
        (["show", "Full()", "--nodes", "4 -> "], "show: --nodes must be at least 1; got"),
        (["show", "Full()", "--nodes", "4->3->2"], "show: --nodes must have at most one arrow; got 4->3->2. Write"),
        (["show", "Full()", "--nodes", "a=4,3"], "show: --nodes must name each part once; got a=4,3. For in"),
        (["show", "Full()", "--nodes", "a=4,a=3"], "show: --nodes must name each part once; got a=4,a=3"),
        (["show", "Full()", "--nodes", "a=b"], "show: --nodes must be at least 1; got a=b"),
        (["show", "Hash(4)"], "parse: pattern must have pairs without queries and keys; got 'Hash'"),
        (["show", "Full()", "--out", "no/such/folder/p.png"], "show: --out must be a file that can be written"),
        (["show", "Full()", "--out", "p.wrong"], "show: --out must be a file that can be written; got .*wrong"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words, message, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" or words[0] == "show"
    assert len(err.splitlines()) == 1
    assert re.search(f"^error: .*{message}", err), err


def test_show_draws_and_explains(capsys, tmp_path):
    assert main(["show", "Window(2) | Global(1)", "--nodes", "9", "--out", "p.png"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Window(radius=2) | Global(num_nodes=1)\n9 queries attend to 9 keys by ")
    assert " 51 edges, 8 heads of width 64\nbackend: " in out
    assert "\nmemory: graph " in out
    assert out.endswith("picture: p.png\n")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_show_takes_parts_and_two_sides(capsys):
    pattern = "Between({('text', 'text'): Causal(), ('image', 'text'): Full()})"
    assert main(["show", pattern, "--nodes", "text=2, image=1x2"]) == 0
    assert capsys.readouterr().out.splitlines()[-4:] == [" 0   1 1", " 0 0 1 1", " " * 8, " " * 8]
    assert main(["show", "Window(1, stride=2)", "--nodes", "4 -> 2"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["████    ", "  ██████"]
    assert main(["show", "Window((0, 1))", "--nodes", "1x3,2x1 -> 1x1,2x2"]) == 0
    assert capsys.readouterr().out.splitlines()[-5:] == ["████      ", *["      ██  "] * 2, *["        ██"] * 2]
    assert main(["show", "Between({('a', 'b'): Bipartite()})", "--nodes", "a=3 -> b=2", "--out", "p.png"]) == 0
    assert "6 edges" in capsys.readouterr().out


def test_show_draws_with_text(capsys):
    assert main(["show", "Axial()", "--nodes", "2x3"]) == 0
    assert "6 queries attend to 6 keys by 24 edges" in capsys.readouterr().out
    assert main(["show", "Causal()", "--nodes", "2,1"]) == 0
    assert capsys.readouterr().out.endswith("\n██    \n████  \n    ██\n")


def test_env_tells_versions_and_devices(capsys):
    assert main(["env"]) == 0
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert facts["graphformer"] == graphformer.__version__
    assert "reference" in facts["backends"]
    assert {"python", "torch", "torch-geometric", "torch-scatter", "torch threads", "CUDA devices"} <= facts.keys()


def test_a_closed_pipe_is_no_error(monkeypatch):
    def closed(words):
        raise BrokenPipeError

    monkeypatch.setattr(cli, "_dispatch", closed)
    monkeypatch.setattr(sys, "stderr", open("/dev/null", "w"))  # noqa: SIM115 - main closes it
    assert main([]) == 0


def test_help_and_version(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(f"  {command} " in out for command in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{graphformer.__version__}\n"


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_is_quick_and_imports_nothing_heavy(command):
    heavy = ("torch", "lightning", "rdkit", "ogb", "pandas", "matplotlib", "torch_geometric")
    words = [command, "--help"] if command else ["--help"]
    code = f"""
import sys
from graphformer.cli.main import main
try:
    main({words!r})
except SystemExit as done:
    assert not done.code
print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert time.perf_counter() - started < 5  # about 0.2 s; the bound leaves room for a busy machine
    assert done.stderr == "[]\n"
    assert "usage: graphformer" in done.stdout
    if command == "train":
        assert "--model.channels" in done.stdout
        assert "Passes over the training split" in done.stdout


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "graphformer", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{graphformer.__version__}\n"


def test_show_counts_what_runs_hold(capsys):
    assert main(["show", "Window(64) | Global(4)", "--nodes", "200000", "--out", "p.png"]) == 0
    assert "held as 399931 runs of keys" in capsys.readouterr().out


def test_show_refuses_what_would_fill_the_memory(capsys):
    assert main(["show", "Full() + Window(0)", "--nodes", "300000"]) == 2
    error = capsys.readouterr().err
    assert (
        "show: --nodes must give at most 20,000,000 pairs to list or label; got 90,000,300,000. A picture of fewer"
        in error
    )


def test_the_model_is_chosen_by_name_and_brings_its_settings(asked, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("graphformer.train.train", lambda config: seen.append(config) or (_ for _ in ()).throw(Stop))
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "mine.yaml").write_text("dataset: ogbg-mollipo\nepochs: 11\nmodel: {layers: 2}\n")
    monkeypatch.setattr("graphformer.train.recipes.FOLDER", recipes)
    for words in (["--recipe", "mine"], ["ogbg-molesol", "--recipe=mine", "--model.layers", "5"]):
        with pytest.raises(Stop):
            main(["train", *words])
    mine, other = seen
    assert (mine.dataset, mine.epochs, mine.model.layers) == ("ogbg-mollipo", 11, 2)
    assert (other.dataset, other.epochs, other.model.layers) == ("ogbg-molesol", 11, 5)


def test_settings_of_one_model_are_left_behind_by_another():
    from graphformer.cli.train import _over

    weak = {"epochs": 3, "model": {"name": "gps", "layers": 10}}
    assert _over(weak, {"model": {"channels": 8}})["model"] == {"name": "gps", "layers": 10, "channels": 8}
    assert _over(weak, {"model": {"name": "graph_transformer"}})["model"] == {"name": "graph_transformer"}
    assert _over({"model": {"layers": 2}}, {"model": {"name": "graph_transformer"}})["model"]["layers"] == 2


def test_an_unknown_model_is_told(capsys):
    assert main(["train", "logp", "--model", "graph_transfomer"]) == 2
    assert "got 'graph_transfomer'. Did you mean graph_transformer" in capsys.readouterr().err


class Stop(Exception):
    """Ends a command where it would begin to train."""
