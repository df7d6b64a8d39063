"""``graphformer COMMAND ...``: choose the command, and end every foreseen error as one line."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

import graphformer
from graphformer._checks import require_choice
from graphformer._errors import GraphformerError

COMMANDS = {
    "train": "train a model on a data set, or resume an interrupted run",
    "results": "print a table of finished runs",
    "recipes": "list the built-in recipes and what they gave",
    "evaluate": "measure a run on a split of its data set",
    "predict": "predict molecules given as SMILES",
    "export": "write a run's model into one file, which predicts without the run",
    "explain": "draw what a model attends to in a molecule",
    "show": "draw a pattern, and tell what attention over it costs",
    "env": "print versions, devices and backends",
}
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The words after ``graphformer``. Default: those of the process.

    Returns:
        The exit status: 0, 2 after an error in the input, the data or a run, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Threads that spin while they wait make small models ten times slower on busy cores; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # what other packages will deprecate is not the user's affair
        return _dispatch(words)
    except GraphformerError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"error: {interrupt or 'interrupted'}", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has left
        sys.stderr.close()
        return 0


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    if words[0] == "--version":
        print(graphformer.__version__)
        return 0
    require_choice(words[0], COMMANDS, "graphformer", "command", "See graphformer --help.")
    import_module(f"graphformer.cli.{words[0]}").run(words[1:])
    return 0


def _help() -> str:
    lines = [f"  {name:<10}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: graphformer COMMAND ...",
            "",
            "Attention as message passing over attention graphs.",
            "",
            *lines,
            "",
            "graphformer COMMAND --help tells the options of a command; --version prints the version.",
        ]
    )
