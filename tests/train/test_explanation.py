from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Data

from graphformer._errors import DataError, InputError, RunError
from graphformer.cli.main import main
from graphformer.data import from_smiles
from graphformer.graphs import Features
from graphformer.models import ExphormerConfig, GPSConfig
from graphformer.patterns import Expander
from graphformer.testing import assert_close
from graphformer.train import draw_explanation, explain, predict, train

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


@pytest.fixture
def run(loaded, small) -> str:
    model = replace(small.model, pattern="Edges(self_loops=True) | Full()")
    return train(replace(small, epochs=1, model=model)).folder


def test_the_matrices_are_the_models_attention(run):
    explanation = explain(run, ASPIRIN)
    assert explanation.atoms == list("CCOOCCCCCCCOO")
    assert explanation.matrices.shape == (2, 13, 13)
    assert_close(explanation.matrices.sum(2), torch.ones(2, 13))  # each atom spends a softmax
    (found,), _ = predict(run, [ASPIRIN])
    assert explanation.prediction == pytest.approx(found.values)


def test_pairs_that_do_not_attend_are_zero(loaded, small):
    folder = train(replace(small, epochs=1, model=replace(small.model, pattern="Edges()"))).folder
    matrix = explain(folder, "CCO").matrices[0]
    assert matrix[0].tolist() == [0.0, 1.0, 0.0]
    assert matrix[2].tolist() == [0.0, 1.0, 0.0]
    assert matrix[1, 1].item() == 0.0


def test_the_picture_shows_every_layer(run):
    figure = draw_explanation(explain(run, ASPIRIN), layer=2)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[1:3] == ["layer 1", "layer 2"]
    assert "attention: layer 2" in titles[0]
    shown = figure.axes[2].images[0].get_array()
    assert torch.equal(torch.tensor(shown), explain(run, ASPIRIN).matrices[1])
    names = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert names[:3] == ["C0", "C1", "O2"]
    assert [text.get_text() for text in figure.axes[0].texts] == names  # an atom has one name in the whole picture
    with pytest.raises(InputError, match="explain: layer must lie in 1 to 2; got 3. Layers are counted from 1"):
        draw_explanation(explain(run, ASPIRIN), layer=3)
    draw_explanation(explain(run, "C"))  # one atom and no bond


def test_many_layers_fill_several_rows(run):
    explanation = explain(run, ASPIRIN)
    deep = explanation._replace(matrices=explanation.matrices[:1].expand(12, -1, -1))
    figure = draw_explanation(deep)
    places = [axes.get_subplotspec() for axes in figure.axes[1:13]]
    assert [place.rowspan.start for place in places] == [0] * 4 + [1] * 4 + [2] * 4
    width, height = figure.get_size_inches()
    assert width < 2 * height


def test_edges_as_keys_are_told_as_their_atoms(loaded, small):
    settings = {"channels": 32, "layers": 2, "heads": 2, "laplacian": 0, "walk_steps": 0}
    alone = ExphormerConfig(**settings, expander=0, virtual_nodes=0)
    matrices = explain(train(replace(small, epochs=1, model=alone)).folder, ASPIRIN).matrices
    bonds = torch.zeros(13, 13).index_put(tuple(from_smiles(ASPIRIN).edge_index), torch.tensor(1.0))
    assert torch.equal(matrices > 0, bonds.expand(2, -1, -1) > 0)
    assert_close(matrices.sum(2), torch.ones(2, 13))
    hubs = ExphormerConfig(**settings, expander=4, virtual_nodes=2)
    matrices = explain(
        train(replace(small, epochs=1, model=hubs, folder=small.folder + "-hubs")).folder, ASPIRIN
    ).matrices
    reached = torch.zeros(13, 13).index_put(tuple(Expander(4).on(13).edge_index), torch.tensor(1.0)) + bonds
    assert torch.equal(matrices > 0, reached.expand(2, -1, -1) > 0)
    assert bool((matrices.sum(2) < 1).all())  # what goes to virtual nodes is left out


@pytest.mark.parametrize("kind", [GPSConfig, ExphormerConfig])
def test_a_convolution_that_attends_is_told_apart(kind, loaded, small, tmp_path, capsys):
    model = kind(channels=32, layers=2, heads=2, conv="gat", laplacian=0, walk_steps=0)
    folder = train(replace(small, epochs=1, model=model)).folder
    explanation = explain(folder, ASPIRIN)
    assert explanation.matrices.shape == explanation.convolution.shape == (2, 13, 13)
    bonds = torch.zeros(13, 13).index_put(tuple(from_smiles(ASPIRIN).edge_index), torch.tensor(1.0)) + torch.eye(13)
    assert torch.equal(explanation.convolution > 0, bonds.expand(2, -1, -1) > 0)
    assert_close(explanation.convolution.sum(2), torch.ones(2, 13))
    assert bool(((explanation.matrices > 0) & (bonds == 0)).any())  # attention goes beyond the bonds

    figure = draw_explanation(explanation, layer=1)
    of = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}
    assert list(of) == [f"{name}, layer {layer}" for name in ("attention", "convolution") for layer in (1, 2)]
    assert torch.equal(torch.tensor(of["attention, layer 2"]), explanation.matrices[1])
    assert torch.equal(torch.tensor(of["convolution, layer 1"]), explanation.convolution[0])
    assert main(["explain", folder, ASPIRIN, "--out", str(tmp_path / "a.png")]) == 0
    starts = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert starts == ["prediction", "layer 1", "layer 2", "convolution, layer 1", "convolution, layer 2", "picture"]


def test_a_convolution_that_does_not_attend_is_left_out(run, loaded, small):
    assert explain(run, ASPIRIN).convolution is None
    model = GPSConfig(channels=32, layers=2, heads=2, conv="gine", walk_steps=0)
    explanation = explain(train(replace(small, epochs=1, model=model, folder=small.folder + "-gine")).folder, ASPIRIN)
    assert explanation.convolution is None
    assert explanation.matrices.shape == (2, 13, 13)


def test_a_run_of_no_molecules_is_told(loaded, small, monkeypatch, task):
    monkeypatch.setattr("graphformer.train.run.load", lambda *arguments: cycles(task))
    folder = train(replace(small, epochs=1)).folder
    for ask in (lambda: predict(folder, ["CCO"]), lambda: explain(folder, "CCO")):
        with pytest.raises(
            RunError, match="run must have learnt from molecules; got that of cycles. Measure it on its"
        ):
            ask()


def cycles(task):
    around = torch.tensor([[0, 1, 2], [1, 2, 0]])
    graphs = [Data(x=torch.rand(3, 2), edge_index=around, y=torch.rand(1, 1)) for _ in range(4)]
    parts = {"train": graphs, "valid": graphs, "test": graphs}
    return replace(task, name="cycles", features=Features((), 2), **parts)


def test_the_command_writes_a_picture(run, tmp_path, capsys):
    assert main(["explain", run, "CCO", "--out", str(tmp_path / "a.png")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("prediction: ")
    assert "layer 2: the strongest pair is " in out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main(["explain", run, "CCO", "--out", str(tmp_path / "no" / "a.png")]) == 2
    assert "explain: --out must be a file that can be written" in capsys.readouterr().err
    with pytest.raises(DataError):
        explain(run, "C(")


def test_a_layer_without_pairs_is_told(loaded, small, tmp_path, capsys):
    folder = train(replace(small, epochs=1, model=replace(small.model, pattern="Edges()"))).folder
    assert main(["explain", folder, "C", "--out", str(tmp_path / "a.png")]) == 0
    assert "layer 2: no atom attends to an atom" in capsys.readouterr().out
