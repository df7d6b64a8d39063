"""The expression parser: what it reads, and that it reads nothing else."""

import pytest

from graphformer import GraphformerError, patterns
from graphformer.patterns import (
    Axial,
    Between,
    BigBird,
    Bipartite,
    Blocks,
    Causal,
    Content,
    Distance,
    Edges,
    EdgeType,
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
    content,
    parse,
)
from graphformer.patterns import __all__ as public
from graphformer.patterns.parse import BY_CONTENT, MEMBERS, RELATIONS, UNWRITTEN


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
        ("Window((1, 2), offset=(-1, 0), border='wrap')", Window((1, 2), offset=(-1, 0), border="wrap")),
        ("Axial(0) | Axial() & Strided(3)", Axial(0) | Axial() & Strided(3)),
        ("ShiftedWindows((4, 6)) + Blocks(3, shift=1)", Blocks((4, 6), shift=(2, 3)) + Blocks(3, shift=1)),
        ("Between({('a', 'b'): Full() | Window(1), ('b', 'b'): ~Causal()}).as_relation(2)",
         Between({("a", "b"): Full() | Window(1), ("b", "b"): ~Causal()}).as_relation(2)),
        ("Longformer(2, num_global=1)", Longformer(2, 1)),
        ("BigBird(2, 1, 3, seed=4) - VirtualNode()", BigBird(2, 1, 3, 4) - VirtualNode(1)),
        ("Expander(4, seed=-1) | Tree(up=2)", Expander(4, -1) | Tree(2)),
        ("Within(2.5) & ~Within(1e-3) & Nearest(4)", Within(2.5) & ~Within(0.001) & Nearest(4)),
        ("Full().as_relation(Distance(3))", Full().as_relation(Distance(3))),
        ("Edges().as_relation(relation=EdgeType(3, attribute='bond'))", Edges().as_relation(EdgeType(3, "bond"))),
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
        (ShiftedWindows(7), "Blocks(size=7, shift=3)"),
        (Between({("a", "b"): Full() | Causal()}), "Between({('a', 'b'): Full() | Causal()})"),
        ((~Full()).as_relation(2), "(~Full()).as_relation(2)"),
        (~Full().as_relation(2), "~Full().as_relation(2)"),
    ],
)
def test_repr_has_no_needless_parentheses(pattern, text):
    assert repr(pattern) == text


def test_every_member_can_be_read():
    assert {name for name in public if name in MEMBERS} == set(MEMBERS)
    others = {"Grid", "Pattern", "PairTerm", "Relation", "RunTerm", "join_parts", "parse", "split_parts"}
    choose_from_vectors = set(content.__all__)  # and are no terms of the algebra
    assert set(public) - set(MEMBERS) - choose_from_vectors == others | set(RELATIONS) | set(UNWRITTEN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Causl()", "names; got 'Causl'. Did you mean Causal? The names: Axial, "),
        ("Window", "text must hold patterns and operators only; got 'Window'. Write Window()."),
        ("3", "text must hold patterns and operators only; got '3'. Write patterns such as"),
        ("Full() ^ Causal()", "operators only; got 'Full() ^ Causal()'"),
        ("Full() and Causal()", "operators only; got 'Full() and Causal()'"),
        ("-Full()", "operators only; got '-Full()'"),
        ("Full().on(3)", "method must be one of as_relation; got 'on'"),
        ("Full().__class__()", "method must be one of as_relation; got '__class__'"),
        ("__import__('os').system('true')", "got 'system'"),
        ("(lambda: 1)()", "pattern must be one of"),
        (
            "Window(1 + 2)",
            "strings, tuples of these or None; got '1 + 2'. Write the value",
        ),
        ("Window(Full())", "strings, tuples of these or None; got 'Full()'"),
        ("Window(1.5)", "Window: radius must be an integer, 0 or more and below 2^31; got 1.5"),
        ("Within(1e999)", "Within: distance must be a finite number, 0 or more; got inf"),
        ("Within(2j)", "got '2j'"),
        ("Full() & Hash(4)", "must have pairs without queries and keys; got 'Hash'. Hash chooses keys by content"),
        ("SortedBlocks(4)", "SortedBlocks chooses keys by content: make it in Python, for gf.nn.ContentAttention"),
        ("Where(near)", "pattern must have plain arguments; got 'Where(near)'. Make Where in Python"),
        ("Full() | NetworkX(num_nodes=3, num_edges=4)", "got 'NetworkX(num_nodes=3, num_edges=4)'. Make NetworkX in"),
        ("Pairs(corners)", "got 'Pairs(corners)'. Make Pairs in Python"),
        ("Full().as_relation(Distanc(3))", "relation must be one of Distance, "),
        ("Full().as_relation(Distance())", "missing a required argument: 'clip'"),
        (
            "Full().as_relation(Full())",
            "one of Distance, EdgeType, Offset2d, ShortestPath; got 'Full'",
        ),
        (
            "Window(Distance(3))",
            "strings, tuples of these or None; got 'Distance(3)'",
        ),
        ("Window({1: Full()})", "got '{1: Full()}'"),
        ("Between({('a', 'b'): 3})", "text must hold patterns and operators only; got '3'"),
        ("Between({('a', 'b'): Full(), **{}})", "arguments must be plain numbers"),
        ("Window(-True)", "got '-True'"),
        ("Window(*[3])", "got '*[3]'"),
        ("Window(**{'radius': 3})", "got \"{'radius': 3}\""),
        ("Full(3)", "arguments must fit Full(); got 'Full(3)' (too many positional arguments). Write them"),
        (
            "Window(3, width=2)",
            "fit Window(radius=None, left=None, right=None, dilation=1, stride=1, offset=0, border='clip'); got",
        ),
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


def test_every_pattern_by_content_is_told_apart():
    public = {name: getattr(patterns, name) for name in patterns.__all__}
    by_content = {name for name, value in public.items() if isinstance(value, type) and issubclass(value, Content)}
    assert by_content - {"Content"} | {"LearnedClusters", "SortedBlocks"} == set(BY_CONTENT)
