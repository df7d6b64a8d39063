"""``graphformer show``: draw a pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphformer._checks import require
from graphformer._errors import InputError
from graphformer.cli.parser import new_parser, parse

_MOST_PAIRS = 20_000_000  # where they are listed, or each has a relation: about a gigabyte


def run(words: list[str]) -> None:
    """Print what the pattern's attention graph is and what attention over it costs, and write its picture."""
    parser = new_parser(
        "show",
        "Draw which query attends to which key, and tell what that costs. The expression is parsed, never evaluated.",
    )
    parser.add_argument("pattern", metavar="PATTERN", help='an expression, for instance "Window(3) | Global(1)"')
    parser.add_argument(
        "--nodes",
        type=str,
        default="32",
        help="nodes of the set, or of several: 32, or 12,20, or a grid 8x12; parts by name: text=8,image=4x4; keys and "
        "queries: '24 -> 10'",
    )
    parser.add_argument("--out", type=str, default=None, help="PNG, SVG or PDF file to write; else a picture in text")
    values = parse(parser, words)
    nodes, out = _read_nodes(values["nodes"]), values["out"]
    from graphformer.cost import estimate
    from graphformer.graphs.sketch import sketch
    from graphformer.patterns import parse as parse_pattern
    from graphformer.patterns.terms import held_runs

    pattern = parse_pattern(values["pattern"])
    terms = pattern.lower(nodes)
    pairs = sum(term.num_pairs for term in terms)
    fits = pairs <= _MOST_PAIRS or (pattern.num_relations == 0 and held_runs(terms) is not None)
    remedy = "A picture of fewer nodes shows the same pattern."
    require(fits, "show", "--nodes", f"give at most {_MOST_PAIRS:,} pairs to list or label", f"{pairs:,}", remedy)
    print(repr(pattern))
    graph = pattern.on(nodes)
    print(graph.explain())
    print(str(estimate(graph)).partition("\n")[2])  # without its first line, which names the graph
    if out is None:
        print(sketch(graph))
    else:
        figure = pattern.draw(nodes)
        try:
            figure.savefig(out, dpi=120)
        except (OSError, ValueError) as error:
            raise InputError(f"show: --out must be a file that can be written; got {error}. Pass a path.png.") from None
        print(f"picture: {Path(out)}")


def _read_nodes(text: str) -> Any:
    """What follows `--nodes`: node sets, named parts, or keys and queries."""
    sides = [_read_side(side) for side in text.split("->")]
    remedy = "Write keys, an arrow and queries, for instance '24 -> 10'."
    require(len(sides) <= 2, "show", "--nodes", "have at most one arrow", text, remedy)
    return sides[0] if len(sides) == 1 else tuple(sides)


def _read_side(text: str) -> Any:
    """One set of nodes, or a ragged batch of several; each a count or a grid. Or one set of named parts."""
    names, sizes = zip(*(part.rpartition("=")[::2] for part in text.split(",")), strict=True)
    sets = [_read_set(size, text) for size in sizes]
    if not any(names):
        return sets[0] if len(sets) == 1 else sets
    names = tuple(name.strip() for name in names)
    remedy = "For instance text=8,image=4x4."
    require(all(names) and len(set(names)) == len(names), "show", "--nodes", "name each part once", text, remedy)
    return dict(zip(names, sets, strict=True))


def _read_set(size: str, text: str) -> Any:
    from graphformer.patterns import Grid

    shape = [int(side) if side.strip().isdecimal() else 0 for side in size.split("x")]
    remedy = "Pass a positive count, a grid such as 8x12, or several with commas."
    require(min(shape) >= 1, "show", "--nodes", "be at least 1", text.strip(), remedy)
    return shape[0] if len(shape) == 1 else Grid(*shape)
