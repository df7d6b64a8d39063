"""Random and degenerate attention graphs."""

from __future__ import annotations

import torch

from graphformer.graphs import AttentionGraph

# name -> (size = (num_keys, num_queries), pairs (key, query))
DEGENERATE_GRAPHS: dict[str, tuple[tuple[int, int], list[tuple[int, int]]]] = {
    "no node": ((0, 0), []),
    "no edge": ((3, 3), []),
    "no query": ((4, 0), []),
    "no key": ((0, 2), []),
    "one node, one loop": ((1, 1), [(0, 0)]),
    "isolated query": ((3, 3), [(0, 0), (1, 0), (2, 2)]),
    "only self loops": ((5, 5), [(i, i) for i in range(5)]),
    "duplicate edge": ((2, 2), [(0, 1), (0, 1), (1, 1)]),
    "one hub with all edges": ((9, 4), [(key, 2) for key in range(9)]),
    "one key for all": ((6, 7), [(3, query) for query in range(7)]),
    "queries outnumber keys": ((2, 6), [(0, 0), (1, 3), (0, 5), (1, 5)]),
}


def random_graph(
    num_queries: int,
    num_keys: int | None = None,
    *,
    num_edges: int,
    num_relations: int = 0,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> AttentionGraph:
    """A graph of uniformly drawn pairs: unsorted, with duplicates and empty rows as chance has it.

    Args:
        num_queries: N.
        num_keys: M. Default: N.
        num_edges: E.
        num_relations: R; 0 (default) for a graph without relations.
        seed: Of the draw.
        device: Where the graph shall live.

    Example:
        >>> random_graph(3, 4, num_edges=5, num_relations=2).size
        (4, 3)
    """
    num_keys = num_queries if num_keys is None else num_keys
    generator = torch.Generator().manual_seed(seed)
    key = torch.randint(0, max(num_keys, 1), (num_edges,), generator=generator)
    query = torch.randint(0, max(num_queries, 1), (num_edges,), generator=generator)
    relation = torch.randint(0, num_relations, (num_edges,), generator=generator) if num_relations else None
    return AttentionGraph.from_edge_index(
        torch.stack((key, query)),
        size=(num_keys, num_queries),
        relation=relation,
        num_relations=num_relations or None,
    ).to(device)
