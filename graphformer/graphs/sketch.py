"""Attention graphs as text, for terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphformer.graphs.bins import count_bins, edges_of_bins, pairs_of

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
    edges = [edges_of_bins(count, _MOST_CELLS) for count in (graph.num_queries, graph.num_keys)]
    rows, columns = (edge.numel() - 1 for edge in edges)
    if graph.relation is not None and graph.num_relations < 100 and (rows, columns) == graph.size[::-1]:
        cells = [["  "] * columns for _ in range(rows)]
        pairs = zip(*graph.edge_index.tolist(), graph.relation.tolist(), strict=True)
        for j, i, relation in reversed(list(pairs)):
            cells[i][j] = f"{relation:>2}"
        return "\n".join("".join(line) for line in cells)
    places = edges[0].diff()[:, None] * edges[1].diff()
    pairs_in = count_bins(pairs_of(graph), *edges)
    shade = (pairs_in * 4 / places.clamp(min=1)).ceil().long().clamp(max=4)
    return "\n".join("".join(_SHADES[s] * 2 for s in line) for line in shade.tolist())
