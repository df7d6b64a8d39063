"""Graphs handed to other libraries, and read back."""

from __future__ import annotations

import networkx
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from graphformer import AttentionGraph
from graphformer.graphs.side import Side
from graphformer.patterns import Blocks, Causal, Full, Global, Window
from graphformer.testing import DEGENERATE_GRAPHS, random_graph

EDGES = torch.tensor([[3, 0, 4, 0, 3], [1, 0, 1, 2, 1]])  # five keys, three queries, (3, 1) twice
GRAPH = AttentionGraph.from_edge_index(EDGES, size=(5, 3))


@st.composite
def graphs(draw: st.DrawFn, square: bool = False) -> AttentionGraph:
    num_keys = draw(st.integers(1, 7))
    num_queries = num_keys if square else draw(st.integers(1, 6))
    pair = st.tuples(st.integers(0, num_keys - 1), st.integers(0, num_queries - 1))
    pairs = torch.tensor(draw(st.lists(pair, max_size=20)), dtype=torch.int64).reshape(-1, 2)
    relation = torch.arange(len(pairs)) % 3 if draw(st.booleans()) else None
    return AttentionGraph.from_edge_index(
        pairs.t(), size=(num_keys, num_queries), relation=relation, num_relations=3 if relation is not None else None
    )


def pairs_of(graph: AttentionGraph) -> list[list[int]]:
    return sorted(graph.edge_index.t().tolist())


# ---------------------------------------------------------------- dense


def test_dense_tells_pairs_or_counts() -> None:
    assert GRAPH.to_dense().dtype == torch.bool
    assert GRAPH.to_dense().int().tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 1, 1], [1, 0, 0, 0, 0]]
    assert GRAPH.to_dense(counts=True).tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 2, 1], [1, 0, 0, 0, 0]]


@settings(deadline=None)
@given(graphs())
def test_dense_there_and_back(graph: AttentionGraph) -> None:
    back = AttentionGraph.from_dense(graph.to_dense())
    assert back.size == graph.size
    assert [tuple(pair) for pair in pairs_of(back)] == sorted({tuple(pair) for pair in pairs_of(graph)})


# ---------------------------------------------------------------- scipy and torch.sparse


@settings(deadline=None)
@given(graphs())
def test_scipy_there_and_back_keeps_the_ids(graph: AttentionGraph) -> None:
    back = AttentionGraph.from_scipy(graph.to_scipy())
    assert back.size == graph.size
    assert torch.equal(back.edge_index, graph.edge_index)


@settings(deadline=None)
@given(graphs())
def test_torch_sparse_there_and_back_sorts_the_pairs(graph: AttentionGraph) -> None:
    matrix = graph.to_torch_sparse()
    assert matrix.layout == torch.sparse_csr
    back = AttentionGraph.from_edge_index(matrix)
    assert back.size == graph.size
    assert back.by_query.edge_id is None
    assert torch.equal(back.by_query.index, graph.by_query.index)
    assert torch.equal(back.by_query.ptr, graph.by_query.ptr)


def test_values_follow_their_pairs() -> None:
    values = torch.tensor([0.5, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64)
    dense = torch.tensor([[2.0, 0, 0, 0, 0], [0, 0, 0, 16.5, 4.0], [8.0, 0, 0, 0, 0]], dtype=torch.float64)
    array = GRAPH.to_scipy(values)
    assert isinstance(array, scipy.sparse.coo_array)
    assert array.nnz == 5
    assert array.toarray().T.tolist() == dense.tolist()
    x = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(GRAPH.to_torch_sparse(values.requires_grad_()) @ x, dense @ x)


@pytest.mark.parametrize("wrong", [torch.ones(4), torch.ones(5, 1), [1.0] * 5])
@pytest.mark.parametrize("convert", ["to_scipy", "to_torch_sparse"])
def test_values_must_fit(convert: str, wrong: object) -> None:
    with pytest.raises(ValueError, match=rf"{convert}: values must be a tensor of shape \[E\] = \[5\]; got .*one head"):
        getattr(GRAPH, convert)(wrong)


# ---------------------------------------------------------------- networkx


@settings(deadline=None)
@given(graphs(square=True))
def test_networkx_there_and_back(graph: AttentionGraph) -> None:
    out = graph.to_networkx()
    assert type(out) is (networkx.DiGraph if graph.stats().num_duplicates == 0 else networkx.MultiDiGraph)
    back = AttentionGraph.from_networkx(out)
    assert back.size == graph.size
    assert pairs_of(back) == pairs_of(graph)
    if graph.relation is not None:
        expected = [(*pair, r) for pair, r in zip(graph.edge_index.t().tolist(), graph.relation.tolist(), strict=True)]
        assert sorted(out.edges(data="relation")) == sorted(expected)
        if graph.num_edges:
            assert back.num_relations == graph.num_relations
            found = zip(back.edge_index.t().tolist(), back.relation.tolist(), strict=True)
            assert sorted((*pair, r) for pair, r in found) == sorted(expected)


def test_networkx_relations_of_undirected_edges() -> None:
    graph = networkx.Graph()
    graph.add_edge(0, 1, relation=2)
    graph.add_edge(1, 1, relation=0)
    back = AttentionGraph.from_networkx(graph)
    assert back.edge_index.tolist() == [[0, 1, 1], [1, 1, 0]]
    assert back.relation.tolist() == [2, 0, 2]
    assert back.num_relations == 3


def test_networkx_needs_one_node_set() -> None:
    with pytest.raises(ValueError, match=r"to_networkx: graph must have as many keys as queries; got 5 and 3.*biadj"):
        GRAPH.to_networkx()
    remedy = networkx.bipartite.from_biadjacency_matrix(GRAPH.to_scipy(), create_using=networkx.MultiDiGraph)
    assert remedy.number_of_nodes() == 8


# ---------------------------------------------------------------- block masks


def dense_of(mask: object) -> torch.Tensor:
    """What the mask's function says of every place."""
    return create_mask(mask.mask_mod, 1, 1, *mask.seq_lengths, device="cpu")[0, 0]


def check_blocks(graph: AttentionGraph, block_size: int) -> None:
    mask = graph.to_block_mask(block_size)
    dense = graph.to_dense()
    assert torch.equal(dense_of(mask), dense)
    assert mask.seq_lengths == tuple(dense.shape)
    for row in range(mask.kv_num_blocks.shape[2]):
        listed = {"partial": set(), "full": set()}
        for name, numbers, indices in (
            ("partial", mask.kv_num_blocks, mask.kv_indices),
            ("full", mask.full_kv_num_blocks, mask.full_kv_indices),
        ):
            listed[name] = set(indices[0, 0, row, : numbers[0, 0, row]].tolist())
        for column in range(mask.kv_indices.shape[3]):
            rows, columns = (slice(i * block_size, (i + 1) * block_size) for i in (row, column))
            pairs = int(dense[rows, columns].sum())
            assert (column in listed["full"]) == (pairs == block_size**2)
            assert (column in listed["partial"]) == (0 < pairs < block_size**2)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 23), st.integers(1, 19), st.integers(0, 2**31), st.integers(1, 11), st.floats(0, 1))
def test_block_masks_hold_the_pairs(queries: int, keys: int, seed: int, block_size: int, share: float) -> None:
    torch.manual_seed(seed)
    check_blocks(AttentionGraph.from_dense(torch.rand(queries, keys) < share), block_size)


@pytest.mark.parametrize(
    ("pattern", "nodes"), [(Causal(), 33), (Full(), (32, 16)), (Window(3) | Global(1), [20, 13]), (Blocks(8), 40)]
)
def test_block_masks_of_patterns(pattern: object, nodes: object) -> None:
    check_blocks(pattern.on(nodes), 8)


def test_pairs_in_any_order_of_ids() -> None:
    check_blocks(AttentionGraph.from_edge_index(EDGES[:, :4].flip(1), size=(5, 3)), 2)


@pytest.mark.parametrize("name", [name for name, (size, _) in DEGENERATE_GRAPHS.items() if min(size) > 0])
def test_degenerate_block_masks(name: str) -> None:
    size, pairs = DEGENERATE_GRAPHS[name]
    check_blocks(
        AttentionGraph.from_edge_index(
            torch.tensor(sorted(set(pairs)), dtype=torch.int64).reshape(-1, 2).t(), size=size
        ),
        3,
    )


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_takes_the_mask() -> None:
    graph = (Window(9) | Global(2)).on([70, 59])
    query, key, value = (torch.randn(2, 3, 129, 8, dtype=torch.float64) for _ in range(3))
    out = flex_attention(query, key, value, block_mask=graph.to_block_mask(32))
    torch.testing.assert_close(out, scaled_dot_product_attention(query, key, value, attn_mask=graph.to_dense()))


def test_large_masks_take_no_square_memory() -> None:
    mask = Window(2).on(200_000).to_block_mask()  # N^2 bits would be five gigabytes
    assert int(mask.kv_num_blocks.sum()) == 3 * 1563 - 2
    assert not mask.full_kv_num_blocks.any()


def test_block_masks_of_runs_list_no_pairs_of_full_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Side) -> None:
        raise AssertionError("pairs were enumerated")

    monkeypatch.setattr(Side, "layout", property(refuse))
    mask = Full().on(100_000).to_block_mask(1000)  # ten billion pairs
    assert mask.full_kv_num_blocks.flatten().tolist() == [100] * 100
    mask = Causal().on(20_000).to_block_mask(1000)
    assert mask.kv_num_blocks.flatten().tolist() == [1] * 20


def test_block_masks_refuse_what_they_cannot_hold() -> None:
    with pytest.raises(ValueError, match=r"to_block_mask: graph must hold each pair once; got 1 that repeat another"):
        GRAPH.to_block_mask()
    with pytest.raises(
        ValueError, match=r"to_block_mask: graph must have queries and keys; got AttentionGraph\(0 nodes"
    ):
        Full().on(0).to_block_mask()
    with pytest.raises(ValueError, match=r"to_block_mask: block_size must be at least 1; got 0"):
        random_graph(3, 3, num_edges=2).to_block_mask(0)
