"""What layers and the settings of models accept as a count or a probability; imports nothing heavy."""

from __future__ import annotations

from numbers import Integral, Real

from graphformer._checks import require


def require_count(value: object, where: str, name: str, remedy: str = "Pass a count.", minimum: int = 1) -> None:
    """Refuse what is no integer of at least ``minimum``, which is 0 or 1.

    Example:
        >>> require_count(4.0, "GraphAttention", "heads")
        Traceback (most recent call last):
        ...
        graphformer._errors.InputError: GraphAttention: heads must be an integer; got 4.0. Pass a count.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    require(whole, where, name, "be an integer", repr(value), remedy)
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
