"""``graphformer show``: draw a pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphformer._checks import require
from graphformer._errors import InputError
from graphformer.cli.parser import new_parser, parse

_MOST_PAIRS = 20_000_000  # where they are listed: about a gigabyte


def run(words: list[str]) -> None:
    """Print what the pattern's attention graph is and what attention over it costs, and write its picture."""
    parser = new_parser(
        "show",
        "Draw which query attends to which key, and tell what that costs. The expression is parsed, never evaluated.",
    )
    parser.add_argument("pattern", metavar="PATTERN", help='an expression, for instance "Window(3) | Global(1)"')
    parser.add_argument(
        "--nodes", type=str, default="32", help="nodes of the set, or of several: 32, or 12,20, or a grid 8x12"
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
    fits = pairs <= _MOST_PAIRS or held_runs(terms) is not None
    remedy = "A picture of fewer nodes shows the same pattern."
    require(fits, "show", "--nodes", f"give at most {_MOST_PAIRS:,} pairs to list", f"{pairs:,}", remedy)
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
    """One set of nodes, or a ragged batch of several; each a count or a grid."""
    from graphformer.patterns import Grid

    shapes = [[int(size) if size.strip().isdecimal() else 0 for size in part.split("x")] for part in text.split(",")]
    remedy = "Pass a positive count, a grid such as 8x12, or several with commas."
    require(min(map(min, shapes)) >= 1, "show", "--nodes", "be at least 1", text, remedy)
    sets = [shape[0] if len(shape) == 1 else Grid(*shape) for shape in shapes]
    return sets[0] if len(sets) == 1 else sets
