"""The cases of the family `drop-in`: PyG's layers and ours of the same name, constructor and weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from benchmarks import inputs
from benchmarks.case import BOTH, MEMORY, Case, DropIn

_AT_LEAST = 0.95  # of PyG's speed, wherever no more is asked for
_AIMS = {"TransformerConv": 10.0, "GATConv": 5.0, "GATv2Conv": 5.0}  # on the R-MAT graph
_CONVOLUTIONS = tuple(_AIMS)
_EDGES = {"edge_index": "edge_index"}
_BONDS = {**_EDGES, "edge_attr": "edge_attr"}


def drop_in(quick: bool) -> list[Case]:
    """On a large irregular graph, on batches of molecules that are new at every step, on a graph as large as Cora."""
    nodes, edges, levels = (10_007, 60_000, 14) if quick else (169_343, 1_800_000, 18)
    count = 128
    bonds, lengths = inputs.molecule_union(inputs.molecule_bonds(count))
    atoms = sum(lengths)
    out = []

    def add(case: str, layer: str, sizes: str, make: Any, speed: float, memory: float | None = None) -> None:
        aims = {} if quick else {BOTH: {"pyg-layer": speed}, MEMORY: {"pyg-layer": memory} if memory else {}}
        measures = (BOTH,) if quick else (BOTH, MEMORY)  # each memory is a process of its own
        name = f"{layer}-{case}".lower()
        providers = ("native", "pyg-layer", *(("linear-maps",) if case == "rmat" else ()))
        out.append(Case("drop-in", name, make, measures, providers, sizes, aims, oracle="pyg-layer"))

    for layer in _CONVOLUTIONS:
        about = f"R-MAT, N={nodes}, E={edges}, 128 -> 8 heads x 16, the same edges at every step"
        add("rmat", layer, about, partial(_on_rmat, layer, nodes, edges, levels), _AIMS[layer], 6.0)
    for layer in _CONVOLUTIONS:
        about = f"{count} molecules, N={atoms}, E={bonds.shape[1]}, 64 -> 4 heads x 16, new edges at every step"
        add("molecules", layer, about, partial(_on_molecules, layer, (64, 16, 4), {}, _EDGES, count), _AT_LEAST)
        make = partial(_on_molecules, layer, (64, 16, 4), {"edge_dim": 8}, _BONDS, count)
        add("bonds", layer, about + ", 8 edge features", make, _AT_LEAST)
    for layer in _CONVOLUTIONS:
        for case, width, channels, heads in (("cora-first", 1433, 8, 8), ("cora-last", 64, 7, 1)):
            about = f"N=2708, E=10556, {width} -> {heads} heads x {channels}, the same edges at every step"
            add(case, layer, about, partial(_on_cora, layer, width, channels, heads), _AT_LEAST)
    about = f"{count} molecules, N={atoms}, 64 channels, new sets at every step"
    for layer, arguments, options, takes in (
        # Not the default batch norm: it takes every bias before it away, and what is left of its gradient is rounding.
        ("GPSConv", (64, None), {"heads": 4, "norm": "layer_norm"}, {**_EDGES, "batch": "batch"}),
        ("SetTransformerAggregation", (64,), {"heads": 4}, {"index": "batch"}),
    ):
        add("molecules", layer, about, partial(_on_molecules, layer, arguments, options, takes, count), _AT_LEAST)
    return out


def _on_rmat(layer: str, nodes: int, edges: int, levels: int) -> DropIn:
    edge_index = inputs.rmat(nodes, edges, levels)
    return _inputs(layer, (128, 16, 8), {}, _EDGES, nodes, 128, edge_index)


def _on_cora(layer: str, width: int, channels: int, heads: int) -> DropIn:
    """Random edges, both ways, in the numbers of Cora (McCallum et al. 2000)."""
    half = torch.randint(2708, (2, 5278), generator=torch.Generator().manual_seed(6))
    edge_index = torch.cat((half, half.flip(0)), 1)
    return _inputs(layer, (width, channels, heads), {}, _EDGES, 2708, width, edge_index)


def _on_molecules(
    layer: str, arguments: tuple[Any, ...], options: dict[str, Any], takes: dict[str, str], count: int
) -> DropIn:
    edge_index, lengths = inputs.molecule_union(inputs.molecule_bonds(count))
    batch = torch.arange(count).repeat_interleave(torch.tensor(lengths))
    made = _inputs(layer, arguments, options, takes, sum(lengths), 64, edge_index)
    return DropIn(**{**made.__dict__, "batch": batch, "is_fresh": True})


def _inputs(
    layer: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    takes: dict[str, str],
    nodes: int,
    width: int,
    edge_index: torch.Tensor,
) -> DropIn:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(nodes, width, generator=generator)
    edge_dim = options.get("edge_dim")
    edge_attr = None if edge_dim is None else torch.randn(edge_index.shape[1], edge_dim, generator=generator)
    batch = torch.zeros(nodes, dtype=torch.int64)
    return DropIn(layer, arguments, options, takes, x, edge_index, edge_attr, batch, False)
