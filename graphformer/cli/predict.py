"""``graphformer predict``: predict molecules given as SMILES."""

from __future__ import annotations

import sys
from pathlib import Path

from graphformer._checks import require
from graphformer._errors import InputError
from graphformer.cli.parser import new_parser, parse
from graphformer.cli.source import add_source, read_source

DESCRIPTION = """Predict molecules with a run's best checkpoint, or with a trained model. Prints a line for each:
the SMILES and the predictions, separated by tabs. Where several labels are predicted and their names are known, a first
line, which begins with the word smiles, tells them."""


def run(words: list[str]) -> None:
    """Print one line for each molecule, below a line of names where there are several to tell apart."""
    parser = new_parser("predict", DESCRIPTION)
    add_source(parser)
    parser.add_argument("--file", type=str, default=None, help="text file with one SMILES at the start of each line")
    parser.add_argument("--skip-invalid", action="store_true", help="leave out what cannot be read, and say so")
    values = parse(parser, words)
    run, smiles = read_source("predict", values)
    smiles += _read_file(values["file"]) if values["file"] else []
    require(bool(smiles), "predict", "SMILES", "be given", "none", 'Write them, as in "CCO", or pass --file.')
    from graphformer.train import predict

    predictions, problems = predict(run, smiles, skip_invalid=values["skip_invalid"], model=values["model"])
    for problem in problems:
        print(f"graphformer: left out {problem}", file=sys.stderr)
    lines = [(found.smiles, *(f"{value:.4f}" for value in found.values)) for found in predictions]
    if predictions and len(predictions[0].task_names) > 1:
        lines.insert(0, ("smiles", *predictions[0].task_names))
    width = max((len(first) for first, *_ in lines), default=0)
    for first, *rest in lines:
        print(first.ljust(width), *rest, sep="\t")


def _read_file(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"predict: --file must be a readable text file; got {error}. Check the path.") from None
    return [line.split()[0] for line in lines if line.strip()]
