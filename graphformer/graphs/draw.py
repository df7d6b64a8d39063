"""Pictures of attention graphs: the matrix of queries and keys, cell by cell or as a density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from graphformer.graphs.bins import Pairs, cells_of, count_bins, edges_of_bins, pairs_of
from graphformer.graphs.layout import expand_rows
from graphformer.graphs.runs import KeyRuns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graphformer.graphs.attention_graph import AttentionGraph

MOST_CELLS = 96  # nodes a side up to which each pair has a cell of its own
_MOST_BINS = 256
_ACROSS_SETS = "#e6e6e6"
# Okabe and Ito, "Color universal design" (2008): told apart with any kind of colour vision.
_RELATIONS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
_COPIES = ("#0072b2", "#003a66", "#001322")  # one copy, two, three or more


@dataclass(frozen=True)
class Frame:
    """What a picture says around its matrix.

    Attributes:
        title: The first line.
        num_edges: Pairs, copies counted.
        num_relations: Number of relations, 0 for none.
        query_ptr: Offsets of the sets' queries. Shape `[B + 1]`, int64.
        key_ptr: Offsets of the sets' keys. Shape `[B + 1]`, int64.
        relation_names: What the legend calls relations that have a name of their own.
        query_parts: The first queries of parts inside the sets, which a dashed line goes before.
        key_parts: The first keys of such parts.
    """

    title: str
    num_edges: int
    num_relations: int
    query_ptr: Tensor
    key_ptr: Tensor
    relation_names: Mapping[int, str] = field(default_factory=dict)
    query_parts: Sequence[int] = ()
    key_parts: Sequence[int] = ()

    def name(self, relation: int) -> str:
        """What the legend calls a relation."""
        return self.relation_names.get(relation, f"relation {relation}")

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of queries and keys."""
        return int(self.query_ptr[-1]), int(self.key_ptr[-1])

    @property
    def shows_cells(self) -> bool:
        """Whether each pair has a cell of its own."""
        return max(self.shape) <= MOST_CELLS


@dataclass(frozen=True, eq=False)
class Part:
    """Pairs of a density picture: runs of keys, which are not enumerated, or explicit pairs.

    Attributes:
        pairs: The runs, or (query, key).
        relation: Of all pairs, of each pair in a tensor `[E]`, or None.
    """

    pairs: Pairs
    relation: Tensor | int | None = None


def draw(graph: AttentionGraph, ax: Axes | None = None) -> Figure:
    """A picture of the graph: queries down, keys across; needs no display.

    Up to 96 nodes a side show one cell a pair, coloured by relation (of copies, the first edge's) or by the number of
    copies. Larger graphs show the share of the places that are pairs, mixed of the relations' colours, in time and
    memory O(E), or at the cost of the runs that a graph is held as. `pattern.draw` shows the borders of the sets too,
    which a graph does not know.

    Args:
        graph: The graph.
        ax: matplotlib axes to draw into. Default: a new figure.

    Returns:
        The matplotlib figure; save it with `figure.savefig("graph.png")`.

    Example:
        >>> from graphformer.testing import random_graph
        >>> type(random_graph(5, 4, num_edges=6).draw()).__name__
        'Figure'
    """
    query_ptr, key_ptr = (torch.tensor([0, count]) for count in (graph.num_queries, graph.num_keys))
    frame = Frame("attention graph", graph.num_edges, graph.num_relations, query_ptr, key_ptr)
    if frame.shows_cells:
        return draw_cells(graph, frame, ax)
    return draw_density([Part(pairs_of(graph), graph.relation)], frame, ax)


def draw_cells(graph: AttentionGraph, frame: Frame, ax: Axes | None) -> Figure:
    """One cell a pair."""
    from matplotlib.colors import ListedColormap

    ax = ax or _new_axes()
    sets = [expand_rows(ptr, int(ptr[-1])).cpu() for ptr in (frame.query_ptr, frame.key_ptr)]
    place = np.where(sets[0][:, None] == sets[1], 0, -1)  # of its colour: -1 across sets, 0 no pair
    key, query = graph.edge_index.cpu().numpy()
    if graph.relation is None:
        np.add.at(place, (query, key), 1)
        place = place.clip(max=len(_COPIES))
        names = [f"{count} {'copy' if count == 1 else 'copies'}" for count in (1, 2)] + ["3 copies or more"]
        colours, held = list(_COPIES), [count for count in (1, 2, 3) if (place == count).any()]
        held = [] if held == [1] else held
    else:
        # Of copies, the first one's relation is the one that shows: numpy keeps what is assigned last.
        place[query[::-1], key[::-1]] = 1 + graph.relation.cpu().numpy()[::-1]
        names = [frame.name(relation) for relation in range(graph.num_relations)]
        colours, held = _colours(graph.num_relations), [1 + int(r) for r in graph.relation.unique()]
    if place.size:
        cells = ListedColormap([_ACROSS_SETS, "white", *colours])
        limits: dict[str, Any] = {"vmin": -1.5, "vmax": len(colours) + 0.5}
        ax.imshow(place, cmap=cells, interpolation="nearest", aspect=_aspect(frame), **limits)
    _rule(ax, frame, grid=max(frame.shape) <= MOST_CELLS // 2)
    if len(names) > len(_RELATIONS):
        _scale(ax, len(names))
    else:
        _legend(ax, [(colours[i - 1], names[i - 1]) for i in held])
    return _finish(ax, frame)


def draw_density(parts: Sequence[Part], frame: Frame, ax: Axes | None) -> Figure:
    """The share of pairs in each cell of a coarse grid."""
    ax = ax or _new_axes()
    query_edge, key_edge = (edges_of_bins(count, _MOST_BINS) for count in frame.shape)
    places = query_edge.diff()[:, None] * key_edge.diff()
    inside = count_bins(_within_sets(frame), query_edge, key_edge).numpy() > 0
    counted = [count_bins(part.pairs, query_edge, key_edge) for part in parts]
    density = (sum(counted, torch.zeros_like(places)) / places).numpy()
    extent = (-0.5, frame.shape[1] - 0.5, frame.shape[0] - 0.5, -0.5)
    options: dict[str, Any] = {"extent": extent, "interpolation": "nearest", "aspect": _aspect(frame)}
    if frame.num_relations == 0 or any(part.relation is None for part in parts):
        _show_shares(ax, np.ma.masked_array(density, ~inside), options)
    else:
        colours = _colour_table(frame.num_relations)
        mixed = sum(
            _mix(part, count, colours, query_edge, key_edge) for part, count in zip(parts, counted, strict=True)
        )
        pure = mixed / np.maximum(density * places.numpy(), 1)[..., None]
        strength = np.sqrt(np.minimum(density / (density.max() or 1.0), 1.0))[..., None]
        picture = np.where(inside[..., None], 1 + strength * (pure - 1), _rgb([_ACROSS_SETS])[0])
        ax.imshow(picture.clip(0, 1), **options)
        if frame.num_relations > len(_RELATIONS):
            _scale(ax, frame.num_relations)
        else:
            _legend(ax, [(_RELATIONS[r], frame.name(r)) for r in _held(parts)])
    _rule(ax, frame, grid=False)
    return _finish(ax, frame)


# ---------------------------------------------------------------- counting


def _within_sets(frame: Frame) -> KeyRuns:
    query_set = expand_rows(frame.query_ptr, frame.shape[0])
    return KeyRuns.from_ranges(frame.key_ptr[query_set], frame.key_ptr[query_set + 1], frame.shape[1])


def _mix(part: Part, counted: Tensor, colours: np.ndarray, query_edge: Tensor, key_edge: Tensor) -> np.ndarray:
    """The sum of the pairs' colours in each cell. Shape [rows, columns, 3]."""
    if not isinstance(part.relation, Tensor):
        return counted.numpy()[..., None] * colours[part.relation]
    table, total, first = torch.from_numpy(colours), counted.new_zeros(counted.numel(), 3), 0
    for pairs in part.pairs.pieces() if isinstance(part.pairs, KeyRuns) else (part.pairs,):
        relation = part.relation[first : first + pairs[0].numel()]
        total.index_add_(0, cells_of(pairs, query_edge, key_edge), table[relation.cpu().long()])
        first += pairs[0].numel()
    return total.view(*counted.shape, 3).numpy()


def _held(parts: Sequence[Part]) -> list[int]:
    """The relations that occur."""
    found = (part.relation if isinstance(part.relation, Tensor) else torch.tensor([part.relation]) for part in parts)
    return torch.cat([relation.unique().cpu().long() for relation in found]).unique().tolist()


# ---------------------------------------------------------------- colours and lines


def _colours(num_relations: int) -> list[Any]:
    """A colour for each relation: told apart up to eight, along a scale beyond."""
    if num_relations <= len(_RELATIONS):
        return list(_RELATIONS[:num_relations])
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0, 1, num_relations)))


def _colour_table(num_relations: int) -> np.ndarray:
    return _rgb(_colours(num_relations))


def _rgb(colours: Sequence[Any]) -> np.ndarray:
    from matplotlib.colors import to_rgb

    return np.array([to_rgb(colour) for colour in colours])


def _show_shares(ax: Axes, density: np.ma.MaskedArray, options: dict[str, Any]) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    shades = colormaps["Blues"].with_extremes(bad=_ACROSS_SETS)
    most = float(density.max()) if density.count() else 0.0
    norm = PowerNorm(0.5, vmin=0.0, vmax=most or 1.0)  # lets thin parts be seen beside dense ones
    image = ax.imshow(density, cmap=shades, norm=norm, **options)
    bar = _root(ax).colorbar(image, ax=ax, shrink=0.8)
    bar.set_label("share of the places that are pairs", fontsize=12)
    bar.ax.tick_params(labelsize=11)


def _legend(ax: Axes, entries: Sequence[tuple[Any, str]]) -> None:
    from matplotlib.patches import Patch

    if entries:
        handles = [Patch(facecolor=colour, label=name) for colour, name in entries]
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=12)


def _scale(ax: Axes, num_relations: int) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    scale = ScalarMappable(Normalize(-0.5, num_relations - 0.5), "viridis")
    bar = _root(ax).colorbar(scale, ax=ax, shrink=0.8, ticks=MaxNLocator(8, integer=True))
    bar.set_label("relation", fontsize=12)
    bar.ax.tick_params(labelsize=11)


def _rule(ax: Axes, frame: Frame, grid: bool) -> None:
    """Integer ticks, thin lines between cells, stronger ones between sets and dashed ones between their parts."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    borders = [ptr[1:-1].tolist() for ptr in (frame.query_ptr, frame.key_ptr)]
    of_parts = (frame.query_parts, frame.key_parts)
    sides = zip((ax.yaxis, ax.xaxis), frame.shape, (ax.axhline, ax.axvline), borders, of_parts, strict=True)
    for axis, count, line, places, parts in sides:
        axis.set_major_formatter("{x:,.0f}")
        most = min(max(count, 1), 11 if count < 1_000 else 6)
        axis.set_major_locator(MaxNLocator(nbins=most, integer=True, steps=[1, 2, 4, 5, 8, 10]))
        if grid:
            axis.set_minor_locator(FixedLocator([i - 0.5 for i in range(1, count)]))
        for place in places if len(places) < 64 else ():
            line(place - 0.5, color="#7a7a7a", linewidth=1.0 if frame.shows_cells else 0.5)
        for place in parts if len(parts) < 64 else ():
            line(place - 0.5, color="#7a7a7a", linewidth=1.0 if frame.shows_cells else 0.5, linestyle=(0, (4, 3)))
    if grid:
        ax.grid(which="minor", color="#d5d5d5", linewidth=0.5)
        ax.tick_params(which="minor", left=False, bottom=False)
    ax.tick_params(labelsize=11)
    ax.set_xlim(-0.5, max(frame.shape[1], 1) - 0.5)
    ax.set_ylim(max(frame.shape[0], 1) - 0.5, -0.5)


def _aspect(frame: Frame) -> Literal["equal", "auto"]:
    """Square cells, unless one side would be a mere line."""
    return "equal" if max(frame.shape) <= 6 * min(frame.shape) else "auto"


def _finish(ax: Axes, frame: Frame) -> Figure:
    places = frame.shape[0] * frame.shape[1]
    share = f" ({percent(frame.num_edges / places)} of {frame.shape[0]:,} x {frame.shape[1]:,})" if places else ""
    ax.set_title(fill(frame.title, width=52), fontsize=14, pad=27, parse_math=False)
    edges = f"{frame.num_edges:,} edge" + ("" if frame.num_edges == 1 else "s")
    around: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "ha": "center",
        "va": "bottom",
    }
    ax.annotate(edges + share, (0.5, 1.0), (0, 7), fontsize=12, color="#444444", **around)
    ax.set_xlabel("key", fontsize=13)
    ax.set_ylabel("query", fontsize=13)
    return _root(ax)


def percent(share: float) -> str:
    """A share in few digits.

    Example:
        >>> percent(0.4567), percent(0.012345), percent(0.0)
        ('46%', '1.2%', '0%')
    """
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{100 * share:.2g}%"


def _root(ax: Axes) -> Figure:
    return ax.get_figure(root=True)  # type: ignore[return-value]


def _new_axes() -> Axes:
    from matplotlib.figure import Figure

    return Figure(figsize=(6.8, 6.0), layout="compressed").subplots()
