"""The expression parser: what it reads, and that it reads nothing else."""

import pytest

from graphformer import GraphformerError
from graphformer.patterns import Bipartite, Blocks, Causal, Edges, Full, Global, Hops, Random, Window, content, parse
from graphformer.patterns import __all__ as public
from graphformer.patterns.parse import MEMBERS


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("Window(3) | Global(1) - Causal()", Window(3) | (Global(1) - Causal())),
        (" ( Window(3)|Global(1) )-Causal() ", (Window(3) | Global(1)) - Causal()),
        ("Full() - (Causal() - Window(1))", Full() - (Causal() - Window(1))),
        ("Full() - Causal() - Window(1)", (Full() - Causal()) - Window(1)),
        ("~Causal() & Window(left=2, right=None)", ~Causal() & Window(left=2)),
        ("~(Causal() & Full())", ~(Causal() & Full())),
        ("~~Full()", ~~Full()),
        ("Edges(self_loops=True).as_relation(0) + Hops(2).as_relation(relation=1)",
         Edges(self_loops=True).as_relation(0) + Hops(2).as_relation(1)),
        ("(Blocks(2) | Bipartite()).as_relation(1)", (Blocks(2) | Bipartite()).as_relation(1)),
        ("Random(3, seed=-7)", Random(3, seed=-7)),
        ("Window(\n  3\n)", Window(3)),
    ],
)  # fmt: skip
def test_reads(text, pattern):
    assert parse(text) == pattern
    assert parse(repr(pattern)) == pattern


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (Window(3) & Causal(), "Window(radius=3) & Causal()"),
        (Window(left=2, dilation=3), "Window(left=2, dilation=3)"),
        (Edges(), "Edges()"),
        ((Full() | Causal()) & Full(), "(Full() | Causal()) & Full()"),
        (Full() | Causal() & Full(), "Full() | Causal() & Full()"),
        (Full() - (Causal() + Full()), "Full() - (Causal() + Full())"),
        (~(Full() | Causal()), "~(Full() | Causal())"),
        ((~Full()).as_relation(2), "(~Full()).as_relation(2)"),
        (~Full().as_relation(2), "~Full().as_relation(2)"),
    ],
)
def test_repr_has_no_needless_parentheses(pattern, text):
    assert repr(pattern) == text


def test_every_member_can_be_read():
    assert {name for name in public if name in MEMBERS} == set(MEMBERS)
    choose_from_vectors = set(content.__all__)  # and are no terms of the algebra
    assert set(public) - set(MEMBERS) - choose_from_vectors == {"Pattern", "PairTerm", "RunTerm", "parse"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Windw(3)", "Random, Window; got 'Windw'. Did you mean Window?"),
        ("Window", "text must hold patterns and operators only; got 'Window'. Write Window()."),
        ("3", "text must hold patterns and operators only; got '3'. Write patterns such as"),
        ("Full() ^ Causal()", "operators only; got 'Full() ^ Causal()'"),
        ("Full() and Causal()", "operators only; got 'Full() and Causal()'"),
        ("-Full()", "operators only; got '-Full()'"),
        ("Full().on(3)", "method must be one of as_relation; got 'on'"),
        ("Full().__class__()", "method must be one of as_relation; got '__class__'"),
        ("__import__('os').system('true')", "got 'system'"),
        ("(lambda: 1)()", "pattern must be one of"),
        ("Window(1 + 2)", "arguments must be plain integers, booleans, strings or None; got '1 + 2'. Write the value"),
        ("Window(Full())", "arguments must be plain integers, booleans, strings or None; got 'Full()'"),
        ("Window(1.5)", "got '1.5'"),
        ("Window(-True)", "got '-True'"),
        ("Window(*[3])", "got '*[3]'"),
        ("Window(**{'radius': 3})", "got \"{'radius': 3}\""),
        ("Full(3)", "arguments must fit Full(); got 'Full(3)' (too many positional arguments). Write them"),
        ("Window(3, width=2)", "fit Window(radius=None, left=None, right=None, dilation=1); got"),
        ("Blocks()", "missing a required argument: 'size'"),
        ("Full().as_relation()", "missing a required argument: 'relation'"),
        ("Window(-3)", "Window: radius must be an integer, 0 or more"),
        ("", "text must be one pattern expression; got ''"),
        ("Full() |", "text must be one pattern expression; got 'Full() |' (invalid syntax"),
        ("Full(); Full()", "text must be one pattern expression"),
        ("x = Full()", "text must be one pattern expression"),
        ("Full()\0", "text must be one pattern expression"),
        ("~" * 50_000 + "Full()", "too deeply nested"),
        ("|".join(["Full()"] * 5000), "too deeply nested"),
        ("(" * 300 + "Full()" + ")" * 300, "text must be one pattern expression"),
        (3, "parse: text must be a string; got int. Pass for example 'Window(3)'"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(GraphformerError) as caught:
        parse(text)
    assert message in str(caught.value)
