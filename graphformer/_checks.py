"""One way to refuse an argument: rule, value, remedy."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable
from numbers import Integral, Real
from typing import NoReturn

from graphformer._errors import GraphformerError, InputError

_MANY = 12  # choices that push what to do next out of sight


def refuse(
    where: str, argument: str, rule: str, got: object, remedy: str, error: type[GraphformerError] = InputError
) -> NoReturn:
    """Raise ``{where}: {argument} must {rule}; got {got}. {remedy}``.

    For checks on a path that torch.compile traces: ``if wrong: refuse(...)`` writes no sizes into a message unless the
    check fails; a size in a message becomes a constant of the program.

    Example:
        >>> refuse("attend", "dropout", "lie in [0, 1)", 1.5, "Pass a probability.")
        Traceback (most recent call last):
        ...
        graphformer._errors.InputError: attend: dropout must lie in [0, 1); got 1.5. Pass a probability.
    """
    raise error(f"{where}: {argument} must {rule}; got {got}. {remedy}")


def require(
    condition: bool,
    where: str,
    argument: str,
    rule: str,
    got: object,
    remedy: str,
    error: type[GraphformerError] = InputError,
) -> None:
    """Refuse the argument, as :func:`refuse` does, unless ``condition`` holds.

    Example:
        >>> require(3 > 4, "attend", "dropout", "lie in [0, 1)", 1.5, "Pass a probability.")
        Traceback (most recent call last):
        ...
        graphformer._errors.InputError: attend: dropout must lie in [0, 1); got 1.5. Pass a probability.
    """
    if not condition:
        refuse(where, argument, rule, got, remedy, error)


def require_choice(
    value: str,
    choices: Iterable[str],
    where: str,
    argument: str,
    remedy: str = "",
    error: type[GraphformerError] = InputError,
) -> None:
    """Refuse a name that is not among ``choices``, and suggest near ones; many choices are listed behind the advice.

    Example:
        >>> require_choice("sofmax", ["softmax", "relu"], "attend", "score")
        Traceback (most recent call last):
        ...
        graphformer._errors.InputError: attend: score must be one of softmax, relu; got 'sofmax'. Did you mean softmax?
        >>> require_choice("mm", "abcdefghijklm", "show", "letter")
        Traceback (most recent call last):
        ...
        graphformer._errors.InputError: show: letter must be one of 13 names; got 'mm'. Did you mean m? The names: ...
    """
    names = list(choices)
    if value in names:
        return
    near = difflib.get_close_matches(str(value), names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else ""
    advice = " ".join(part for part in (hint, remedy) if part) or "Pass one of these names."
    known = ", ".join(names)
    if len(names) > _MANY:
        known, advice = f"{len(names)} names", f"{advice} The names: {known}."
    refuse(where, argument, f"be one of {known}", repr(value), advice, error)


def plain_integer(value: object) -> int | None:
    """The integer as Python's own, whatever library it comes from; None for what is none, and for booleans.

    Example:
        >>> import numpy
        >>> plain_integer(numpy.int64(3)), plain_integer(3.0), plain_integer(True)
        (3, None, None)
    """
    return operator.index(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def require_count(value: object, where: str, name: str, remedy: str = "Pass a count.", minimum: int = 1) -> None:
    """Refuse what is no integer of at least ``minimum``, which is 0 or 1.

    Example:
        >>> require_count(4.0, "GraphAttention", "heads")
        Traceback (most recent call last):
        ...
        graphformer._errors.InputError: GraphAttention: heads must be an integer; got 4.0. Pass a count.
    """
    require(plain_integer(value) is not None, where, name, "be an integer", repr(value), remedy)
    rule = "be at least 1" if minimum else "not be negative"
    require(value >= minimum, where, name, rule, value, remedy)  # type: ignore[operator]


def require_probability(value: object, where: str, name: str) -> None:
    """Refuse what is no number in [0, 1): a weight or unit is dropped with this probability.

    Example:
        >>> require_probability(1.5, "FeedForward", "dropout")
        Traceback (most recent call last):
        ...
        graphformer._errors.InputError: FeedForward: dropout must lie in [0, 1); got 1.5. Pass a probability.
    """
    good = isinstance(value, Real) and 0 <= float(value) < 1
    require(good, where, name, "lie in [0, 1)", repr(value), "Pass a probability.")
