"""Reading patterns from text, as configurations and command lines write them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

from graphformer._checks import require, require_choice
from graphformer._errors import InputError
from graphformer.patterns import compose
from graphformer.patterns.axial import Axial, Strided
from graphformer.patterns.between import Between
from graphformer.patterns.blocks import Blocks, ShiftedWindows
from graphformer.patterns.definitions import BigBird, Longformer
from graphformer.patterns.dense import Bipartite, Causal, Full
from graphformer.patterns.edges import Edges
from graphformer.patterns.expander import Expander
from graphformer.patterns.hops import Hops
from graphformer.patterns.hub import Global, VirtualNode
from graphformer.patterns.pattern import Pattern
from graphformer.patterns.relations import Distance, EdgeType, Offset2d, ShortestPath
from graphformer.patterns.sampled import Random
from graphformer.patterns.space import Nearest, Within
from graphformer.patterns.terms import Relation
from graphformer.patterns.tree import Tree
from graphformer.patterns.window import Window

_MEMBERS: tuple[Callable[..., Pattern], ...] = (
    Axial,
    Between,
    BigBird,
    Bipartite,
    Blocks,
    Causal,
    Edges,
    Expander,
    Full,
    Global,
    Hops,
    Longformer,
    Nearest,
    Random,
    ShiftedWindows,
    Strided,
    Tree,
    VirtualNode,
    Window,
    Within,
)
MEMBERS: dict[str, Callable[..., Pattern]] = {member.__name__: member for member in _MEMBERS}
RELATIONS: dict[str, type[Relation]] = {rule.__name__: rule for rule in (Distance, EdgeType, Offset2d, ShortestPath)}
UNWRITTEN = ("NetworkX", "Pairs", "Where")  # their arguments are functions and graphs, which have no text
BY_CONTENT = ("Clusters", "Hash", "LearnedClusters", "SortedBlocks", "TopK")  # no terms of the algebra
_OPERATORS = {ast.BitOr: compose.Or, ast.Add: compose.Plus, ast.BitAnd: compose.And, ast.Sub: compose.Minus}
_GRAMMAR = "patterns such as Window(3), the operators | + & - ~, parentheses and .as_relation(r)"


def parse(text: str) -> Pattern:
    """The pattern that an expression means; nothing in it is executed.

    Operators bind as in Python: `~` first, then `+` and `-`, then `&`, then `|`. The repr of every pattern parses back
    to an equal pattern, but for those that hold a function or a graph (`Where`, `Pairs`, `NetworkX`).

    Args:
        text: An expression of pattern names with plain arguments (numbers, booleans, None, strings, tuples of these,
            and for :class:`Between` a dict from tuples to patterns), the operators `| + & - ~`, parentheses and
            `.as_relation(r)`, where r is an integer or a rule such as `Distance(8)`.

    Raises:
        InputError: Anything else, with what was read instead; an argument that the named pattern refuses.

    Example:
        >>> parse("Window(3) | Global(1) - Causal()")
        Window(radius=3) | Global(num_nodes=1) - Causal()
        >>> parse("Causl()")
        Traceback (most recent call last):
        ...
        graphformer._errors.InputError: parse: pattern must be one of ... names; got 'Causl'. Did you mean Causal? ...
    """
    require(isinstance(text, str), "parse", "text", "be a string", type(text).__name__, "Pass for example 'Window(3)'.")
    try:
        return _read(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        reason = "too deeply nested" if isinstance(error, (RecursionError, MemoryError)) else str(error)
        raise InputError(
            f"parse: text must be one pattern expression; got {shown!r} ({reason}). Write {_GRAMMAR}."
        ) from None


def _read(node: ast.expr) -> Pattern:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_read(node.left), _read(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        return compose.Not(_read(node.operand))
    if isinstance(node, ast.Call):
        return _read_call(node)
    known = isinstance(node, ast.Name) and node.id in MEMBERS
    remedy = f"Write {ast.unparse(node)}()." if known else f"Write {_GRAMMAR}."
    raise InputError(f"parse: text must hold patterns and operators only; got {ast.unparse(node)!r}. {remedy}")


def _read_call(node: ast.Call) -> Pattern:
    if isinstance(node.func, ast.Attribute):
        require_choice(node.func.attr, ["as_relation"], "parse", "method")
        return _call(_read(node.func.value).as_relation, node, _read_relation)
    name = ast.unparse(node.func)
    remedy = f"Make {name} in Python: a function or a graph has no text."
    require(name not in UNWRITTEN, "parse", "pattern", "have plain arguments", repr(ast.unparse(node)), remedy)
    remedy = f"{name} chooses keys by content: make it in Python, for gf.nn.ContentAttention, or select with vectors."
    require(name not in BY_CONTENT, "parse", "pattern", "have pairs without queries and keys", repr(name), remedy)
    require_choice(name, MEMBERS, "parse", "pattern")
    return _call(MEMBERS[name], node, _argument)


def _read_relation(node: ast.expr) -> Any:
    """An integer, or a rule."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return _literal(node)
    require_choice(node.func.id, RELATIONS, "parse", "relation")
    return _call(RELATIONS[node.func.id], node, _literal)


def _call(make: Callable[..., Any], node: ast.Call, read: Callable[[ast.expr], Any]) -> Any:
    positional = [read(value) for value in node.args]
    named = {keyword.arg or "**": read(keyword.value) for keyword in node.keywords}
    signature = inspect.signature(make)
    try:
        signature.bind(*positional, **named)
    except TypeError as error:
        takes = ", ".join(str(part.replace(annotation=part.empty)) for part in signature.parameters.values())
        raise InputError(
            f"parse: arguments must fit {make.__name__}({takes}); got {ast.unparse(node)!r} ({error}). "
            "Write them as in that signature."
        ) from None
    return make(*positional, **named)


def _argument(node: ast.expr) -> Any:
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Tuple) for key in node.keys):
        return {_literal(key): _read(value) for key, value in zip(node.keys, node.values, strict=True)}  # type: ignore[arg-type]
    return _literal(node)


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, (int, float, str))):
        return node.value
    if isinstance(node, ast.Tuple):
        return tuple(_literal(entry) for entry in node.elts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return -value
    raise InputError(
        "parse: arguments must be plain numbers, booleans, strings, tuples of these or None; got "
        f"{ast.unparse(node)!r}. Write the value itself: nothing is computed here."
    )
