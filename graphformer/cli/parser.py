"""Parse a command's words; every mistake becomes one InputError."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from graphformer._checks import require_choice
from graphformer._errors import InputError


def new_parser(command: str, description: str) -> ArgumentParser:
    """A parser for ``graphformer COMMAND``."""
    return ArgumentParser(prog=f"graphformer {command}", description=description, exit_on_error=False)


def parse(parser: ArgumentParser, words: list[str]) -> dict[str, Any]:
    """The values of a command's arguments, nested by the dots in their names.

    Raises:
        InputError: An unknown option (the message names near ones), or a value of a wrong kind.
    """
    command = parser.prog.split()[-1]
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    options = [word.partition("=")[0] for word in words if word.startswith("--") and word != "--"]
    for option in options:
        require_choice(option, known, command, "option", f"See {parser.prog} --help.")
    try:
        return parser.parse_args(words).as_dict()
    except ArgumentError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{command}: arguments must be valid; got {reason}. See {parser.prog} --help.") from None
