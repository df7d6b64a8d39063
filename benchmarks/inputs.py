"""The graphs and tensors of the cases, made from seeds."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Attention, Layer, Training
from graphformer import patterns
from graphformer.graphs import AttentionGraph

_RMAT_QUADRANTS = (0.45, 0.22, 0.22)  # the fourth takes the rest


@lru_cache(maxsize=2)
def rmat(num_nodes: int, num_edges: int, levels: int, seed: int = 0) -> Tensor:
    """The list of :func:`draw_rmat` on the CPU; the last two are kept."""
    return draw_rmat(num_nodes, num_edges, levels, seed)


def draw_rmat(num_nodes: int, num_edges: int, levels: int, seed: int = 0, device: str = "cpu") -> Tensor:
    """An R-MAT edge list `[2, E]`: skewed degrees, repeated edges kept, ids folded to `num_nodes`.

    References:
        Chakrabarti, Zhan and Faloutsos, "R-MAT: a recursive model for graph mining", 2004.
    """
    generator = torch.Generator(device).manual_seed(seed)
    borders = torch.tensor(_RMAT_QUADRANTS, device=device).cumsum(0)
    ends = torch.zeros(2, num_edges, dtype=torch.int64, device=device)
    for _ in range(levels):
        quadrant = torch.bucketize(torch.rand(num_edges, generator=generator, device=device), borders, right=True)
        ends = 2 * ends + torch.stack((quadrant // 2, quadrant % 2))
    return ends % num_nodes


def molecule_bonds(count: int, seed: int = 0) -> list[tuple[int, Tensor]]:
    """Molecule-like graphs as (atoms, bonds both ways): a random tree of degree at most 4, and one to three rings.

    Sizes are drawn around 26 atoms, the mean of ogbg-molhiv.
    """
    generator = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(count):
        size = int((26 + 8 * torch.randn((), generator=generator)).clamp(6, 60))
        draws = torch.rand(size + 6, generator=generator).tolist()
        degree, bonds = [0] * size, []
        for atom in range(1, size):
            open_atoms = [other for other in range(max(0, atom - 4), atom) if degree[other] < 4]
            bonds.append((atom, open_atoms[int(draws[atom] * len(open_atoms))]))
            degree[atom] += 1
            degree[bonds[-1][1]] += 1
        for ring in range(1 + int(draws[size] * 3)):
            start = int(draws[size + 1 + ring] * (size - 5))
            bonds.append((start, start + 5))
        pairs = torch.tensor(bonds).T
        out.append((size, torch.cat((pairs, pairs.flip(0)), 1)))
    return out


@lru_cache(maxsize=1)
def molecule_batch(count: int) -> Any:
    """Molecule-like graphs as one batch of PyG data, each edge once and in order, as `TwoHop` needs them."""
    from torch_geometric.data import Data

    bonds, lengths = molecule_union(molecule_bonds(count))
    batch = torch.arange(count).repeat_interleave(torch.tensor(lengths))
    return Data(edge_index=bonds, num_nodes=sum(lengths), batch=batch).coalesce()


def points(count: int, spread: float = 1.0) -> Any:
    """PyG data with points drawn evenly from a cube whose edge is `spread`."""
    from torch_geometric.data import Data

    return Data(pos=spread * torch.rand(count, 3, generator=torch.Generator().manual_seed(5)))


def molecule_union(molecules: list[tuple[int, Tensor]]) -> tuple[Tensor, tuple[int, ...]]:
    """All bonds in one edge list, and the sizes of the molecules."""
    lengths = tuple(size for size, _ in molecules)
    starts = torch.tensor((0, *lengths)).cumsum(0).tolist()
    parts = [bonds + start for (_, bonds), start in zip(molecules, starts, strict=False)]
    return torch.cat(parts, 1), lengths


def attention(graph: AttentionGraph, heads: int, width: int, lengths: tuple[int, ...] = (), **facts: Any) -> Attention:
    """Normal queries, keys and values on a graph."""
    generator = torch.Generator().manual_seed(1)
    query, key, value, grad_out = torch.randn(4, graph.num_queries, heads, width, generator=generator)
    return Attention(query, key, value, grad_out, graph, lengths or (graph.num_queries,), **facts)


def window_pairs(length: int, radius: int) -> int:
    """Pairs of a window on a sequence that is longer than its radius."""
    return length * (2 * radius + 1) - radius * (radius + 1)


def relative_graph(radius: int, length: int) -> AttentionGraph:
    """A window whose relation is the distance j - i + radius."""
    graph = patterns.Window(radius).on(length)
    key, query = graph.edge_index
    return with_relation(graph, key - query + radius, 2 * radius + 1)


def with_relation(graph: AttentionGraph, relation: Tensor, num_relations: int) -> AttentionGraph:
    """The same pairs, each with its relation."""
    layout = graph.by_query
    return AttentionGraph.from_csr(
        layout.ptr, layout.index, graph.num_keys, relation=relation, num_relations=num_relations
    )


def t5_buckets(distance: Tensor, num_buckets: int = 32, farthest: int = 128) -> Tensor:
    """Buckets of a signed distance: half a sign; within each, single steps first and logarithmic ones beyond.

    References:
        Raffel et al., "Exploring the limits of transfer learning with a unified text-to-text transformer", 2020.
    """
    half, near = num_buckets // 2, num_buckets // 4
    size = distance.abs()
    growth = torch.log(size.clamp(min=1) / near) / torch.log(torch.tensor(farthest / near))
    far = (near + growth * (half - near)).long().clamp(max=half - 1)
    return torch.where(distance > 0, half, 0) + torch.where(size < near, size, far)


def alibi_slopes(heads: int) -> Tensor:
    """One slope a head, 2^-1 ... 2^-8 for eight heads (Press et al., "Train short, test long", 2022)."""
    return 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads)


def swin_graph(images: int, windows: int, side: int = 7) -> AttentionGraph:
    """Square windows of `side` x `side` patches, one after the other, with the relation of their relative place.

    References:
        Liu et al., "Swin transformer", 2021.
    """
    area = side * side
    graph = patterns.Blocks(area).on([windows * area] * images)
    key, query = graph.edge_index % area
    down = key // side - query // side + side - 1
    right = key % side - query % side + side - 1
    return with_relation(graph, down * (2 * side - 1) + right, (2 * side - 1) ** 2)


def layer(
    kind: str, graph: AttentionGraph, channels: int, heads: int, lengths: tuple[int, ...] = (), edge_dim: int = 0
) -> Layer:
    """A layer's nodes and weights; with `edge_dim`, one map of edge features that keys and values share."""
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale

    weights = {}
    for name in ("query", "key", "out") if kind == "additive" else ("query", "key", "value", "out"):
        weights[f"{name}.weight"] = draw(channels, channels, scale=channels**-0.5)
        if kind != "additive":
            weights[f"{name}.bias"] = draw(channels, scale=0.1)
    if kind == "additive":
        weights["score"] = draw(heads, channels // heads, scale=heads**0.5 / channels**0.5)
    if kind == "gps":
        for name, rows, columns in (("mlp.0", 2 * channels, channels), ("mlp.3", channels, 2 * channels)):
            weights[f"{name}.weight"], weights[f"{name}.bias"] = draw(rows, columns, scale=columns**-0.5), draw(rows)
    if edge_dim:
        weights["edge"] = draw(edge_dim, channels, scale=0.3)
    nodes = graph.num_queries
    return Layer(kind, draw(nodes, channels), draw(nodes, channels), graph, heads, weights, lengths or (nodes,))


@lru_cache(maxsize=2)
def molhiv(root: str, most: int | None, reads_edges: bool) -> Training:
    """The training part of ogbg-molhiv in batches of 256, in a fixed order; its attention graph is made a batch.

    Raises:
        graphformer.GraphformerError: The data are not in `root`; nothing is ever fetched.
    """
    from torch_geometric.loader import DataLoader

    from graphformer.data import load

    task = load("ogbg-molhiv", root)
    batches = list(DataLoader(task.train[:most], batch_size=256))
    return Training(
        batches,
        task.features.node_categories,
        task.features.edge_categories,
        reads_edges,
        channels=64,
        heads=8,
        layers=5,
    )


def has_molhiv(root: str | None) -> bool:
    """Whether the data set's own folder is there."""
    return root is not None and (Path(root) / "ogbg_molhiv" / "raw").is_dir()
