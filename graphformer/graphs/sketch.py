"""Attention graphs as text, for terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from graphformer.graphs.attention_graph import AttentionGraph

_MOST_CELLS = 48  # a side: two characters each, about a square
_SHADES = " ░▒▓█"


def sketch(graph: AttentionGraph) -> str:
    """The matrix of queries (lines) and keys (columns), two characters a cell.

    Up to 48 nodes a side show one cell a pair, full or, with fewer than 100 relations, the number of its relation (of
    copies, the first edge's). Larger graphs show how full each cell is, from a light shade to a full block.

    Example:
        >>> from graphformer.patterns import Blocks
        >>> print(sketch(Blocks(2).on(4).cpu()))
        ████
        ████
            ████
            ████
    """
    key, query = graph.edge_index.cpu()
    rows, columns = (min(count, _MOST_CELLS) for count in (graph.num_queries, graph.num_keys))
    if graph.relation is not None and graph.num_relations < 100 and (rows, columns) == graph.size[::-1]:
        cells = [["  "] * columns for _ in range(rows)]
        pairs = zip(query.tolist(), key.tolist(), graph.relation.tolist(), strict=True)
        for i, j, relation in reversed(list(pairs)):
            cells[i][j] = f"{relation:>2}"
        return "\n".join("".join(line) for line in cells)
    row, column = query * rows // max(graph.num_queries, 1), key * columns // max(graph.num_keys, 1)
    pairs_in = torch.bincount(row * columns + column, minlength=rows * columns).view(rows, columns)
    places = _sizes(graph.num_queries, rows)[:, None] * _sizes(graph.num_keys, columns)
    shade = (pairs_in * 4 / places.clamp(min=1)).ceil().long().clamp(max=4)
    return "\n".join("".join(_SHADES[s] * 2 for s in line) for line in shade.tolist())


def _sizes(count: int, bins: int) -> torch.Tensor:
    """How many of ``count`` places each bin holds."""
    return torch.bincount(torch.arange(count) * bins // max(count, 1), minlength=bins)
