"""The gallery: every pattern's picture, edges and cost. `python -m docs.gallery` writes docs/gallery/."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import networkx
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch_geometric.data import Data

import graphformer as gf
from graphformer.graphs.draw import percent
from graphformer.patterns import (
    Axial,
    Between,
    BigBird,
    Bipartite,
    Blocks,
    Causal,
    Clusters,
    Distance,
    Edges,
    EdgeType,
    Expander,
    Full,
    Global,
    Grid,
    Hash,
    Hops,
    Longformer,
    Nearest,
    NetworkX,
    Offset2d,
    Pairs,
    Random,
    ShiftedWindows,
    ShortestPath,
    Strided,
    TopK,
    Tree,
    VirtualNode,
    Where,
    Window,
    Within,
)

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
    pattern: Any
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
        """The picture; of a grid with what its middle query sees there."""
        figure = self.pattern.draw(self.node_set)
        if isinstance(self._key_nodes, Grid) and len(figure.axes) == 1:  # a scale of relations takes the room
            view = figure.axes[0].inset_axes((1.05, 0.2, 0.36, 0.6))
            _draw_view(self.pattern.on(self.node_set), self.node_set, view)
            figure.draw_without_rendering()  # the layout settles the second time
        return figure

    @property
    def _key_nodes(self) -> Any:
        return self.node_set[0] if isinstance(self.node_set, tuple) else self.node_set

    def cost(self) -> str:
        """What the picture's nodes cost, and what a larger set does."""
        told = (gf.estimate(self.pattern, nodes) for nodes in (self.node_set, self.large) if nodes is not None)
        return "<br>".join(map(_cost, told))


class ChosenEntry(Entry):
    """An entry whose pairs are chosen by content: of vectors that drift along the sequence, one head."""

    def draw(self) -> Figure:
        """The picture of what the vectors of the picture's nodes choose."""
        figure = self._choose(self.node_set).draw()
        figure.axes[0].set_title(repr(self.pattern), fontsize=14, pad=27)
        return figure

    def cost(self) -> str:
        """As if each of the heads chose as many pairs as this one."""
        graphs = (self._choose(nodes) for nodes in (self.node_set, self.large))
        return "<br>".join(_cost(gf.estimate(graph)) for graph in graphs)

    def _choose(self, num_nodes: int) -> gf.AttentionGraph:
        drift = torch.randn(num_nodes, 1, 4, generator=torch.Generator().manual_seed(0)).cumsum(0)
        vectors = drift - drift.mean(0)
        return self._select(vectors, num_nodes)

    def _select(self, vectors: torch.Tensor, num_nodes: int) -> gf.AttentionGraph:
        return self.pattern.select(vectors, vectors, num_nodes)


class ModuleEntry(ChosenEntry):
    """An entry of a module that chooses pairs, untrained."""

    def _select(self, vectors: torch.Tensor, num_nodes: int) -> gf.AttentionGraph:
        return self.pattern.eval()(vectors, vectors, num_nodes)[0]


def seeded(make: Callable[..., Any], *arguments: Any) -> Any:
    """A module with the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*arguments)


def _draw_view(graph: gf.AttentionGraph, nodes: Any, ax: Axes) -> None:
    """The image, with the keys of the query in its middle; the query is framed where the two lie on one grid."""
    keys, queries = nodes if isinstance(nodes, tuple) else (nodes, nodes)
    middle = [size // 2 for size in queries.shape]
    query = middle[0] * queries.shape[1] + middle[1]
    seen = graph.edge_index[0][graph.edge_index[1] == query]
    places = torch.zeros(keys.num_nodes).index_fill(0, seen, 1).view(keys.shape)
    ax.imshow(places.numpy(), cmap=ListedColormap(["white", "#0072b2"]), vmin=0, vmax=1)
    for side in range(1, max(keys.shape)):
        for line, size in ((ax.axhline, keys.shape[0]), (ax.axvline, keys.shape[1])):
            if side < size:
                line(side - 0.5, color="#d5d5d5", linewidth=0.5)
    if keys == queries:
        frame = Rectangle((middle[1] - 0.5, middle[0] - 0.5), 1, 1, fill=False, edgecolor="#d55e00", linewidth=3)
        ax.add_patch(frame)
    ax.set(xticks=[], yticks=[], anchor="W")
    ax.set_title(f"query {query} sees", fontsize=12)


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


def bonds() -> Any:
    """Caffeine, its bonds by type."""
    data = caffeine()
    data.edge_type = data.edge_attr[:, 0]
    return data


def spiral() -> Data:
    """24 points of the plane on a spiral, about as far from the next turn as from one another."""
    turn = 1 + torch.arange(24) * 0.8
    return Data(pos=(1 + 0.16 * turn)[:, None] * torch.stack((turn.cos(), turn.sin()), dim=1))


def binary_tree() -> Data:
    """15 nodes, the children of node i being 2 i + 1 and 2 i + 2."""
    return Data(parent=(torch.arange(15) - 1).div(2, rounding_mode="floor"), num_nodes=15)


def reversal(num_nodes: int) -> torch.Tensor:
    """Each node sees its mirror image."""
    place = torch.arange(num_nodes)
    return torch.stack((place, place.flip(0)))


def same_remainder(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Places with the same remainder by 5."""
    return query % 5 == key % 5


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
    Entry("Grid window", Window(1), Grid(4, 6), "A convolution's window, 3 x 3 on an image of 4 x 6.", Grid(64, 64)),
    Entry("Neighbourhood", Window(1, border="shift"), Grid(4, 6), "The window moves inside at borders.", Grid(64, 64)),
    Entry(
        "Strided window",
        Window(1, stride=2),
        (Grid(4, 6), Grid(2, 3)),
        "A convolution of stride 2.",
        (Grid(64, 64), Grid(32, 32)),
    ),
    Entry("ShiftedWindows", ShiftedWindows((2, 2)), Grid(4, 6), "Swin's windows, shifted by half.", Grid(64, 64)),
    Entry("Axial", Axial(), Grid(4, 6), "The row and the column of each place.", Grid(64, 64)),
    Entry("Strided", Strided(4), 24, "Every fourth key."),
    Entry(
        "Between",
        Between({("text", "text"): Causal(), ("image", "text"): Full(), ("image", "image"): Window(1)}),
        {"text": 8, "image": Grid(4, 4)},
        "A pattern for each link between text and image, each with its relation.",
        {"text": 1_024, "image": Grid(48, 64)},
    ),
    Entry("VirtualNode", VirtualNode(), 24, "A node that sees all and is seen by all, the last of its set."),
    Entry("Longformer", Longformer(2, 2), 24, "A window and a few global nodes."),
    Entry("BigBird", BigBird(1, 1, 2), 24, "A window, global nodes and random keys."),
    Entry("Expander", Expander(4), 24, "A random regular graph: sparse, yet a few hops reach all."),
    Entry("Nearest", Nearest(5), spiral, "The nearest nodes in space; here points along a spiral.", None),
    Entry("Within", Within(1.3), spiral, "All nodes within a distance of the same points.", None),
    Entry("Tree", Tree(), binary_tree, "A node sees its ancestors and descendants: a tree of 15 nodes.", None),
    Entry("NetworkX", NetworkX(networkx.petersen_graph()), 10, "Any networkx graph; here Petersen's.", None),
    Entry("Pairs", Pairs(reversal), 24, "The pairs that a function of yours lists."),
    Entry("Where", Where(same_remainder), 24, "All pairs for which a function of yours says yes."),
    Entry("Distance", Window(4).as_relation(Distance(4)), 24, "Each offset has a relation of its own (Shaw)."),
    Entry(
        "Offset2d",
        Window(1).as_relation(Offset2d(1, 1)),
        Grid(4, 6),
        "Each offset on the grid has a relation of its own, as each tap of a convolution has its weight.",
        Grid(64, 64),
    ),
    Entry("ShortestPath", Full().as_relation(ShortestPath(4)), caffeine, "Distance in the graph (Graphormer).", None),
    Entry(
        "EdgeType",
        (Edges() | Full()).as_relation(EdgeType(4)),
        bonds,
        "The types of the edges: single (0), double (1) and aromatic bonds (3); 4 is no bond.",
        None,
    ),
    ChosenEntry("Hash", Hash(4, 1, 0), 24, "Keys of the query's own bucket (Reformer)."),
    ChosenEntry("TopK", TopK(4), 24, "The keys of the largest scores."),
    ChosenEntry("Clusters", Clusters(4), 24, "Keys of the query's own cluster (Routing Transformer)."),
    ModuleEntry(
        "LearnedClusters", seeded(gf.nn.LearnedClusters, 4, 1, 4), 24, "Clusters whose centres follow the training."
    ),
    ModuleEntry(
        "SortedBlocks",
        seeded(gf.nn.SortedBlocks, 4, 1, 4),
        24,
        "The own block and one that a learned sorting puts in its place (Sinkhorn).",
    ),
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
