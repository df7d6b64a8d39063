"""Functions of the user's own: how many arguments they ask for, and what they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from graphformer._checks import refuse, require


def num_required(fn: Callable[..., Any], allowed: tuple[int, int], where: str, rule: str, remedy: str) -> int:
    """The number of positional arguments without a default; refuses what has neither of the allowed numbers."""
    require(callable(fn), where, "fn", rule, type(fn).__name__, remedy)
    try:
        parameters = inspect.signature(fn).parameters.values()
    except ValueError:
        refuse(where, "fn", rule, f"{name_of(fn)}, which does not tell its arguments", remedy)
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [item.name for item in parameters if item.kind in places and item.default is item.empty]
    require(len(required) in allowed, where, "fn", rule, f"{name_of(fn)}({', '.join(required)})", remedy)
    return len(required)


def name_of(fn: Any) -> str:
    """What a repr calls a function."""
    name = getattr(fn, "__name__", type(fn).__name__)
    return name if name.isidentifier() else "anonymous"
