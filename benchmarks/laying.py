"""The cases of the family `patterns`: each pattern laid over nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks import inputs
from benchmarks.case import BUILD, BUILD_MEMORY, HELD, ON, ON_MEMORY, Case, Laying
from graphformer import patterns
from graphformer.patterns import Grid, Pattern

MIB = 2**20
_RADIUS, _GLOBAL, _BLOCK, _SIDE, _NEIGHBOURS = 64, 4, 64, 256, 8
_FEW = 331  # no multiple of a block, and more than twice a window
_COMPILED_IF_QUICK = ("window-short", "causal")  # compiling a formula takes seconds
_POINTS_AT_HOME = 17  # points that a ball of `within` holds, away from the border


def laying(quick: bool) -> list[Case]:
    """Patterns on sequences, ragged sets, grids, points and graphs."""
    return [*_sequences(quick), *_grids(quick), *_graphs(quick)]


def _case(
    quick: bool,
    name: str,
    sizes: str,
    make: Callable[[], Laying],
    rivals: tuple[str, ...] = (),
    aims: dict[str, float] | None = None,
) -> Case:
    measures = (ON, BUILD, HELD) if quick else (ON, BUILD, ON_MEMORY, BUILD_MEMORY, HELD)  # each memory is a process
    if quick and name not in _COMPILED_IF_QUICK:
        rivals = tuple(rival for rival in rivals if rival != "flex-mask")
    return Case(
        "patterns",
        name,
        make,
        measures,
        ("native", *rivals),
        sizes,
        {} if quick else {measure: {"native": aim} for measure, aim in (aims or {}).items()},
        oracle="by-formula",
        ours_only=(ON, ON_MEMORY),
    )


# ---------------------------------------------------------------- sequences and ragged sets


def _near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return (query - key).abs() <= _RADIUS


def _near_or_global(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return _near(batch, head, query, key) | (query < _GLOBAL) | (key < _GLOBAL)


def _any(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return query == query


def _not_later(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return query >= key


def _other_block(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return query // _BLOCK != key // _BLOCK


def _checkered(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return (query // 8 + key // 8) % 2 == 0


def _near_and_checkered(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return _near(batch, head, query, key) & _checkered(batch, head, query, key)


def _sequences(quick: bool) -> list[Case]:
    most, length, short = (200_000, 4096, 1024) if quick else (1_000_000, 65_536, 8192)
    window = patterns.Window(_RADIUS)
    every = length * length
    both = ("flex-mask", "dense-mask")

    def case(
        name: str,
        pattern: Pattern,
        count: Callable[[], int],
        formula: Callable[..., Tensor] | None = None,
        rivals: tuple[str, ...] = (),
        aims: dict[str, float] | None = None,
        nodes: int = length,
    ) -> Case:
        sizes = f"{pattern!r} on N={nodes}"
        return _case(quick, name, sizes, lambda: Laying(pattern, nodes, _FEW, count, formula), rivals, aims)

    return [
        case("window", window, lambda: inputs.window_pairs(most, _RADIUS), _near, both, {ON: 1.0}, nodes=most),
        case("window-short", window, lambda: inputs.window_pairs(short, _RADIUS), _near, both, nodes=short),
        case(
            "big-bird",
            patterns.BigBird(_RADIUS, _GLOBAL, 3, seed=0),
            lambda: _longformer_pairs(length) + _random_pairs_beside(length),
            aims={ON: 1.0},
        ),
        case(
            "longformer",
            patterns.Longformer(_RADIUS, _GLOBAL),
            lambda: _longformer_pairs(length),
            _near_or_global,
            ("flex-mask",),
        ),
        # Far below a bit for each place of N x N: a tenth of that.
        case("full", patterns.Full(), lambda: every, _any, both, {ON_MEMORY: every / 80, BUILD_MEMORY: every / 80}),
        case("causal", patterns.Causal(), lambda: (every + length) // 2, _not_later, ("flex-mask",)),
        case("not-blocks", ~patterns.Blocks(_BLOCK), lambda: every - length * _BLOCK, _other_block, ("flex-mask",)),
        case(
            "where",
            window & patterns.Where(_checkered),
            lambda: _checkered_pairs(length),
            _near_and_checkered,
            ("flex-mask",),
        ),
        _molecules(quick),
    ]


def _longformer_pairs(length: int) -> int:
    """The rows and columns of the global nodes, and the window among the others."""
    return 2 * _GLOBAL * length - _GLOBAL**2 + inputs.window_pairs(length - _GLOBAL, _RADIUS)


def _random_pairs_beside(length: int) -> int:
    """The random pairs that are neither near nor global, one by one."""
    key, query = patterns.Random(3, seed=0).on(length).edge_index
    return int((~_near_or_global(key, key, query, key)).sum())


def _checkered_pairs(length: int) -> int:
    """Counted distance by distance."""
    block = np.arange(length) // 8
    ahead = (int(((block[step:] + block[: length - step]) % 2 == 0).sum()) for step in range(1, _RADIUS + 1))
    return length + 2 * sum(ahead)


def _molecules(quick: bool) -> Case:
    count = _num_molecules(quick)

    def make() -> Laying:
        lengths = [size for size, _ in inputs.molecule_bonds(count)]
        return Laying(patterns.Full(), lengths, [5, 1, 7, 2], lambda: sum(size * size for size in lengths))

    return _case(quick, "molecules", f"Full() on {count} molecules of 6 to 60 nodes", make, ("dense-mask",), {ON: 0.2})


def _num_molecules(quick: bool) -> int:
    return 500 if quick else 10_000


# ---------------------------------------------------------------- grids


def _same_line(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return (query // _SIDE == key // _SIDE) | (query % _SIDE == key % _SIDE)


def _grids(quick: bool) -> list[Case]:
    grid = Grid(32 if quick else _SIDE, _SIDE)

    def case(
        name: str,
        pattern: Pattern,
        count: int,
        few: Grid,
        formula: Callable[..., Tensor] | None = None,
        rivals: tuple[str, ...] = (),
    ) -> Case:
        sizes = f"{pattern!r} on {grid!r}"
        return _case(quick, name, sizes, lambda: Laying(pattern, grid, few, lambda: count, formula), rivals)

    rows, columns = grid.shape
    few = Grid(11, 19)
    windows = {radius: inputs.window_pairs(rows, radius) * inputs.window_pairs(columns, radius) for radius in (1, 3)}
    lines = rows * columns * (rows + columns - 1)
    shifted = _shifted_pairs(rows) * _shifted_pairs(columns)
    return [
        case("grid-3x3", patterns.Window(1), windows[1], few, rivals=("pyg-edges",)),
        case("grid-7x7", patterns.Window(3), windows[3], few),
        case("axial", patterns.Axial(), lines, Grid(3, _SIDE), _same_line, ("flex-mask",)),
        case("shifted-windows", patterns.ShiftedWindows(8), shifted, few),
    ]


def _shifted_pairs(side: int) -> int:
    """Pairs along one axis: blocks of 8, and half a block at both ends."""
    return 2 * 4**2 + (side // 8 - 1) * 8**2


# ---------------------------------------------------------------- graphs and points


def _graphs(quick: bool) -> list[Case]:
    length = 4096 if quick else 65_536
    num_molecules = _num_molecules(quick)
    reach = (_POINTS_AT_HOME * 3 / (4 * np.pi * length)) ** (1 / 3)

    def on_points(pattern: Pattern, count: Callable[[Any], int]) -> Laying:
        nodes = inputs.points(length)
        few = inputs.points(_FEW, spread=(_FEW / length) ** (1 / 3))  # as dense as the many
        return Laying(pattern, nodes, few, lambda: count(nodes))

    def on_molecules() -> Laying:
        nodes = inputs.molecule_batch(num_molecules)
        return Laying(patterns.Hops(2), nodes, inputs.molecule_batch(12), lambda: _two_hop_pairs(nodes))

    expander, nearest, within = patterns.Expander(8), patterns.Nearest(_NEIGHBOURS), patterns.Within(float(reach))
    points = f"N={length} points in a cube"
    return [
        _case(
            quick,
            "expander",
            f"{expander!r} on N={length}",
            lambda: Laying(expander, length, _FEW, lambda: length * expander.degree),
            ("networkx",),
        ),
        _case(
            quick,
            "nearest",
            f"{nearest!r} on {points}",
            lambda: on_points(nearest, lambda nodes: length * _NEIGHBOURS),
            ("pyg-edges", "kd-tree"),
        ),
        _case(
            quick,
            "within",
            f"Within({reach:.4f}) on {points}",
            lambda: on_points(within, lambda nodes: _near_points(nodes, within.distance)),
            ("pyg-edges", "kd-tree"),
        ),
        _case(quick, "hops", f"Hops(2) on {num_molecules} molecules", on_molecules, ("pyg-edges",)),
    ]


def _near_points(nodes: Any, distance: float) -> int:
    from scipy.spatial import cKDTree

    tree = cKDTree(nodes.pos.numpy())
    return int(tree.count_neighbors(tree, distance))


def _two_hop_pairs(nodes: Any) -> int:
    """Entries of (I + A)^2."""
    from scipy.sparse import csr_array, eye_array

    count = nodes.num_nodes
    ends = (np.ones(nodes.num_edges), nodes.edge_index.numpy())
    one = eye_array(count, format="csr") + csr_array(ends, shape=(count, count))
    return int((one @ one).nnz)
