"""Random patterns and node sets for the tests of patterns."""

import torch
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from graphformer.patterns import (
    Axial,
    Between,
    Bipartite,
    Blocks,
    Causal,
    Distance,
    Edges,
    Expander,
    Full,
    Global,
    Grid,
    Hops,
    Nearest,
    Pairs,
    Random,
    Strided,
    Tree,
    VirtualNode,
    Where,
    Window,
    Within,
)


def is_near(query, key, reach=2):
    return (query - key).abs() <= reach


def mask_mod(b, h, q_idx, kv_idx):
    return (q_idx + 2 * kv_idx + b - b + h - h) % 3 != 0


def corners(num_keys, num_queries):
    """The last key for the first query, and back; the first pair twice."""
    pairs = [(num_keys - 1, 0), (0, num_queries - 1), (num_keys - 1, 0)] if num_keys and num_queries else []
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t()


small = st.integers(0, 4)


def per_axis(entries, num_axes):
    """A number for all axes, or a tuple with one an axis."""
    return entries if num_axes == 1 else entries | st.tuples(*[entries] * num_axes)


def windows(num_axes, largest_stride=1):
    """Windows of every border."""
    return st.builds(
        Window,
        left=per_axis(small, num_axes),
        right=per_axis(small, num_axes),
        dilation=per_axis(st.integers(1, 3), num_axes),
        stride=per_axis(st.integers(1, largest_stride), num_axes),
        offset=per_axis(st.integers(-3, 3), num_axes),
        border=st.sampled_from(["clip", "wrap", "shift"]),
    )


def blocks(num_axes):
    """Blocks, shifted or not."""
    sizes = per_axis(st.integers(1, 5), num_axes)
    shifts = st.floats(0, 0.99)
    shift = lambda size, share: tuple(int(s * share) for s in size) if isinstance(size, tuple) else int(size * share)  # noqa: E731
    return st.builds(lambda size, share: Blocks(size, shift(size, share)), sizes, shifts)


by_order = st.one_of(
    st.just(Full()),
    st.just(Causal()),
    st.builds(Global, small),
    st.builds(VirtualNode, small),
    st.builds(Random, small, st.integers(-(2**63), 2**63 - 1)),
    st.builds(Strided, st.integers(1, 5)),
)
by_place = by_order | st.one_of(
    st.builds(Window, small, dilation=st.integers(1, 3)),
    windows(1),
    blocks(1),
    st.builds(Axial),
)
by_edges = st.one_of(st.builds(Edges, st.booleans()), st.builds(Hops, small))
by_grid = by_place | st.one_of(windows(2), blocks(2), st.builds(Axial, st.sampled_from([None, 0, 1])))
strided = windows(1, 3)
of_one_set = st.builds(Expander, st.sampled_from([2, 4]), st.integers(-(2**63), 2**63 - 1))
generations = st.none() | st.integers(0, 3)
by_data = by_edges | st.one_of(
    st.builds(Nearest, small),
    st.builds(Within, st.sampled_from([0, 1, 1.0, 2**0.5, 2.5, 3**0.5])),
    st.builds(Tree, generations, generations),
)
LEAVES = {
    "lengths": by_place | of_one_set,
    "batch": by_place | of_one_set | by_data,
    "bipartite": by_place | strided | st.just(Bipartite()),
    "grids": by_grid,
    "grid pairs": by_grid | windows(2, 3) | st.just(Bipartite()),
    "parts": by_place | by_edges,
}
without_text = st.sampled_from([Where(is_near), Where(mask_mod), Pairs(corners)])
PARTS = ("text", "left", "image", "right")  # left and right have edges
between = st.dictionaries(st.tuples(st.sampled_from(PARTS), st.sampled_from(PARTS)), by_order, min_size=1, max_size=3)
between_shaped = st.fixed_dictionaries(
    {("right", "right"): by_edges},
    optional={("left", "left"): by_edges, ("image", "image"): by_grid, ("left", "text"): by_place | strided},
)
mixed = st.builds(Between, between | between_shaped)
_OPERATIONS = (
    lambda p, q: p | q,
    lambda p, q: p + q,
    lambda p, q: p & q,
    lambda p, q: p - q,
    lambda p, q: ~p,
)


def patterns(kind, *, labelled=False, written=False):
    """Pattern terms over node sets of one kind; leaves are labelled or not, and all written as text or not."""
    leaves = LEAVES[kind] if written else LEAVES[kind] | without_text
    if labelled:
        relations = small | st.builds(Distance, small)
        leaves = st.builds(lambda leaf, relation: leaf.as_relation(relation), leaves, relations)
        leaves = leaves | mixed if kind == "parts" else leaves
    operations = _OPERATIONS[:-1] if labelled else _OPERATIONS
    combine = lambda inner: st.builds(lambda p, q, make: make(p, q), inner, inner, st.sampled_from(operations))  # noqa: E731
    return st.recursive(leaves, combine, max_leaves=5)


lengths = st.lists(st.integers(0, 11), min_size=1, max_size=4)


@st.composite
def graph_data(draw):
    """One sample: a few nodes with random edges, duplicates and loops among them, places on a grid, and parents."""
    num_nodes = draw(st.integers(1, 6))
    ends = st.tuples(st.integers(0, num_nodes - 1), st.integers(0, num_nodes - 1))
    pairs = draw(st.lists(ends, max_size=9))
    # Places with many equal distances; integers would have to be a grid.
    pos = torch.tensor(draw(st.lists(st.tuples(small, small), min_size=num_nodes, max_size=num_nodes))).double()
    parent = torch.tensor([draw(st.integers(-1, node - 1)) for node in range(num_nodes)])
    if draw(st.booleans()):  # parents behind their children
        parent = torch.where(parent < 0, -1, num_nodes - 1 - parent).flip(0)
    edge_index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t().contiguous()
    return Data(edge_index=edge_index, num_nodes=num_nodes, pos=pos, parent=parent)


samples = st.lists(graph_data(), min_size=1, max_size=3)
grids = st.builds(Grid, small, small)
parts = st.tuples(small, graph_data(), grids, graph_data()).map(lambda held: dict(zip(PARTS, held, strict=True)))


@st.composite
def cases(draw, labelled=False):
    """(kind, the single node sets, the ragged batch of them)."""
    kind = draw(st.sampled_from(sorted(LEAVES)))
    if kind == "lengths":
        batch = draw(lengths)
        return kind, list(batch), batch
    if kind == "batch":
        singles = draw(samples)
        return kind, singles, Batch.from_data_list(singles)
    if kind == "grids":
        batch = draw(st.lists(grids, min_size=1, max_size=3))
        return kind, list(batch), batch
    if kind == "parts":
        singles = draw(st.lists(parts, min_size=1, max_size=3))
        batch = {name: [single[name] for single in singles] for name in PARTS}
        return kind, singles, {**batch, **{name: Batch.from_data_list(batch[name]) for name in ("left", "right")}}
    entry = grids if kind == "grid pairs" else st.integers(0, 6)
    pairs = draw(st.lists(st.tuples(entry, entry), min_size=1, max_size=3))
    return kind, pairs, ([keys for keys, _ in pairs], [queries for _, queries in pairs])


def size(nodes):
    """(num_queries, num_keys) of any of the node sets above."""
    if isinstance(nodes, tuple):
        return size(nodes[1])[0], size(nodes[0])[1]
    if isinstance(nodes, (list, dict)):
        total = sum(size(part)[0] for part in (nodes.values() if isinstance(nodes, dict) else nodes))
    else:
        total = nodes if isinstance(nodes, int) else nodes.num_nodes
    return total, total


def predicate(pattern, nodes):
    """The predicate view as a boolean matrix [N, M]."""
    num_queries, num_keys = size(nodes)
    return pattern.allows(torch.arange(num_queries)[:, None], torch.arange(num_keys), nodes)


def edge_matrix(pattern, nodes):
    """The edge view as a matrix [N, M] of the number of copies."""
    graph = pattern.on(nodes)
    out = torch.zeros(graph.num_queries, graph.num_keys, dtype=torch.int64)
    return out.index_put((graph.edge_index[1], graph.edge_index[0]), torch.tensor(1), accumulate=True)
