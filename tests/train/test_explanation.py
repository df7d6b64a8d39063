from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from graphformer._errors import DataError, InputError
from graphformer.cli.main import main
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
    with pytest.raises(InputError, match="explain: layer must lie in 1 to 2; got 3. Layers are counted from 1"):
        draw_explanation(explain(run, ASPIRIN), layer=3)
    draw_explanation(explain(run, "C"))  # one atom and no bond


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
