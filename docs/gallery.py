"""The gallery: every pattern's picture, edges and cost. `python -m docs.gallery` writes docs/gallery/."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

import graphformer as gf
from graphformer.graphs.draw import percent
from graphformer.patterns import Bipartite, Blocks, Causal, Edges, Full, Global, Hops, Pattern, Random, Window

FOLDER = Path(__file__).parent / "gallery"
# Text as outlines looks the same everywhere; the salt makes the same picture the same file.
_STYLE: Any = {"svg.fonttype": "path", "svg.hashsalt": "graphformer", "savefig.dpi": 150}
_HEAD = """# Gallery of patterns

Written by `python -m docs.gallery`; do not edit. Queries go down, keys across; each picture is `pattern.draw(nodes)`.
Costs are what `gf.estimate(pattern, nodes)` tells of 8 heads of width 64 in the forward pass, and of the memory that
the graph takes, with the C++ library built.
"""


@dataclass(frozen=True)
class Entry:
    """One picture and its line.

    Attributes:
        name: The public name that it shows, or a title of its own.
        pattern: What is drawn.
        nodes: What it is laid over in the picture, or a function that makes it.
        text: One sentence.
        large: The larger node set whose cost is told, or None for that of the picture.
    """

    name: str
    pattern: Pattern
    nodes: Any
    text: str
    large: Any = 4_096

    @property
    def file(self) -> str:
        """Name of the picture's file."""
        return f"{'-'.join(self.name.lower().split())}.svg"

    @cached_property
    def node_set(self) -> Any:
        """The nodes of the picture."""
        return self.nodes() if callable(self.nodes) else self.nodes

    def draw(self) -> Figure:
        """The picture."""
        return self.pattern.draw(self.node_set)

    def cost(self) -> str:
        """What the picture's nodes cost, and what a larger set does."""
        told = (gf.estimate(self.pattern, nodes) for nodes in (self.node_set, self.large) if nodes is not None)
        return "<br>".join(map(_cost, told))


def _cost(told: gf.Estimate) -> str:
    keys, queries = told.num_keys, told.num_queries
    where = f"{queries:,} nodes" if keys == queries else f"{queries:,} queries, {keys:,} keys"
    share = percent(told.num_edges / (queries * keys))
    work = f"{_short(told.forward_multiply_adds, 1_000)} multiply-adds"
    return f"**{where}**: {told.num_edges:,} edges ({share}), {work}, {_short(told.graph_bytes, 1_024)}B"


def _short(number: float, step: int) -> str:
    power = 0
    while number >= step:
        number, power = number / step, power + 1
    return f"{number:.3g} {['', 'k', 'M', 'G', 'T'][power]}{'i' if step == 1_024 and power else ''}"


def caffeine() -> Any:
    """A molecule: 14 heavy atoms, two fused rings."""
    from graphformer.data import from_smiles

    return from_smiles("CN1C=NC2=C1C(=O)N(C(=O)N2C)C")


ENTRIES = (
    Entry("Full", Full(), 24, "Plain self-attention: everybody sees everybody."),
    Entry("Ragged batch", Full(), [12, 8, 4], "Sets of any lengths: no padding, nothing attends across.", [64] * 64),
    Entry("Causal", Causal(), 24, "Nobody sees what comes later: a decoder's attention."),
    Entry("Window", Window(3), 24, "Truncated attention: a few neighbours on each side."),
    Entry("Causal window", Window(6) & Causal(), 24, "Two patterns and-ed: a window that looks back only."),
    Entry("Dilated window", Window(3, dilation=2), 24, "Every second key: twice the reach at the same cost."),
    Entry("Blocks", Blocks(6), 24, "Block-diagonal attention: each block is a set of its own."),
    Entry("Global", Global(2), 24, "A star: the first nodes see all and are seen by all."),
    Entry("Random", Random(3, seed=0), 24, "A few keys drawn for each query, the same in every batch."),
    Entry("Difference", Causal() - Window(2), 24, "Causal attention without the nearest keys."),
    Entry("Complement", ~Blocks(6), 24, "What blocks leave out."),
    Entry("Bipartite", Bipartite(), (24, 10), "Cross-attention: queries of one set, keys of another.", (4_096, 512)),
    Entry("Edges", Edges(self_loops=True), caffeine, "A graph's own edges: message passing on caffeine.", None),
    Entry("Hops", Hops(2), caffeine, "All atoms within two bonds.", None),
    Entry(
        "Relations",
        Edges().as_relation(0) | Global(1).as_relation(1) | Full().as_relation(2),
        caffeine,
        "Bonds, a hub and all other pairs, told apart by their relation.",
        None,
    ),
    Entry(
        "Ragged relations",
        Window(0).as_relation(0) | (Window(3) & Causal()).as_relation(1) | Random(2, seed=0).as_relation(2),
        [16, 9],
        "The first pattern that has a pair labels it.",
    ),
    Entry(
        "Many nodes",
        Window(60).as_relation(0) | Global(100).as_relation(1) | Blocks(400).as_relation(2),
        [2_000, 1_200, 800],
        "Large sets are drawn as a density: strong colours are full, pale ones thin.",
        None,
    ),
)


def page() -> str:
    """The text of the gallery's README."""
    lines = ["| picture | pattern | cost |", "|---|---|---|"]
    for entry in ENTRIES:
        picture = f'<img src="{entry.file}" width="240" alt="{entry.name}">'
        code = f"`{entry.pattern!r}`".replace("|", "\\|")
        lines.append(f"| {picture} | **{entry.name}**<br>{code}<br>{entry.text} | {entry.cost()} |")
    return "\n".join((_HEAD, *lines, ""))


def save(entry: Entry, folder: Path) -> None:
    """Write the picture of an entry, to the byte the same each time."""
    with matplotlib.rc_context(_STYLE):
        entry.draw().savefig(folder / entry.file, metadata={"Date": None, "Creator": "graphformer"})


def main() -> None:
    """Write all pictures and the page; pictures that no entry names any more are removed."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.svg"):
        old.unlink()
    for entry in ENTRIES:
        save(entry, FOLDER)
    (FOLDER / "README.md").write_text(page())


if __name__ == "__main__":
    main()
