"""The cases of the GPU, in the order in which they run: what the aims hang on comes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.case import BOTH, BUILD, FIRST, FORWARD, MEMORY, STEP, Attention, Case, Work
from benchmarks.gpu import inputs
from benchmarks.gpu.full_graph import full_graph
from benchmarks.inputs import draw_rmat, window_pairs
from graphformer import patterns
from graphformer.graphs import AttentionGraph

HALF, BFLOAT = torch.float16, torch.bfloat16
_MEASURES = (FORWARD, BOTH, MEMORY, FIRST, BUILD)
_BYTES = 2  # of either
_FIRST = {"anemoi": 3, "window": 1}  # so many of a family before the others' all; the rest, if there is time


def all_cases(device: str, is_tiny: bool) -> list[Case]:
    """Every case, in its own size or in one that an interpreter ends in a second.

    Args:
        device: "cuda" or "cpu".
        is_tiny: Whether the sizes are those of a dry run.
    """
    families = [maker(is_tiny) for maker in (irregular, meshes, windows, molecules, plain, training)]
    first = [case for cases in families for case in cases[: _FIRST.get(cases[0].family)]]
    made = first + [case for cases in families for case in cases if case not in first]
    return [replace(case, device=device, make=partial(case.make, device)) for case in made]


def _case(
    family: str,
    name: str,
    make: Callable[[str], Any],
    providers: tuple[str, ...],
    sizes: str,
    edges: int,
    work: dict[str, Work] | None = None,
    aims: dict[str, dict[str, float]] | None = None,
    needs_s: float = 15.0,
    oracle: str = "wide",
) -> Case:
    """A case of attention whose `make` still asks for the device."""
    bounds = {measure: (part,) for measure, part in (work or {}).items()}
    return Case(
        family,
        name,
        make,  # type: ignore[arg-type] # all_cases gives it the device
        _MEASURES,
        providers,
        sizes,
        aims or {},
        bounds,
        oracle=oracle,
        ours_only=(BUILD,),
        edges=edges,
        needs_s=needs_s,
    )


def row_work(edges: int, heads: int, width: int, features: int = 0) -> dict[str, Work]:
    """No row is met twice in a cache: keys and values of each edge forward; those, queries and gradients backward.

    Backward reads two numbers in float32 an edge and head beside. Features are read in each of the three passes.
    """
    row, size = heads * width * _BYTES, features * _BYTES
    return {
        FORWARD: Work(4.0 * edges * heads * width, 0.0, edges * (2.0 * row + size)),
        BOTH: Work(14.0 * edges * heads * width, 0.0, edges * (6.0 * row + 8.0 * heads + 3.0 * size)),
    }


def tile_work(nodes: int, edges: int, heads: int, width: int) -> dict[str, Work]:
    """Two products forward and five backward over all pairs; every node's rows once."""
    row = nodes * heads * width * _BYTES
    return {
        FORWARD: Work(4.0 * edges * heads * width, 0.0, 4.0 * row),
        BOTH: Work(14.0 * edges * heads * width, 0.0, 12.0 * row),
    }


# ---------------------------------------------------------------- graphs


def irregular(is_tiny: bool) -> list[Case]:
    """R-MAT, of the aim's size and of one that eager PyG has the memory for."""
    out = []
    sizes = ((17, 60, 4),) if is_tiny else ((1_000_000, 32_000_000, 20), (250_000, 8_000_000, 18))
    for nodes, edges, levels in sizes:
        out.append(
            _case(
                "irregular",
                f"rmat-{edges // 1_000_000}m",
                partial(_rmat, nodes, edges, levels),
                ("triton", "pyg-eager", "pyg-compiled"),
                f"R-MAT, N={nodes}, E={edges}, H=8, D=32, float16",
                edges,
                row_work(edges, 8, 32),
                {BOTH: {"pyg-eager": 10.0, "pyg-compiled": 2.0}},
                40.0,
            )
        )
    return out


def _rmat(nodes: int, edges: int, levels: int, device: str) -> Attention:
    edge_index = draw_rmat(nodes, edges, levels, 0, device)
    return inputs.attention(lambda: AttentionGraph.from_edge_index(edge_index, nodes), 8, 32, HALF)


def meshes(is_tiny: bool) -> list[Case]:
    """The graphs of anemoi-models: a multi-mesh, from the grid N320 into it, and back."""
    levels, grid, near = (0, 20, 4) if is_tiny else (6, 542_080, 20)
    points = 10 * 4**levels + 2
    graphs = {
        "mesh": (points, 20 * (4 ** (levels + 1) - 1)),
        "encoder": (points, near * points),
        "decoder": (grid, 3 * grid),
    }
    asked = (
        ("mesh", 64, HALF, 3, True),
        ("encoder", 64, HALF, 3, False),
        ("decoder", 32, BFLOAT, 16, False),
        ("mesh", 32, HALF, 3, False),
        ("mesh", 64, BFLOAT, 16, False),
        ("decoder", 64, HALF, 3, False),
        ("encoder", 32, BFLOAT, 16, False),
    )
    out = []
    for name, width, dtype, features, compiles in asked[:3] if is_tiny else asked:
        queries, edges = graphs[name]
        keys = grid if name == "encoder" else points
        kind = str(dtype).removeprefix("torch.")
        rivals = ("anemoi", "anemoi-kernel", "pyg-eager", *(("pyg-compiled",) if compiles else ()))
        out.append(
            _case(
                "anemoi",
                f"{name}-{width}-{kind}",
                partial(_mesh, name, levels, grid, near, width, dtype, features),
                ("triton", *rivals),
                f"N={queries}, M={keys}, E={edges}, H=16, D={width}, {features} edge features, {kind}",
                edges,
                row_work(edges, 16, width, features),
                {BOTH: {"anemoi": 1.3, "anemoi-kernel": 1.3}, MEMORY: {"anemoi": 1.0, "anemoi-kernel": 1.0}},
                30.0 if compiles else 10.0,
            )
        )
    return out


def _mesh(
    name: str, levels: int, grid: int, near: int, width: int, dtype: torch.dtype, features: int, device: str
) -> Attention:
    points, edge_index = inputs.multi_mesh(levels, device)
    queries, keys = len(points), len(points)
    if name == "encoder":
        edge_index, keys = inputs.nearest(inputs.sphere(grid, device), points, near), grid
    elif name == "decoder":
        edge_index, queries = inputs.nearest(points, inputs.sphere(grid, device), 3), grid
    return inputs.attention(
        lambda: AttentionGraph.from_edge_index(edge_index, size=(keys, queries)), 16, width, dtype, edge_dim=features
    )


# ---------------------------------------------------------------- sequences and sets


def _lay(
    pattern: patterns.Pattern, lengths: list[int], heads: int, width: int, dtype: torch.dtype, device: str, **facts: Any
) -> Attention:
    def build() -> AttentionGraph:
        return pattern.on(torch.tensor(lengths, device=device))

    return inputs.attention(build, heads, width, dtype, tuple(lengths), **facts)


def _products(is_tiny: bool) -> torch.dtype:
    """bfloat16; in a dry run float16, as Triton's interpreter multiplies the bits of bfloat16 as integers."""
    return HALF if is_tiny else BFLOAT


def windows(is_tiny: bool) -> list[Case]:
    """2,048 keys of 32,768, half before and half behind."""
    length, radius = (20, 3) if is_tiny else (32_768, 1024)
    dtype = _products(is_tiny)
    out = []
    for heads in (8, 16):
        edges = window_pairs(length, radius)
        saving = length * length / edges / 1.5
        aims = {"flex-attention": 1.0, "sdpa-full": saving}
        out.append(
            _case(
                "window",
                f"heads-{heads}",
                partial(_lay, patterns.Window(radius), [length], heads, 128, dtype, radius=radius),
                ("triton", "flex-attention", "varlen", "natten", "sdpa-full"),
                f"N={length}, radius {radius}, H={heads}, D=128, {str(dtype).removeprefix('torch.')}",
                edges,
                tile_work(length, edges, heads, 128),
                {FORWARD: aims, BOTH: aims},
                40.0,
                "wide-blocks",
            )
        )
    return out[:1] if is_tiny else out


def molecules(is_tiny: bool) -> list[Case]:
    """Full attention inside each of many small sets."""
    lengths = [5, 2, 9] if is_tiny else inputs.sizes_of_molecules(10_000)
    nodes, edges = sum(lengths), sum(length * length for length in lengths)
    aims = {"sdpa-padded": 3.0}
    return [
        _case(
            "molecules",
            f"full-{width}",
            partial(_lay, patterns.Full(), lengths, 8, width, HALF, is_full=len(lengths) == 1),
            ("triton", "sdpa-padded", "varlen"),
            f"{len(lengths)} sets of {nodes / len(lengths):.3g} nodes, the largest {max(lengths)}, N={nodes}, "
            f"E={edges}, H=8, D={width}, float16",
            edges,
            tile_work(nodes, edges, 8, width),
            {FORWARD: aims, BOTH: aims},
            15.0,
        )
        for width in ((16,) if is_tiny else (16, 32))
    ]


def plain(is_tiny: bool) -> list[Case]:
    """One sequence, everyone with everyone: "auto" hands it over."""
    length, dtype = 12 if is_tiny else 8192, _products(is_tiny)
    return [
        _case(
            "full",
            "plain",
            partial(_lay, patterns.Full(), [length], 8, 64, dtype, is_full=True),
            ("auto", "triton", "sdpa-full"),
            f"N={length}, H=8, D=64, {str(dtype).removeprefix('torch.')}",
            length * length,
            tile_work(length, length * length, 8, 64),
            {FORWARD: {"sdpa-full": 0.9}, BOTH: {"sdpa-full": 0.9}},
            15.0,
            "wide-blocks",
        )
    ]


def training(is_tiny: bool) -> list[Case]:
    """A step of three layers over a whole graph of the size of ogbn-products."""
    nodes, edges, levels = (50, 200, 6) if is_tiny else (2_449_029, 123_718_280, 22)
    return [
        replace(
            _case(
                "training",
                "products",
                partial(full_graph, nodes, edges, levels),
                ("triton", "pyg-step"),
                f"R-MAT, N={nodes}, E={edges}, 3 layers, 128 channels, 8 heads, bfloat16 autocast, AdamW",
                3 * edges,
                needs_s=40.0,
                oracle="wide-step",
            ),
            measures=(STEP, MEMORY, BUILD),
        )
    ]
