from __future__ import annotations

import copy
import io
import pickle
import re

import networkx
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric import EdgeIndex

import graphformer as gf
from graphformer import AttentionGraph
from graphformer._library import LIBRARY
from graphformer.graphs import side
from graphformer.graphs.layout import index_dtype
from graphformer.graphs.runs import KeyRuns
from graphformer.graphs.united import UnitedGraphs
from graphformer.testing import DEGENERATE_GRAPHS, random_graph

EDGES = torch.tensor([[3, 0, 4, 0, 3], [1, 0, 1, 2, 1]])  # five keys, three queries, (3, 1) twice


@st.composite
def pair_lists(draw: st.DrawFn) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    num_keys, num_queries = draw(st.integers(1, 7)), draw(st.integers(1, 6))
    pair = st.tuples(st.integers(0, num_keys - 1), st.integers(0, num_queries - 1))
    return (num_keys, num_queries), draw(st.lists(pair, max_size=20))


def build(size: tuple[int, int], pairs: list[tuple[int, int]]) -> AttentionGraph:
    return AttentionGraph.from_edge_index(torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t(), size=size)


@settings(deadline=None)
@given(pair_lists())
def test_layouts_hold_the_same_pairs(case: tuple[tuple[int, int], list[tuple[int, int]]]) -> None:
    size, pairs = case
    graph = build(size, pairs)
    assert graph.edge_index.t().tolist() == [list(pair) for pair in pairs]
    for layout, row, other in ((graph.by_query, 1, 0), (graph.by_key, 0, 1)):
        ptr, index, edge_id = layout
        assert ptr.tolist() == [0, *torch.tensor([sum(p[row] == i for p in pairs) for i in range(size[row])]).cumsum(0)]
        ids = list(range(len(pairs))) if edge_id is None else edge_id.tolist()
        assert [pairs[e][other] for e in ids] == index.tolist()
        assert ids == sorted(ids, key=lambda e: (pairs[e][row], pairs[e][other], e))


@settings(deadline=None)
@given(pair_lists())
def test_stats_count_what_is_there(case: tuple[tuple[int, int], list[tuple[int, int]]]) -> None:
    size, pairs = case
    stats = build(size, pairs).stats()
    assert stats.num_duplicates == len(pairs) - len(set(pairs))
    assert stats.num_empty_queries == size[1] - len({query for _, query in pairs})
    assert stats.num_unused_keys == size[0] - len({key for key, _ in pairs})
    assert stats.density == pytest.approx(len(pairs) / (size[0] * size[1]))


@pytest.mark.parametrize("name", DEGENERATE_GRAPHS)
def test_degenerate_graphs_can_be_made_and_told(name: str) -> None:
    graph = build(*DEGENERATE_GRAPHS[name])
    assert graph.size == DEGENERATE_GRAPHS[name][0]
    assert f"{graph.num_edges} edge" in repr(graph)
    assert graph.explain().count("\n") == 4
    assert pickle.loads(pickle.dumps(graph)) == graph


def test_repr() -> None:
    graph = AttentionGraph.from_edge_index(EDGES, size=(5, 3), relation=torch.tensor([0, 1, 0, 2, 0]))
    assert repr(graph) == (
        "AttentionGraph(5 keys, 3 queries, 5 edges, density 33.3%, 1 duplicate, 0 empty rows, 3 relations)"
    )


def test_indices_are_32_bit_while_they_fit() -> None:
    graph = AttentionGraph.from_edge_index(EDGES, size=(5, 3))
    assert graph.by_query.index.dtype == graph.by_query.edge_id.dtype == torch.int32
    assert graph.by_query.ptr.dtype == graph.edge_index.dtype == torch.int64
    assert index_dtype(2**31 - 1) == torch.int32
    assert index_dtype(2**31) == torch.int64
    huge = AttentionGraph.from_edge_index(torch.tensor([[2**31 + 5], [0]]), size=(2**31 + 6, 1))
    assert huge.by_query.index.tolist() == [2**31 + 5]


def test_it_cannot_be_changed_from_outside() -> None:
    edge_index = EDGES.clone()
    graph = AttentionGraph.from_edge_index(edge_index, size=(5, 3))
    edge_index.zero_()
    assert torch.equal(graph.edge_index, EDGES)
    relation = torch.arange(5, dtype=torch.int32)
    related = [
        AttentionGraph.from_edge_index(EDGES, size=(5, 3), relation=relation),
        AttentionGraph.from_csr(torch.tensor([0, 5]), EDGES[0], 5, relation=relation),
    ]
    relation.zero_()
    assert all(graph.relation.tolist() == [0, 1, 2, 3, 4] for graph in related)
    with pytest.raises(AttributeError):
        graph.edge_index = edge_index
    with pytest.raises(TypeError):
        hash(graph)


@pytest.mark.parametrize("change", ["order", "size", "relation", "own edges"])
def test_equality_sees_every_part(change: str) -> None:
    graph = AttentionGraph.from_edge_index(EDGES, size=(5, 3))
    others = {
        "order": lambda: AttentionGraph.from_edge_index(EDGES.flip(1), size=(5, 3)),
        "size": lambda: AttentionGraph.from_edge_index(EDGES, size=(6, 3)),
        "relation": lambda: AttentionGraph.from_edge_index(EDGES, size=(5, 3), relation=torch.zeros(5).long()),
        "own edges": lambda: AttentionGraph(graph.by_query, 5, own_edge=torch.zeros(5).long(), num_own_edges=1),
    }
    assert graph == AttentionGraph.from_edge_index(EDGES, size=(5, 3))
    assert graph != others[change]()
    assert graph != "a graph"


def test_copies() -> None:
    graph = random_graph(4, 5, num_edges=9, num_relations=3)
    _ = graph.by_key
    assert pickle.loads(pickle.dumps(graph)) == copy.deepcopy(graph) == graph
    file = io.BytesIO()
    torch.save(graph, file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == graph


@pytest.mark.skipif(LIBRARY is None, reason="the library is not built")
def test_what_was_prepared_travels() -> None:
    graph = AttentionGraph.from_dense(torch.ones(35, 33).bool())
    for empty in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert (empty._by_key, empty._by_query._tiles) == (None, None)
    assert graph.prepare() is graph
    assert None not in (graph.query_side._tiles, graph.key_side._tiles)
    file = io.BytesIO()
    torch.save(graph, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    for again in (loaded, copy.deepcopy(graph), pickle.loads(pickle.dumps(graph)), graph.share_memory_()):
        assert again == graph
        for mine, other in (
            (graph.by_key, again._by_key.layout),
            (graph.tiles_by_query, again._by_query._tiles[0]),
            (graph.tiles_by_key, again._by_key._tiles[0]),
        ):
            assert type(other) is type(mine)
            assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))
    moved = graph.to("meta")
    assert moved._by_key.ptr.device.type == "meta"
    assert moved._by_query._tiles is None
    assert moved.tiles_by_query is None


@pytest.mark.skipif(LIBRARY is None, reason="the library is not built")
def test_tiles_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = side.make_tiles
    monkeypatch.setattr(side, "make_tiles", lambda *args: made.append(args) or original(*args))
    for size, some in (((40, 36), True), ((3, 36), False)):  # three keys are too few to fill a window of 36 keys
        mask = torch.ones(size[1], size[0]).bool() if some else torch.eye(size[1], size[0]).bool()
        graph = AttentionGraph.from_dense(mask)
        made.clear()
        assert repr(graph)
        assert made == []
        for _ in range(2):
            assert (graph.tiles_by_query is not None) == (graph.tiles_by_key is not None) == some
        assert [args[1:] for args in made] == [size[::-1], size]
        assert pickle.loads(pickle.dumps(graph)).tiles_by_query is None or some
        assert len(made) == 2


@pytest.mark.skipif(LIBRARY is None, reason="the library is not built")
def test_stats_and_explain_tell_of_tiles() -> None:
    mask = torch.zeros(70, 50, dtype=torch.bool)
    mask[:32, :7] = True  # 32 * 7 pairs in 7 keys
    mask[:16, 7] = True  # 16 pairs in one more
    mask[40, 3] = True  # 1 pair of 32 places: too few
    graph = AttentionGraph.from_dense(mask)
    stats = graph.stats()
    assert (stats.num_windows, stats.num_tiled_windows, stats.tile_fill) == (3, 1, 240 / 256)
    assert stats.num_tile_bytes == 4 * 8 + 2 * 12
    assert stats.num_bytes == 71 * 8 + 241 * 4
    assert graph.explain().endswith(
        "\ntiles serve 1 of 3 windows of 32 queries (fill 93.8%), the others, filled below 20%, go row by row; 56 bytes"
    )
    _ = graph.by_key
    assert graph.stats().num_bytes == 71 * 8 + 241 * 4 + 51 * 8 + 2 * 241 * 4


def test_tiles_are_not_made_while_a_program_is_traced() -> None:
    seen = []

    def count(graph: AttentionGraph) -> torch.Tensor:
        seen.append(graph.tiles_by_query is not None)
        return graph.degree + 1

    graph = AttentionGraph.from_dense(torch.ones(35, 33).bool())
    compiled = torch.compile(count, backend="eager", fullgraph=True)
    assert compiled(graph).tolist() == [34] * 35
    assert graph._by_query._tiles is None


@pytest.mark.parametrize("ids", [[2, 0, 1, 1], [0, 2, 1, 1]])
def test_csr_rows_in_any_order(ids: list[int]) -> None:
    graph = AttentionGraph.from_csr(torch.tensor([0, 2, 2, 4]), torch.tensor(ids), 3)
    assert graph.edge_index.tolist() == [ids, [0, 0, 2, 2]]
    assert graph.by_query.index.tolist() == [0, 2, 1, 1]
    if ids[0] == 0:
        assert graph.by_query.edge_id is None
    else:
        assert graph.by_query.edge_id.tolist() == [1, 0, 2, 3]


def test_moving() -> None:
    graph = random_graph(4, 5, num_edges=9, num_relations=3)
    assert graph.to("cpu") is graph
    assert graph.to(device=torch.device("cpu"), non_blocking=True) is graph
    _ = graph.by_key
    moved = graph.to("meta")
    assert moved.device.type == moved.by_key.ptr.device.type == moved.relation.device.type == "meta"
    assert graph != moved
    assert graph.share_memory_() == graph
    owned = AttentionGraph(graph.by_query, 5, own_edge=torch.zeros(9).long(), num_own_edges=2).to("meta")
    assert owned.own_edge.device.type == "meta"
    assert owned.num_own_edges == 2


@pytest.mark.gpu
def test_moving_to_a_gpu() -> None:
    graph = random_graph(4, 5, num_edges=9, num_relations=3)
    assert graph.pin_memory().by_query.ptr.is_pinned()
    assert graph.cuda().device.type == "cuda"
    assert graph.cuda().cpu() == graph


# ------------------------------------------------------------------ conversions


def test_edge_index_of_pyg() -> None:
    plain = AttentionGraph.from_edge_index(EDGES, size=(5, 3))
    assert AttentionGraph.from_edge_index(EdgeIndex(EDGES, sparse_size=(5, 3))) == plain
    assert AttentionGraph.from_edge_index(EdgeIndex(EDGES), size=(5, 3)) == plain
    assert AttentionGraph.from_edge_index(EDGES.int()).size == (5, 5)


@pytest.mark.filterwarnings("ignore:Sparse CS[RC] tensor support is in beta:UserWarning")
@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_torch_sparse_is_a_transposed_adjacency(layout: str) -> None:
    """Rows are queries: the matrix is what PyG calls adj_t."""
    dense = torch.zeros(3, 5)
    dense[EDGES[1], EDGES[0]] = 1
    sparse = {"coo": dense.to_sparse, "csr": dense.to_sparse_csr, "csc": dense.to_sparse_csc}[layout]()
    assert AttentionGraph.from_edge_index(sparse) == AttentionGraph.from_dense(dense.bool())


def test_a_duplicate_entry_is_a_duplicate_edge() -> None:
    query, key, value = torch.tensor([1, 0, 1, 0]), torch.tensor([2, 1, 2, 0]), torch.ones(4)
    matrix = torch.sparse_coo_tensor(torch.stack((query, key)), value, (2, 3), check_invariants=True)
    assert AttentionGraph.from_edge_index(matrix).edge_index.tolist() == [[0, 1, 2, 2], [0, 0, 1, 1]]
    adjacency = scipy.sparse.coo_array((value.numpy(), (key.numpy(), query.numpy())), shape=(3, 2))
    assert AttentionGraph.from_scipy(adjacency).edge_index.tolist() == [key.tolist(), query.tolist()]


def test_sparse_tensor_is_a_transposed_adjacency() -> None:
    class SparseTensor:  # the face of torch_sparse.SparseTensor that is read
        def coo(self) -> tuple[torch.Tensor, torch.Tensor, None]:
            return torch.tensor([0, 2]), torch.tensor([4, 1]), None

        def sparse_sizes(self) -> tuple[int, int]:
            return 3, 5

    graph = AttentionGraph.from_edge_index(SparseTensor())
    assert graph.size == (5, 3)
    assert graph.edge_index.tolist() == [[4, 1], [0, 2]]


def test_scipy_rows_are_sources() -> None:
    matrix = scipy.sparse.csr_array(([1.0, 1.0], ([0, 4], [2, 1])), shape=(5, 3))
    graph = AttentionGraph.from_scipy(matrix)
    assert graph.size == (5, 3)
    assert graph.edge_index.tolist() == [[0, 4], [2, 1]]


def test_networkx() -> None:
    undirected = networkx.Graph([("a", "b"), ("b", "b")])
    assert sorted(AttentionGraph.from_networkx(undirected).edge_index.t().tolist()) == [[0, 1], [1, 0], [1, 1]]
    directed = networkx.MultiDiGraph([("a", "b"), ("a", "b")])
    assert AttentionGraph.from_networkx(directed).edge_index.tolist() == [[0, 0], [1, 1]]
    assert AttentionGraph.from_networkx(networkx.empty_graph(3)).size == (3, 3)


def test_dense_rows_are_queries() -> None:
    mask = torch.tensor([[True, False, True], [False, False, False]])
    graph = AttentionGraph.from_dense(mask)
    assert graph.size == (3, 2)
    assert graph.edge_index.tolist() == [[0, 2], [0, 0]]


def test_csr_is_copied() -> None:
    ptr, index = torch.tensor([0, 2, 2]), torch.tensor([1, 0])
    graph = AttentionGraph.from_csr(ptr, index, num_keys=2)
    ptr.zero_(), index.zero_()
    assert graph.edge_index.tolist() == [[1, 0], [0, 0]]


# ------------------------------------------------------------------ union


@settings(deadline=None)
@given(st.lists(pair_lists(), min_size=1, max_size=5))
def test_union_shifts_every_number(cases: list[tuple[tuple[int, int], list[tuple[int, int]]]]) -> None:
    expected: list[list[int]] = []
    keys = queries = 0
    for (num_keys, num_queries), pairs in cases:
        expected += [[key + keys, query + queries] for key, query in pairs]
        keys, queries = keys + num_keys, queries + num_queries
    union = AttentionGraph.union([build(*case) for case in cases])
    assert union.size == (keys, queries)
    assert union.edge_index.t().tolist() == expected
    assert union == AttentionGraph.from_edge_index(union.edge_index, size=union.size)


def test_union_keeps_relations_and_own_edges() -> None:
    base = AttentionGraph.from_csr(torch.tensor([0, 2]), torch.tensor([0, 1]), 2, relation=torch.tensor([1, 0]))
    graph = AttentionGraph(
        base.by_query, 2, relation=base.relation, num_relations=3, own_edge=torch.tensor([-1, 0]), num_own_edges=4
    )
    union = AttentionGraph.union([graph, graph])
    assert union.relation.tolist() == [1, 0, 1, 0]
    assert union.own_edge.tolist() == [-1, 0, -1, 4]
    assert (union.num_relations, union.num_own_edges) == (3, 8)


def test_a_union_has_the_relations_of_all() -> None:
    graphs = [random_graph(2, num_edges=3, num_relations=2), random_graph(3, num_edges=4, num_relations=3)]
    assert AttentionGraph.union(graphs).num_relations == AttentionGraph.union(graphs[::-1]).num_relations == 3


@settings(deadline=None)
@given(st.lists(pair_lists(), min_size=1, max_size=4), st.booleans())
def test_united_graphs_give_each_member_again(
    cases: list[tuple[tuple[int, int], list[tuple[int, int]]]], labelled: bool
) -> None:
    members = [build(*case) for case in cases]
    if labelled:
        members = [
            AttentionGraph(
                graph.by_query,
                graph.num_keys,
                relation=torch.arange(graph.num_edges, dtype=torch.int32),
                num_relations=graph.num_edges + 1,
                own_edge=torch.arange(graph.num_edges) - 1,
                num_own_edges=graph.num_edges + 2,
            )
            for graph in members
        ]
    united = UnitedGraphs.of(members)
    assert united.union == AttentionGraph.union(members)
    assert len(united) == len(members)
    assert list(united) == members == list(pickle.loads(pickle.dumps(united)))
    assert united[-1] == members[-1]
    for member, again in zip(members, united, strict=True):
        assert torch.equal(member.edge_index, again.edge_index)
        for name in ("by_query", "by_key"):
            mine, others = getattr(member, name), getattr(again, name)
            for tensor, other in zip(mine[:2], others[:2], strict=True):
                assert torch.equal(tensor, other)
                assert tensor.dtype == other.dtype
            if mine.edge_id is not None:
                assert mine.edge_id.dtype == others.edge_id.dtype
    with pytest.raises(IndexError):
        united[len(members)]


# ------------------------------------------------------------------ refusals

REFUSALS = {
    "type": (lambda: AttentionGraph.from_edge_index([[0], [1]]), "edge_index must be a tensor [2, E], a PyG EdgeIndex"),
    "shape": (
        lambda: AttentionGraph.from_edge_index(EDGES.t()),
        "edge_index must have shape [2, E]; got [5, 2]. Row 0",
    ),
    "dtype": (
        lambda: AttentionGraph.from_edge_index(EDGES.float()),
        "edge_index must have an integer dtype; got torch.fl",
    ),
    "too large": (
        lambda: AttentionGraph.from_edge_index(EDGES, num_nodes=4),
        "edge_index must hold ids in [0, 4); got 4 at edge 2. Correct",
    ),
    "too large for a side": (
        lambda: AttentionGraph.from_edge_index(EDGES, size=(5, 2)),
        "edge_index must hold ids in [0, 2); got 2 at edge 3.",
    ),
    "negative": (
        lambda: AttentionGraph.from_edge_index(torch.tensor([[0, -1], [1, 1]]), num_nodes=2),
        "edge_index must hold ids in [0, 2); got -1 at edge 1.",
    ),
    "both sizes": (
        lambda: AttentionGraph.from_edge_index(EDGES, 5, size=(5, 3)),
        "num_nodes and size must not both be",
    ),
    "size": (
        lambda: AttentionGraph.from_edge_index(EDGES, size=(5,)),
        "size must be two integers (num_keys, num_queries), 0 or more; got (5,). Name both",
    ),
    "num_nodes": (
        lambda: AttentionGraph.from_edge_index(EDGES, -1),
        "num_nodes must be an integer, 0 or more; got -1. Pass a count",
    ),
    "relation type": (
        lambda: AttentionGraph.from_edge_index(EDGES, relation=[0, 1, 0, 1, 0]),
        "relation must be a tensor; got list. Convert",
    ),
    "num_relations type": (
        lambda: AttentionGraph.from_edge_index(EDGES, relation=torch.zeros(5).long(), num_relations=2.5),
        "num_relations must be an integer, 0 or more; got 2.5. Pass",
    ),
    "relation shape": (
        lambda: AttentionGraph.from_edge_index(EDGES, relation=torch.zeros(4).long()),
        "relation must have shape [E] = [5]; got [4].",
    ),
    "relation dtype": (
        lambda: AttentionGraph.from_edge_index(EDGES, relation=torch.zeros(5)),
        "relation must have an integer dtype; got torch.float32.",
    ),
    "relation range": (
        lambda: AttentionGraph.from_edge_index(EDGES, relation=torch.arange(5), num_relations=4),
        "relation must lie in [0, 4); got 4.",
    ),
    "relations alone": (lambda: AttentionGraph.from_edge_index(EDGES, num_relations=4), "num_relations must come with"),
    "mask dtype": (lambda: AttentionGraph.from_dense(torch.ones(2, 2)), "mask must be boolean; got torch.float32."),
    "mask type": (lambda: AttentionGraph.from_dense([[True]]), "mask must be a tensor; got list. Convert"),
    "mask rank": (lambda: AttentionGraph.from_dense(torch.ones(2).bool()), "mask must have shape [N, M]; got [2]."),
    "csr offsets": (
        lambda: AttentionGraph.from_csr(torch.tensor([0, 2, 1]), torch.tensor([0]), 1),
        "query_ptr must rise from 0 to E = 1 without falling; got [0, 2, 1].",
    ),
    "csr offsets type": (
        lambda: AttentionGraph.from_csr([0, 1], torch.tensor([0]), 1),
        "query_ptr must be a tensor; got list. Convert",
    ),
    "csr keys type": (
        lambda: AttentionGraph.from_csr(torch.tensor([0, 1]), [0], 1),
        "key_index must be a tensor; got list. Convert",
    ),
    "csr count": (
        lambda: AttentionGraph.from_csr(torch.tensor([0, 1]), torch.tensor([0]), 1.5),
        "num_keys must be an integer, 0 or more; got 1.5. Pass",
    ),
    "csr keys": (
        lambda: AttentionGraph.from_csr(torch.tensor([0, 1]), torch.tensor([3]), 2),
        "key_index must lie in [0, 2); got 3.",
    ),
    "dense for scipy": (
        lambda: AttentionGraph.from_scipy(np.eye(2)),
        "matrix must be a scipy sparse matrix with two dimensions; got ndarray. Wrap",
    ),
    "scipy vector": (
        lambda: AttentionGraph.from_scipy(scipy.sparse.coo_array(np.ones(2))),
        "matrix must be a scipy sparse matrix with two dimensions; got coo_array. Wrap",
    ),
    "networkx relations": (
        lambda: AttentionGraph.from_networkx(networkx.DiGraph([(0, 1, {"relation": 1}), (1, 1)])),
        "relation must be an integer on every edge or on none; got ['NoneType', 'int']. Number the kinds",
    ),
    "networkx kinds": (
        lambda: AttentionGraph.from_networkx(networkx.DiGraph([(0, 1, {"relation": "likes"})])),
        "relation must be an integer on every edge or on none; got ['str']",
    ),
    "networkx": (lambda: AttentionGraph.from_networkx("x"), "graph must be a networkx graph; got str. Make"),
    "union of one": (
        lambda: AttentionGraph.union(random_graph(2, num_edges=1)),
        "graphs must be a list of graphs; got AttentionGraph. Put",
    ),
    "empty union": (lambda: AttentionGraph.union([]), "graphs must hold at least one graph; got none."),
    "mixed union": (
        lambda: AttentionGraph.union([random_graph(2, num_edges=1), random_graph(2, num_edges=1, num_relations=2)]),
        "graphs must all carry relation or none; got 1 of 2.",
    ),
    "strange union": (lambda: AttentionGraph.union([EDGES]), "graphs must hold attention graphs only; got Tensor."),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    make, message = REFUSALS[name]
    with pytest.raises(gf.GraphformerError, match=re.escape(message)):
        make()


@pytest.mark.parametrize("count", [3.0, "3", True, -1, torch.tensor(5)])
def test_a_count_is_an_integer(count: object) -> None:
    with pytest.raises(gf.GraphformerError, match=r"num_nodes must be an integer, 0 or more; got .*\. Pass"):
        AttentionGraph.from_edge_index(EDGES, count)


@pytest.mark.parametrize("size", [5, (5.0, 3.0), ("5", "3"), (5, True), (5, None), (5, 3, 1), "53", (-5, 3)])
def test_a_size_is_two_integers(size: object) -> None:
    with pytest.raises(
        gf.GraphformerError, match=r"size must be two integers \(num_keys, num_queries\), 0 or more; got .*N"
    ):
        AttentionGraph.from_edge_index(EDGES, size=size)


@pytest.mark.filterwarnings("ignore:Sparse (CSR|BSR) tensor support is in beta:UserWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(3).to_sparse(),
        lambda: torch.ones(2, 3, 4).to_sparse(),
        lambda: torch.ones(2, 3).to_sparse(1),
        lambda: torch.ones(2, 4).long().to_sparse_bsr((1, 2)),
        lambda: torch.ones(2, 3, 4).to_sparse_csr(dense_dim=1),
    ],
    ids=["vector", "cube", "hybrid", "blocks", "hybrid rows"],
)
def test_a_sparse_matrix_has_two_dimensions_of_scalars(make: object) -> None:
    with pytest.raises(
        gf.GraphformerError, match=r"edge_index must be a COO, CSR or CSC matrix of scalars .*; got .*Conv"
    ):
        AttentionGraph.from_edge_index(make())


def test_runs_carry_labels_through_a_union_and_count_once() -> None:
    rows = torch.arange(4)
    runs = KeyRuns.from_ranges(0 * rows, 0 * rows + 5, 6)
    graph = AttentionGraph(runs, 6, relation=torch.arange(20) % 3, num_relations=3)
    union = AttentionGraph.union([graph, graph])
    assert union.query_side.runs is not None
    assert union == AttentionGraph.union(
        [AttentionGraph(graph.by_query, 6, relation=graph.relation, num_relations=3)] * 2
    )
    first = graph.stats()
    assert (graph.stats(), first.num_unused_keys) == (first, 1)
    assert graph.to("meta").num_edges == 20


@pytest.mark.parametrize("kind", ["dense", "runs", "listed"])
def test_what_inference_mode_asks_for_first_serves_training(kind):
    n, x = 80, torch.randn(80, 2, 8)
    graph = {
        "dense": lambda: AttentionGraph.from_dense(torch.ones(n, n).bool()),
        "runs": lambda: gf.patterns.Window(3).on(n),
        "listed": lambda: AttentionGraph.from_edge_index(torch.randint(n, (2, 3 * n)), num_nodes=n),
    }[kind]()
    with torch.inference_mode():
        graph.prepare()
        assert graph.by_query.index.shape == graph.by_key.index.shape
    query = x.clone().requires_grad_()
    for backend in ("auto", "reference"):
        gf.attend(query, x, x, graph, backend=backend).sum().backward()
    assert query.grad is not None
