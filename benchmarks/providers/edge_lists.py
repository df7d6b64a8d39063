"""Edge lists of patterns, as one gets them from other libraries."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Case, Laying, Provider, Run, laying_run, pair_counts
from graphformer.patterns import Expander, Hops, Nearest, Window, Within

_ABOUT = {
    "pyg-edges": "torch_geometric: utils.grid, TwoHop and AddSelfLoops, knn_graph, radius_graph; an edge list",
    "kd-tree": "scipy.spatial.cKDTree, query and query_pairs; an edge list",
    "networkx": "networkx.random_regular_graph; an edge list",
}


def _why_not(name: str, case: Case, measure: str) -> str:
    needs = name == "pyg-edges" and case.name in ("nearest", "within")
    if needs and not find_spec("pyg_lib") and not find_spec("torch_cluster"):
        return "knn_graph and radius_graph need pyg-lib or torch-cluster, which are not installed"
    return ""


def _prepare(name: str, case: Case, inputs: Laying) -> Run:
    edges = _EDGES[name, type(inputs.pattern)]

    def few_pairs() -> Tensor:
        key, query = edges(inputs.pattern, inputs.few)
        num_keys, num_queries = inputs.pattern.on(inputs.few).size
        return pair_counts(query, key, num_queries, num_keys)

    make = partial(edges, inputs.pattern, inputs.nodes)
    is_random = isinstance(inputs.pattern, Expander)
    return laying_run(make, _num_distinct, lambda pairs: 2 * pairs[0].nbytes, None if is_random else few_pairs)


def _num_distinct(pairs: Tensor) -> int:
    key, query = pairs
    return (query * (int(pairs.max()) + 1) + key).unique().numel()


def _grid(pattern: Window, nodes: Any) -> Tensor:
    from torch_geometric.utils import grid

    return grid(*nodes.shape)[0]  # 3 x 3 neighbours, the node itself among them


def _two_hop(pattern: Hops, nodes: Any) -> Tensor:
    from torch_geometric.transforms import AddSelfLoops, TwoHop

    return AddSelfLoops()(TwoHop()(nodes)).edge_index


def _knn(pattern: Nearest, nodes: Any) -> Tensor:
    from torch_geometric.nn import knn_graph

    return knn_graph(nodes.pos, pattern.k, loop=True)


def _radius(pattern: Within, nodes: Any) -> Tensor:
    from torch_geometric.nn import radius_graph

    return radius_graph(nodes.pos, pattern.distance, loop=True, max_num_neighbors=nodes.num_nodes)


def _tree_nearest(pattern: Nearest, nodes: Any) -> Tensor:
    from scipy.spatial import cKDTree

    place = nodes.pos.numpy()
    key = torch.from_numpy(cKDTree(place).query(place, pattern.k)[1]).flatten()
    return torch.stack((key, torch.arange(len(place)).repeat_interleave(pattern.k)))


def _tree_within(pattern: Within, nodes: Any) -> Tensor:
    from scipy.spatial import cKDTree

    pairs = torch.from_numpy(cKDTree(nodes.pos.numpy()).query_pairs(pattern.distance, output_type="ndarray")).T
    return torch.cat((pairs, pairs.flip(0), torch.arange(nodes.num_nodes).expand(2, -1)), 1)


def _regular(pattern: Expander, nodes: int) -> Tensor:
    import networkx

    pairs = torch.tensor(list(networkx.random_regular_graph(pattern.degree, nodes, seed=pattern.seed).edges)).T
    return torch.cat((pairs, pairs.flip(0)), 1)


_EDGES: dict[tuple[str, type], Callable[[Any, Any], Tensor]] = {
    ("pyg-edges", Window): _grid,
    ("pyg-edges", Hops): _two_hop,
    ("pyg-edges", Nearest): _knn,
    ("pyg-edges", Within): _radius,
    ("kd-tree", Nearest): _tree_nearest,
    ("kd-tree", Within): _tree_within,
    ("networkx", Expander): _regular,
}
PROVIDERS = tuple(
    Provider(name, about, partial(_why_not, name), partial(_prepare, name)) for name, about in _ABOUT.items()
)
