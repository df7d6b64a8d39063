"""Which model answers: the words RUN and --model, which `predict` and `explain` share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphformer._checks import require
from graphformer._errors import RunError
from graphformer.train.weights import names

USAGE = "the folder of a run, for instance runs/logp-1 (not with --model), then molecules, for instance CCO"


def add_source(parser: Any) -> None:
    """Let the words be [RUN] SMILES ..., and --model NAME stand for RUN."""
    known = ", ".join(names()) or "none come with this version"
    parser.add_argument("words", nargs="*", metavar="[RUN] SMILES", help=USAGE)
    parser.add_argument(
        "--model",
        type=str,
        default=None,
        metavar="NAME",
        help=f"a model that comes with the package ({known}), or a file of `graphformer export`",
    )


def read_source(command: str, values: dict[str, Any]) -> tuple[str | None, list[str]]:
    """The run, None where a model is named, and the molecules.

    Raises:
        InputError: A run and a model are given, or none.
        RunError: The first word is no run.
    """
    words, model = values["words"], values["model"]
    if model is None:
        remedy = "Pass the folder of a run, or --model NAME."
        require(bool(words), command, "RUN", "be given, or --model", "neither", remedy)
        from graphformer.train.folder import RunFolder

        try:
            RunFolder.open(words[0])  # who forgot it would be told that no molecule is there
        except RunError as error:
            raise RunError(f"{error} Or name a model that needs no run: --model NAME.") from None
        return words[0], words[1:]
    both = bool(words) and (Path(words[0]) / "config.yaml").is_file()
    got = f"the run {words[0]} and the model {model}" if both else ""
    require(not both, command, "RUN", "not be given with --model", got, "Leave one out.")
    return None, words
