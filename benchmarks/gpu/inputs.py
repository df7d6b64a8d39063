"""Graphs and tensors of the GPU's cases, made from seeds on the device itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.case import Attention
from graphformer.graphs import AttentionGraph

_MOST_DISTANCES = 2**29  # held at once while neighbours are looked for


def attention(
    build: Callable[[], AttentionGraph],
    heads: int,
    width: int,
    dtype: torch.dtype,
    lengths: tuple[int, ...] = (),
    edge_dim: int = 0,
    **facts: Any,
) -> Attention:
    """Normal queries, keys and values on a graph; with `edge_dim`, features of its edges and their map."""
    graph = build()
    generator = torch.Generator(graph.device).manual_seed(1)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, generator=generator, device=graph.device)).to(dtype)

    nodes = graph.num_queries, graph.num_keys, graph.num_keys, graph.num_queries
    query, key, value, grad_out = (draw(count, heads, width) for count in nodes)
    if edge_dim:
        facts["edge_attr"] = draw(graph.num_edges, edge_dim)
        facts["edge_map"] = draw(edge_dim, heads, width, scale=edge_dim**-0.5)
    return Attention(query, key, value, grad_out, graph, lengths or (graph.num_queries,), build=build, **facts)


def sizes_of_molecules(count: int) -> list[int]:
    """Numbers of atoms with the mean of ogbg-molhiv, 25.5; without its few of over a hundred."""
    draws = torch.randn(count, generator=torch.Generator().manual_seed(4))
    return (25.5 + 12 * draws).round().clamp(2, 100).int().tolist()


def ordered(key: Tensor, query: Tensor) -> Tensor:
    """An edge list `[2, E]` by query, keys ascending, so that an edge's id is its position."""
    order = torch.argsort(query * (int(key.max()) + 1) + key)
    return torch.stack((key[order], query[order]))


def multi_mesh(levels: int, device: str) -> tuple[Tensor, Tensor]:
    """An icosahedron whose faces are cut in four, `levels` times: (points `[N, 3]`, the edges of all levels both ways).

    Six levels give 40,962 points and 327,660 edges.

    References:
        Lam et al., "Learning skillful medium-range global weather forecasting", 2023.
    """
    points, faces = _icosahedron(device)
    edges = []
    for level in range(levels + 1):
        sides = torch.cat([faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]).sort(1).values
        unique, where = torch.unique(sides, dim=0, return_inverse=True)
        edges.append(unique)
        if level == levels:
            break
        ab, bc, ca = (len(points) + where).view(3, -1)
        points = torch.cat((points, normalize(points[unique].sum(1), dim=1)))
        a, b, c = faces.unbind(1)
        corners = ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))
        faces = torch.cat([torch.stack(corner, 1) for corner in corners])
    low, high = torch.cat(edges).unbind(1)
    return points, ordered(torch.cat((low, high)), torch.cat((high, low)))


def _icosahedron(device: str) -> tuple[Tensor, Tensor]:
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    points = torch.tensor([corner[turn:] + corner[:turn] for corner in corners for turn in range(3)], device=device)
    near = torch.cdist(points, points).sub(2).abs() < 0.1
    triple = near[:, :, None] & near[:, None, :] & near
    faces = triple.nonzero()
    return normalize(points, dim=1), faces[(faces[:, 0] < faces[:, 1]) & (faces[:, 1] < faces[:, 2])]


def sphere(count: int, device: str) -> Tensor:
    """Points `[N, 3]` evenly on the unit sphere, along a golden spiral."""
    place = torch.arange(count, device=device, dtype=torch.float64)
    height = 1 - (2 * place + 1) / count
    turn = place * math.pi * (3 - math.sqrt(5))
    radius = (1 - height.square()).sqrt()
    return torch.stack((radius * turn.cos(), radius * turn.sin(), height), 1).float()


def nearest(keys: Tensor, queries: Tensor, count: int) -> Tensor:
    """Edges `[2, E]` from the `count` nearest keys to each query; points `[M, 3]` and `[N, 3]` on the unit sphere."""
    rows = max(1, _MOST_DISTANCES // len(keys))
    found = torch.cat([(part @ keys.T).topk(count, 1).indices for part in queries.split(rows)])
    query = torch.arange(len(queries), device=queries.device).repeat_interleave(count)
    return ordered(found.flatten(), query)
