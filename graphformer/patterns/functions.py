"""Functions of the user's own: how many arguments they ask for, and what they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from graphformer._checks import refuse, require
from graphformer._errors import InputError


def num_required(fn: Callable[..., Any], allowed: tuple[int, int], where: str, rule: str, remedy: str) -> int:
    """The number of positional arguments without a default; refuses what has neither of the allowed numbers."""
    require(callable(fn), where, "fn", rule, type(fn).__name__, remedy)
    try:
        parameters = inspect.signature(fn).parameters.values()
    except ValueError:
        refuse(where, "fn", rule, f"{name_of(fn)}, which does not tell its arguments", remedy)
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [item for item in parameters if item.default is item.empty]
    required = [item.name for item in needed if item.kind in places]
    named = [item.name for item in needed if item.kind is item.KEYWORD_ONLY]
    shown = ", ".join((*required, *(["*", *named] if named else ())))
    require(len(required) in allowed and not named, where, "fn", rule, f"{name_of(fn)}({shown})", remedy)
    return len(required)


def call(fn: Callable[..., Any], args: tuple[Any, ...], where: str, rule: str, remedy: str) -> Any:
    """What the function gives; what it raises is told with the pattern that holds it."""
    try:
        return fn(*args)
    except Exception as error:  # noqa: BLE001 - whatever a user's function raises
        sentence = str(error).split(". ")[0].split("\n")[0].rstrip(".")
        raise InputError(f"{where}: fn must {rule}; got {type(error).__name__}: {sentence}. {remedy}") from error


def name_of(fn: Any) -> str:
    """What a repr calls a function."""
    name = getattr(fn, "__name__", type(fn).__name__)
    return name if name.isidentifier() else "anonymous"
