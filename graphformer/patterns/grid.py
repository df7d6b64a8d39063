"""Grids of nodes: shapes, coordinates, and the runs of keys that a box or a lattice of coordinates is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphformer._checks import plain_integer, require
from graphformer.graphs.runs import KeyRuns
from graphformer.graphs.sweep import turns


@dataclass(frozen=True, init=False, repr=False)
class Grid:
    """A node set on a grid, such as the patches of an image: nodes in row-major order, the last axis fastest.

    Usable wherever patterns take a number of nodes. Patterns with a geometry (:class:`Window`, :class:`Blocks`,
    :class:`Axial`) act on its axes, all others on its nodes in their order. PyG data whose `pos` holds these
    coordinates, integers `[N, d]`, is such a node set too.

    Args:
        shape: Nodes along each axis, 0 or more; at least one axis.

    Attributes:
        shape: The same, a tuple.

    Raises:
        InputError: No axis, or a size that is no integer of 0 or more.

    Example:
        >>> from graphformer.patterns import Window
        >>> Grid(8, 12).num_nodes
        96
        >>> Window(1).on([Grid(8, 12), Grid(5, 5)])
        AttentionGraph(121 nodes, 917 edges, density 6.3%, 0 duplicates, 0 empty rows)
    """

    shape: tuple[int, ...]

    def __init__(self, *shape: int) -> None:
        sizes = tuple(plain_integer(size) for size in shape)
        whole = bool(sizes) and all(size is not None and size >= 0 for size in sizes)
        require(whole, "Grid", "shape", "be integers, 0 or more", shape, "For example Grid(8, 12).")
        object.__setattr__(self, "shape", sizes)

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return math.prod(self.shape)

    def __repr__(self) -> str:
        return f"Grid({', '.join(map(str, self.shape))})"


def read_shapes(nodes: Any, ptr: Tensor, where: str) -> Tensor:
    """Nodes along each axis of each set; a set without a grid is a sequence. Shape `[B, d]`, int64."""
    entries = nodes if isinstance(nodes, list) else [nodes]
    if any(isinstance(entry, Grid) for entry in entries):
        shapes = [entry.shape if isinstance(entry, Grid) else (entry,) for entry in entries]
        axes = sorted({len(shape) for shape in shapes})
        remedy = "Keep grids of different dimensions, and sequences, in batches of their own."
        require(len(axes) == 1, where, "nodes", "have one number of axes in all sets", axes, remedy)
        return torch.tensor(shapes, dtype=torch.int64)
    pos = getattr(nodes, "pos", None)
    if not isinstance(pos, Tensor) or pos.dim() != 2 or pos.shape[1] < 2:
        return ptr.diff()[:, None]
    if pos.is_floating_point() or pos.is_complex() or pos.dtype == torch.bool:
        return ptr.diff()[:, None]
    return _shapes_of(pos.long(), ptr, where)


def _shapes_of(pos: Tensor, ptr: Tensor, where: str) -> Tensor:
    """The shapes of the grids whose row-major coordinates these are."""
    local = torch.arange(pos.shape[0], device=pos.device)
    node_set = torch.repeat_interleave(ptr.diff(), output_size=pos.shape[0])
    shape = pos.new_zeros(ptr.numel() - 1, pos.shape[1])
    shape.scatter_reduce_(0, node_set[:, None].expand_as(pos), pos + 1, "amax")
    fits = shape.double().prod(1) == ptr.diff()  # in floating point, which does not wrap around
    if bool(fits.all()):
        fits = (coordinates(shape, node_set, local - ptr[node_set]) == pos).all(1)
    require(
        bool(fits.all()),
        where,
        "nodes.pos",
        "hold the row-major coordinates of a grid, from 0, in each set",
        f"integer positions {list(pos.shape)} that do not",
        "Order the nodes by row, then column; a pos of floating dtype is no grid.",
    )
    return shape


def coordinates(shape: Tensor, node_set: Tensor, local: Tensor) -> Tensor:
    """The place on each axis of the nodes with these sets and local ids. Shape `[N, d]`, int64."""
    places = []
    for size in reversed(shape.clamp(min=1).unbind(1)):  # an empty set has no node to divide for
        places.append(local % size[node_set])
        local = local // size[node_set]
    return torch.stack(places[::-1], dim=1)


def lattice_runs(
    start: Tensor, shape: Tensor, first: Tensor, count: Tensor, step: tuple[int, ...], wrap: bool, num_keys: int
) -> KeyRuns:
    """The keys of each query whose place on every axis is one of `first + step * t`, t in [0, count).

    All axes but the last are enumerated; the last one is a run where its step is 1, and else single keys.

    Args:
        start: The first key of each query's set. Shape `[N]`, int64.
        shape: The shape of each query's set of keys. Shape `[N, d]`, int64.
        first: Shape `[N, d]`, int64, inside the shape unless it wraps.
        count: Shape `[N, d]`, int64; the last place is inside the shape too.
        step: One an axis, 1 or more.
        wrap: Take places modulo the shape.
        num_keys: Number of keys M, over all sets.
    """
    # Lines are what is left to place: at first a line a query, then one for each place on the axes so far. What lies
    # beneath a line are the keys before it in its set, counted in steps of the axes to come.
    num_queries, last = start.numel(), step[-1]
    query, beneath = torch.arange(num_queries, device=start.device), torch.zeros_like(start)
    axes = list(zip(shape.unbind(1), first.unbind(1), count.unbind(1), step, strict=True))
    for size, begin, length, stride in axes if wrap and last != 1 else axes[:-1]:
        line, turn = turns(length[query])
        query = query[line]
        place = begin[query] + stride * turn
        beneath = beneath[line] * size[query] + (place % size[query] if wrap else place)
    if wrap and last != 1:
        return KeyRuns.from_runs(query, low := start[query] + beneath, low + 1, num_queries, num_keys)
    size, begin, length = (column[query] for column in axes[-1][:3])
    low = beneath.mul_(size).add_(start[query])
    if last != 1:
        begin, every = begin + low, torch.full_like(low, last)
        return KeyRuns.from_runs(query, begin, begin + 1, num_queries, num_keys, count=length, step=every)
    if not wrap:
        begin = begin + low
        return KeyRuns.from_runs(query, begin, begin + length, num_queries, num_keys)
    begin = begin % size.clamp(min=1)
    stop = begin + length
    # What reaches over the end comes in at the beginning.
    begins, ends = torch.stack((low, low + begin), 1), torch.stack((low + stop - size, low + stop.minimum(size)), 1)
    return KeyRuns.from_runs(query.repeat_interleave(2), begins.flatten(), ends.flatten(), num_queries, num_keys)
