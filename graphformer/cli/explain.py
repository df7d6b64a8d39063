"""``graphformer explain``: a picture of what a run's model attends to in a molecule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphformer._checks import require
from graphformer._errors import InputError
from graphformer.cli.parser import new_parser, parse
from graphformer.cli.source import add_source, read_source


def run(words: list[str]) -> None:
    """Draw a molecule's attention, and say for each layer which pairs of atoms attend most."""
    parser = new_parser("explain", "Draw what a run's best checkpoint, or a trained model, attends to in a molecule.")
    add_source(parser)
    parser.add_argument("--out", type=str, default="attention.png", help="picture to write. Default: attention.png")
    parser.add_argument("--layer", type=int, default=None, help="draw this layer on the molecule. Default: the mean")
    values = parse(parser, words)
    run, smiles = read_source("explain", values)
    require(len(smiles) == 1, "explain", "SMILES", "be one molecule", smiles or "none", 'Write one, as in "CCO".')
    from graphformer.train import draw_explanation, explain

    explanation = explain(run, smiles[0], model=values["model"])
    figure = draw_explanation(explanation, values["layer"])
    out = Path(values["out"])
    try:
        figure.savefig(out, dpi=120)
    except (OSError, ValueError) as error:
        raise InputError(f"explain: --out must be a file that can be written; got {error}. Pass a path.png.") from None
    print(f"prediction: {', '.join(f'{value:.4f}' for value in explanation.prediction)}")
    _tell("layer", explanation.matrices, explanation.atoms)
    if explanation.convolution is not None:
        _tell("convolution, layer", explanation.convolution, explanation.atoms)
    print(f"picture: {out}")


def _tell(name: str, matrices: Any, atoms: list[str]) -> None:
    for number, matrix in enumerate(matrices, start=1):
        if not matrix.any():
            print(f"{name} {number}: no atom attends to an atom")
            continue
        query, key = divmod(int(matrix.argmax()), len(atoms))
        names = [f"{atoms[atom]}{atom}" for atom in (query, key)]
        print(f"{name} {number}: the strongest pair is {names[0]} attending to {names[1]}, {float(matrix.max()):.2f}")
