"""Pictures of patterns: the matrix of queries and keys."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graphformer.patterns.node_sets import NodeSets, read_nodes
from graphformer.patterns.terms import RunTerm, Term, relation_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graphformer.patterns.pattern import Nodes, Pattern

_MOST_CELLS = 96  # nodes a side up to which each pair has a cell of its own
_MOST_BINS = 256
_ACROSS_SETS = "#e9e9e9"
_COPIES = ("#3b76af", "#1f4a78", "#0d2440")  # one copy, two, three or more
_RELATIONS = (
    "#3b76af",
    "#ef8636",
    "#519e3e",
    "#c53a32",
    "#8d69b8",
    "#84584e",
    "#d57dbe",
    "#b0a62f",
    "#5bbccc",
    "#7f7f7f",
)


def draw(pattern: Pattern, nodes: Nodes, ax: Axes | None = None) -> Figure:
    """See :meth:`Pattern.draw`."""
    from matplotlib.figure import Figure

    sets = read_nodes(nodes, repr(pattern))
    num_relations = pattern.num_relations
    terms = pattern.lower(sets)
    if ax is None:
        ax = Figure(figsize=(6.8, 5.8), layout="compressed").subplots()
    if max(sets.num_queries, sets.num_keys) <= _MOST_CELLS:
        _draw_cells(ax, terms, sets, num_relations)
    else:
        _draw_density(ax, terms, sets)
    ax.set_title(fill(repr(pattern), width=52), fontsize=12)
    ax.set_xlabel("key")
    ax.set_ylabel("query")
    return ax.get_figure(root=True)  # type: ignore[return-value]


def _draw_cells(ax: Axes, terms: Sequence[Term], sets: NodeSets, num_relations: int) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    shape = (sets.num_queries, sets.num_keys)
    labelled = terms if num_relations else ()
    held = sorted({relation for term in labelled for relation in relation_of(term, sets).unique().tolist()})
    names, colours = _paint(held, num_relations)
    value = np.where(sets.query_set.cpu().numpy()[:, None] == sets.key_set.cpu().numpy(), 0, -1)
    for term in reversed(terms):  # the first term's relation is the one that shows
        query, key = (ids.cpu().numpy() for ids in term.pairs())
        if num_relations:
            value[query, key] = 1 + np.searchsorted(held, relation_of(term, sets).cpu().numpy())
        else:
            np.add.at(value, (query, key), 1)
    value = np.minimum(value, len(names))
    cells = ListedColormap([_ACROSS_SETS, "white", *colours])
    if value.size:
        ax.imshow(value, cmap=cells, vmin=-1.5, vmax=len(names) + 0.5, interpolation="nearest", aspect="equal")
    _rule(ax, shape, sets, grid=max(shape) <= _MOST_CELLS // 2)
    shown = [place for place in range(1, len(names) + 1) if num_relations or (value == place).any()]
    if num_relations or shown not in ([], [1]):
        handles = [Patch(color=colours[place - 1], label=names[place - 1]) for place in shown]
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)


def _paint(held: Sequence[int], num_relations: int) -> tuple[list[str], list[str]]:
    """What the colours mean, and the colours: relations, or else numbers of copies."""
    if not num_relations:
        return ["1 copy", "2 copies", "3 or more"], list(_COPIES)
    return [f"relation {relation}" for relation in held], [_RELATIONS[place % 10] for place in range(len(held))]


def _draw_density(ax: Axes, terms: Sequence[Term], sets: NodeSets) -> None:
    from matplotlib.colors import PowerNorm

    query_edge, key_edge = (_edges(count) for count in (sets.num_queries, sets.num_keys))
    total = sum(_count_bins(term, query_edge, key_edge) for term in terms)
    density = total / (query_edge.diff()[:, None] * key_edge.diff())
    image = ax.imshow(
        density.numpy(),
        cmap="Blues",
        norm=PowerNorm(0.5, vmin=0.0, vmax=float(density.max()) or 1.0),  # lets thin parts be seen beside dense ones
        extent=(-0.5, sets.num_keys - 0.5, sets.num_queries - 0.5, -0.5),
        interpolation="nearest",
        aspect="equal",
    )
    ax.get_figure().colorbar(image, ax=ax, label="share of the pairs", shrink=0.8)  # type: ignore[union-attr]
    _rule(ax, (sets.num_queries, sets.num_keys), sets, grid=False)


def _edges(count: int) -> Tensor:
    bins = min(count, _MOST_BINS)
    return torch.arange(bins + 1) * count // max(bins, 1)


def _count_bins(term: Term, query_edge: Tensor, key_edge: Tensor) -> Tensor:
    """How many pairs of the term fall into each cell of a coarse grid; runs are not enumerated."""
    if isinstance(term, RunTerm):
        row = torch.repeat_interleave(term.runs.ptr.diff()).cpu()
        start, stop = term.runs.start.cpu(), term.runs.stop.cpu()
    else:
        row, start = (ids.cpu() for ids in term.pairs())
        stop = start + 1
    query_bin = torch.bucketize(row, query_edge, right=True) - 1
    return _below(stop, query_bin, query_edge, key_edge) - _below(start, query_bin, query_edge, key_edge)


def _below(key: Tensor, query_bin: Tensor, query_edge: Tensor, key_edge: Tensor) -> Tensor:
    """In each cell, the number of keys before ``key``, summed over the runs of the cell's queries."""
    shape = (query_edge.numel() - 1, key_edge.numel() - 1)
    key_bin = (torch.bucketize(key, key_edge, right=True) - 1).clamp(max=shape[1] - 1)
    cell = query_bin * shape[1] + key_bin
    ends = torch.bincount(cell, minlength=shape[0] * shape[1]).view(shape)
    within = torch.bincount(cell, weights=(key - key_edge[key_bin]).double(), minlength=shape[0] * shape[1]).view(shape)
    beyond = ends.flip(1).cumsum(1).flip(1) - ends
    return beyond * key_edge.diff() + within


def _rule(ax: Axes, shape: tuple[int, int], sets: NodeSets, grid: bool) -> None:
    """Integer ticks, thin lines between cells and stronger ones between sets."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    borders: list[Any] = [sets.query_ptr[1:-1].tolist(), sets.key_ptr[1:-1].tolist()]
    for axis, count, line, places in zip((ax.yaxis, ax.xaxis), shape, (ax.axhline, ax.axvline), borders, strict=True):
        axis.set_major_formatter("{x:,.0f}")
        axis.set_major_locator(
            MaxNLocator(nbins=min(max(count, 1), 11 if count < 10_000 else 6), integer=True, steps=[1, 2, 4, 5, 8, 10])
        )
        if grid:
            axis.set_minor_locator(FixedLocator([i - 0.5 for i in range(1, count)]))
        for place in places if len(places) < 64 else ():
            line(place - 0.5, color="#8a8a8a", linewidth=0.8 if grid else 0.3)
    if grid:
        ax.grid(which="minor", color="#d5d5d5", linewidth=0.5)
        ax.tick_params(which="minor", length=0)
    ax.set_xlim(-0.5, max(shape[1], 1) - 0.5)
    ax.set_ylim(max(shape[0], 1) - 0.5, -0.5)
