"""Every case, family by family, in the sizes of a full or of a quick run."""

from __future__ import annotations

from functools import lru_cache, partial

import torch

from benchmarks import inputs
from benchmarks.case import BOTH, BUILD, EPOCH, FORWARD, MEMORY, PER_EDGE, Attention, Building, Case, Layer, Work
from benchmarks.drop_in import drop_in
from benchmarks.laying import laying
from graphformer import patterns
from graphformer.graphs import AttentionGraph

FLOAT = 4  # bytes
_PYG = ("pyg", "pyg-scatter", "pyg-segment")


def all_cases(quick: bool = False, root: str | None = None) -> list[Case]:
    """The cases in the order of the tables.

    Args:
        quick: Sizes that end in seconds.
        root: Folder with the OGB data, for the training family.
    """
    makers = (irregular, layers, window, full, molecules, partial(training, root=root), memory, build, laying, drop_in)
    return [case for maker in makers for case in maker(quick)]


# ---------------------------------------------------------------- irregular graphs


@lru_cache(maxsize=2)
def _rmat_graph(num_nodes: int, num_edges: int, levels: int) -> AttentionGraph:
    return AttentionGraph.from_edge_index(inputs.rmat(num_nodes, num_edges, levels), num_nodes)


def _rmat_sizes(quick: bool) -> tuple[int, int, int]:
    return (10_007, 60_000, 14) if quick else (169_343, 1_800_000, 18)


def _row_work(nodes: int, edges: int, channels: int) -> dict[str, tuple[Work, ...]]:
    """Key and value rows of each edge forward; those again, and query and gradient rows of each edge, backward."""
    row = channels * FLOAT
    return {
        FORWARD: (Work(4.0 * edges * channels, 2.0 * edges * row, 2.0 * nodes * row),),
        BOTH: (Work(14.0 * edges * channels, 6.0 * edges * row, 9.0 * nodes * row),),
    }


def _tile_work(nodes: int, edges: int, channels: int) -> dict[str, tuple[Work, ...]]:
    """Two products forward and five backward over all pairs; every node's rows once."""
    row = channels * FLOAT
    return {
        FORWARD: (Work(4.0 * edges * channels, 0.0, 4.0 * nodes * row),),
        BOTH: (Work(14.0 * edges * channels, 0.0, 12.0 * nodes * row),),
    }


def irregular(quick: bool) -> list[Case]:
    """Bare attention on an R-MAT graph."""
    nodes, edges, levels = _rmat_sizes(quick)
    return [
        Case(
            "irregular",
            "rmat",
            lambda: inputs.attention(_rmat_graph(nodes, edges, levels), 8, 16),
            (FORWARD, BOTH),
            ("native", "reference", *_PYG, "dgl", "gather"),
            f"R-MAT, N={nodes}, E={edges}, H=8, D=16",
            {
                FORWARD: {"pyg-scatter": 10.0, "pyg-segment": 10.0, "gather": 1.0},
                BOTH: {"pyg-scatter": 9.0, "pyg-segment": 9.0},
            },
            _row_work(nodes, edges, 128),
            most_repeats=15,
        )
    ]


def layers(quick: bool) -> list[Case]:
    """The same graph with the linear maps around it."""
    nodes, edges, levels = _rmat_sizes(quick)
    out = []
    for name, kind, maps, aims in (
        ("transformer-conv", "dot", 4, {BOTH: {"transformer-conv": 12.0}, MEMORY: {"transformer-conv": 6.0}}),
        ("gatv2-conv", "additive", 3, {}),
    ):
        dense = Work(maps * 6.0 * nodes * 128 * 128)  # forward, and two products backward
        out.append(
            Case(
                "layers",
                name,
                partial(_rmat_layer, kind, nodes, edges, levels),
                (BOTH, MEMORY),
                ("native", name, *(("no-attention",) if kind == "dot" else ())),
                f"R-MAT, N={nodes}, E={edges}, 128 channels, 8 heads",
                aims,
                {BOTH: (dense, *_row_work(nodes, edges, 128)[BOTH])},
                most_repeats=11,
            )
        )
    return out


def _rmat_layer(kind: str, nodes: int, edges: int, levels: int) -> Layer:
    return inputs.layer(kind, _rmat_graph(nodes, edges, levels), 128, 8)


# ---------------------------------------------------------------- dense windows


def window(quick: bool) -> list[Case]:
    """Sliding windows, and windows with a relative position bias."""
    length = 1024 if quick else 4096
    out = []
    for radius, aims in (
        (128, {FORWARD: {"flex": 3.0}, BOTH: {"sdpa": 8.0}}),
        (32, {FORWARD: {"flex": 5.0}}),
    ):
        out.append(
            Case(
                "window",
                f"radius-{radius}",
                partial(_window, radius, length),
                (FORWARD, BOTH),
                ("native", "flex", "sdpa"),
                f"N={length}, H=8, D=64, radius {radius}",
                aims,
                _tile_work(length, inputs.window_pairs(length, radius), 512),
                oracle="dense",
            )
        )
    for name in ("t5", "alibi"):
        out.append(
            Case(
                "window",
                name,
                partial(_biased_window, name, 128, length),
                (FORWARD, BOTH),
                ("native", "sdpa"),
                f"N={length}, H=8, D=64, radius 128, {'32 buckets' if name == 't5' else 'linear'} bias by distance",
                {},
                _tile_work(length, inputs.window_pairs(length, 128), 512),
                oracle="dense",
            )
        )
    images = 1 if quick else 8
    nodes = images * 64 * 49
    out.append(
        Case(
            "window",
            "swin",
            partial(_swin, images),
            (FORWARD, BOTH),
            ("native", "sdpa"),
            f"{images} x 64 windows of 7x7 patches, H=3, D=32, bias of 169 relative places",
            {},
            _tile_work(nodes, nodes * 49, 96),
            oracle="dense",
        )
    )
    return out


def _window(radius: int, length: int) -> Attention:
    return inputs.attention(patterns.Window(radius).on(length), 8, 64, radius=radius)


def _biased_window(name: str, radius: int, length: int) -> Attention:
    graph, heads = inputs.relative_graph(radius, length), 8
    distance = torch.arange(-radius, radius + 1)
    if name == "t5":
        table = torch.randn(32, heads, generator=torch.Generator().manual_seed(3))
        relation = inputs.t5_buckets(distance)[graph.relation.long()]  # type: ignore[union-attr]
        graph = inputs.with_relation(graph, relation, 32)
    else:
        table = -distance.abs().unsqueeze(1) * inputs.alibi_slopes(heads)
    return inputs.attention(graph, heads, 64, relation_bias=table)


def _swin(images: int) -> Attention:
    graph = inputs.swin_graph(images, 64)
    table = torch.randn(169, 3, generator=torch.Generator().manual_seed(3))
    return inputs.attention(graph, 3, 32, (49,) * (images * 64), relation_bias=table)


def full(quick: bool) -> list[Case]:
    """Plain full attention."""
    length = 1024 if quick else 4096
    return [
        Case(
            "full",
            "plain",
            lambda: inputs.attention(patterns.Full().on(length), 8, 64, is_full=True),
            (FORWARD, BOTH),
            ("native", "sdpa"),
            f"N={length}, H=8, D=64",
            {FORWARD: {"sdpa": 0.9}, BOTH: {"sdpa": 0.9}},
            _tile_work(length, length * length, 512),
            oracle="dense",
        )
    ]


# ---------------------------------------------------------------- molecules


def molecules(quick: bool) -> list[Case]:
    """Many small graphs: their bonds, and full attention inside each."""
    count = 128 if quick else 512
    bonds, lengths = inputs.molecule_union(inputs.molecule_bonds(count))
    nodes, pairs = sum(lengths), sum(length * length for length in lengths)
    about = f"{count} molecules, N={nodes}"
    maps = Work(4 * 6.0 * nodes * 128 * 128)
    feed_forward = Work(2 * 6.0 * nodes * 128 * 256)
    tiles = _tile_work(nodes, pairs, 128)[BOTH]

    def dense_layer(kind: str) -> Layer:
        return inputs.layer(kind, patterns.Full().on(list(lengths)), 128, 8, lengths)

    out = [
        Case(
            "molecules",
            "bonds",
            lambda: inputs.attention(AttentionGraph.from_edge_index(bonds, nodes), 8, 16, lengths),
            (FORWARD, BOTH),
            ("native", *_PYG),
            f"{about}, E={bonds.shape[1]}, H=8, D=16",
            {BOTH: {"pyg-scatter": 5.0, "pyg-segment": 5.0}},
            _tile_work(nodes, bonds.shape[1], 128),
        ),
        Case(
            "molecules",
            "full",
            lambda: inputs.attention(patterns.Full().on(list(lengths)), 8, 16, lengths, is_full=True),
            (FORWARD, BOTH),
            ("native", "sdpa-batch"),
            f"{about}, E={pairs}, H=8, D=16",
            {},
            _tile_work(nodes, pairs, 128),
        ),
    ]
    for name, kind, rival, aims, work in (
        ("full-layer", "dot", "mha", {BOTH: {"mha": 3.0}}, (maps, *tiles)),
        ("gps-layer", "gps", "gps-conv", {}, (maps, *tiles, feed_forward)),
    ):
        sizes = f"{about}, E={pairs}, 128 channels, 8 heads"
        make = partial(dense_layer, kind)
        measures = (BOTH,) if quick else (BOTH, MEMORY)  # each memory is a process of its own
        providers = ("native", rival, "no-attention")
        out.append(Case("molecules", name, make, measures, providers, sizes, aims, {BOTH: work}))
    return out


def training(quick: bool, root: str | None = None) -> list[Case]:
    """One epoch of ogbg-molhiv."""
    most = 512 if quick else None
    return [
        Case(
            "training",
            name,
            partial(inputs.molhiv, root or "", most, name == "molhiv-bonds"),
            (EPOCH,),
            ("native", "transformer-conv", "no-attention"),
            f"{most or 'all'} training molecules, 5 layers x 64, 8 heads, batches of 256"
            + (", bond features" if name == "molhiv-bonds" else ""),
            {EPOCH: {"transformer-conv": 2.0}},
            needs_data=True,
            most_repeats=3,
        )
        for name in ("molhiv", "molhiv-bonds")
    ]


# ---------------------------------------------------------------- memory, building


def memory(quick: bool) -> list[Case]:
    """Bytes of forward and backward for each further edge."""
    nodes, levels = (20_011, 15) if quick else (100_003, 17)
    counts = (200_000, 400_000) if quick else (1_000_000, 3_000_000)
    out = []
    for width in (32, 256):
        makes = [partial(_rmat_attention, nodes, count, levels, width // 8) for count in counts]
        out.append(
            Case(
                "memory",
                f"channels-{width}",
                partial(_with_more, makes[0], makes[1]),
                (PER_EDGE,),
                ("native", "pyg"),
                f"R-MAT, N={nodes}, E={counts[0]} and {counts[1]}, H=8, D={width // 8}",
                {PER_EDGE: {"native": 64.0}},
            )
        )
    return out


def _rmat_attention(nodes: int, edges: int, levels: int, width: int) -> Attention:
    return inputs.attention(_rmat_graph(nodes, edges, levels), 8, width)


def _with_more(make: partial[Attention], further: partial[Attention]) -> Attention:
    first = make()
    return Attention(**{**first.__dict__, "more": (further,)})


def build(quick: bool) -> list[Case]:
    """Graphs from edge lists, patterns and batches; both layouts are made."""
    nodes, edges, levels = _rmat_sizes(quick)
    few = 10 if quick else 1
    union = inputs.molecule_bonds(512 // few)
    full_lengths = tuple(20 + index % 13 for index in range(10_000 // few))
    window_lengths = (40_960 // few,)
    cases = (
        (
            "edges",
            lambda: Building("edges", inputs.rmat(nodes, edges, levels), nodes),
            ("native", "torch-sort", "scipy"),
            f"R-MAT, N={nodes}, E={edges}",
        ),
        (
            "window",
            lambda: Building("window", radius=128, lengths=window_lengths),
            ("native",),
            f"radius 128 on N={window_lengths[0]}, E={inputs.window_pairs(window_lengths[0], 128)}",
        ),
        (
            "full",
            lambda: Building("full", lengths=full_lengths),
            ("native",),
            f"{len(full_lengths)} sets of 20 to 32 nodes, E={sum(n * n for n in full_lengths)}",
        ),
        (
            "union",
            lambda: Building("union", members=tuple(AttentionGraph.from_edge_index(b, n) for n, b in union)),
            ("native",),
            f"{len(union)} molecules, E={sum(b.shape[1] for _, b in union)}",
        ),
    )
    return [
        Case("build", name, make, (BUILD,), providers, sizes, oracle="by-hand")
        for name, make, providers, sizes in cases
    ]
