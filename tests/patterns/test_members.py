"""Each pattern against a plain formula on small sets, and what it refuses."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from pattern_cases import predicate
from torch_geometric.data import Data

from graphformer import GraphformerError
from graphformer._philox import uniform_below
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns import (
    Axial,
    Between,
    BigBird,
    Bipartite,
    Blocks,
    Causal,
    Clusters,
    Distance,
    Edges,
    EdgeType,
    Expander,
    Full,
    Global,
    Grid,
    Hash,
    Hops,
    Nearest,
    Offset2d,
    PairTerm,
    Pattern,
    Random,
    RunTerm,
    ShiftedWindows,
    ShortestPath,
    Strided,
    TopK,
    Tree,
    VirtualNode,
    Window,
    parse,
    sampled,
)


def dense(pattern, nodes):
    graph = pattern.on(nodes)
    mask = torch.zeros(graph.num_queries, graph.num_keys, dtype=torch.bool)
    mask[graph.edge_index[1], graph.edge_index[0]] = True
    return mask


def by_formula(rule, num_queries, num_keys):
    return torch.tensor([[rule(i, j) for j in range(num_keys)] for i in range(num_queries)])


def path(num_nodes):
    forth = torch.arange(num_nodes - 1)
    edge_index = torch.cat((torch.stack((forth, forth + 1)), torch.stack((forth + 1, forth))), 1)
    return Data(edge_index=edge_index, num_nodes=num_nodes)


FORMULAS = [
    (Full(), lambda i, j: True),
    (Causal(), lambda i, j: j <= i),
    (Window(0), lambda i, j: i == j),
    (Window(2), lambda i, j: abs(i - j) <= 2),
    (Window(left=3), lambda i, j: i - 3 <= j <= i),
    (Window(right=2), lambda i, j: i <= j <= i + 2),
    (Window(left=1, right=4), lambda i, j: i - 1 <= j <= i + 4),
    (Window(2, dilation=3), lambda i, j: j - i in (-6, -3, 0, 3, 6)),
    (Window(left=1, right=2, dilation=2), lambda i, j: j - i in (-2, 0, 2, 4)),
    (Window(2**31 - 1, dilation=2**31 - 1), lambda i, j: i == j),
    (Global(2), lambda i, j: i < 2 or j < 2),
    (Global(0), lambda i, j: False),
    (Blocks(3), lambda i, j: i // 3 == j // 3),
]


@pytest.mark.parametrize(("pattern", "rule"), FORMULAS, ids=lambda value: repr(value) if hasattr(value, "on") else "")
@pytest.mark.parametrize("nodes", [1, 8, (5, 9), (9, 4), (0, 3)], ids=str)
def test_formula(pattern, rule, nodes):
    num_keys, num_queries = nodes if isinstance(nodes, tuple) else (nodes, nodes)
    expected = by_formula(rule, num_queries, num_keys).view(num_queries, num_keys).bool()
    assert torch.equal(dense(pattern, nodes), expected)
    assert torch.equal(predicate(pattern, nodes), expected)


def test_causal_is_tril():
    assert torch.equal(dense(Causal(), 7), torch.ones(7, 7).tril().bool())


def test_a_window_is_clipped_at_the_borders_of_each_set():
    assert torch.equal(dense(Window(2), [3, 4]), torch.block_diag(dense(Window(2), 3), dense(Window(2), 4)).bool())
    assert bool(dense(Window(2), 7)[2, 3])
    assert not bool(dense(Window(2), [3, 4])[2, 3])


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_a_window_is_a_ball_on_a_path(radius):
    assert Window(radius).on(path(9)) == Hops(radius).on(path(9))


def test_a_million_rows_lower_to_a_million_runs():
    (term,) = Window(64).lower(1_000_000)
    assert isinstance(term, RunTerm)
    assert term.runs.start.numel() == 1_000_000
    assert Window(64).count(1_000_000) == 1_000_000 * 129 - 64 * 65


# ---------------------------------------------------------------- random


def floyd(seed, place, wanted, num_keys, num_queries):
    """Floyd's algorithm for one query, step by step."""
    chosen = set()
    for step in range(wanted):
        newest = num_keys - wanted + step
        counter = tuple(torch.tensor(word) for word in (place, step, num_keys, num_queries))
        pick = int(uniform_below(seed, counter, torch.tensor(newest + 1)))
        chosen.add(newest if pick in chosen else pick)
    return chosen


@pytest.mark.parametrize(("num_keys", "num_queries"), [(7, 7), (3, 5), (11, 4)])
def test_random_draws_by_floyds_algorithm(num_keys, num_queries):
    mask = dense(Random(5, seed=3), (num_keys, num_queries))
    assert torch.equal(predicate(Random(5, seed=3), (num_keys, num_queries)), mask)
    for place, row in enumerate(mask):
        assert set(row.nonzero().squeeze(1).tolist()) == floyd(3, place, min(5, num_keys), num_keys, num_queries)


@pytest.mark.parametrize("num_keys", [2, 40, 63, 64])
def test_random_draws_of_most_keys(num_keys, monkeypatch):
    """Of nearly all keys most picks are taken, by turns that gave way themselves."""
    expected = Random(num_keys, seed=8).on([64, 5, 0])
    for place, row in enumerate(dense(Random(num_keys, seed=8), 64)):
        assert set(row.nonzero().squeeze(1).tolist()) == floyd(8, place, num_keys, 64, 64)
    monkeypatch.setattr(sampled, "_CHUNK", 100)
    assert Random(num_keys, seed=8).on([64, 5, 0]) == expected


def test_random_gives_each_query_that_many_distinct_keys():
    assert Random(4).on([9, 2, 0, 5]).degree.tolist() == [4] * 9 + [2] * 2 + [4] * 5
    assert Random(4).on([9, 2, 0, 5]).stats().num_duplicates == 0


def test_random_is_uniform():
    hits = torch.bincount(Random(3, seed=5).on(1000).edge_index[0] // 100, minlength=10)
    expected = 300.0
    assert float(((hits - expected) ** 2 / expected).sum()) < 27.9  # chi-square, 9 degrees of freedom, p = 0.001
    pairs = dense(Random(3, seed=5), (6, 20_000)).float()
    together = pairs.t() @ pairs / 20_000
    assert torch.allclose(together, torch.full((6, 6), 0.2) + 0.3 * torch.eye(6), atol=0.015)


def test_random_depends_on_its_seed():
    assert Random(3, seed=1).on(50) != Random(3, seed=2).on(50)
    assert Random(3, seed=1).on(50) == Random(3, seed=1).on(50)


# ---------------------------------------------------------------- edges and hops


def example():
    #    0 -> 1 -> 2 -> 0, a loop on 3, 1 -> 2 again; 4 alone
    return Data(edge_index=torch.tensor([[0, 1, 2, 3, 1], [1, 2, 0, 3, 2]]), num_nodes=5)


def test_edges_keep_duplicates_and_know_their_place():
    graph = Edges().on(example())
    assert graph.edge_index.tolist() == [[2, 0, 1, 1, 3], [0, 1, 2, 2, 3]]
    assert graph.own_edge.tolist() == [2, 0, 1, 4, 3]
    assert graph.num_own_edges == 5


def test_self_loops_are_added_where_there_is_none():
    graph = Edges(self_loops=True).on(example())
    assert graph.edge_index.tolist() == [[0, 2, 0, 1, 1, 1, 2, 3, 4], [0, 0, 1, 1, 2, 2, 2, 3, 4]]
    assert graph.own_edge.tolist() == [-1, 2, 0, -1, 1, 4, -1, 3, -1]


@pytest.mark.parametrize("self_loops", [False, True])
def test_the_predicate_view_of_edges(self_loops):
    expected = torch.zeros(5, 5, dtype=torch.bool)
    expected[[1, 2, 0, 3], [0, 1, 2, 3]] = True
    expected |= torch.eye(5).bool() & self_loops
    assert torch.equal(predicate(Edges(self_loops=self_loops), example()), expected)
    assert torch.equal(dense(Edges(self_loops=self_loops), example()), expected)


def test_own_edges_follow_the_algebra():
    graph = (Global(1) | Edges()).on(example())
    assert graph.own_edge.tolist() == [
        -1,
        -1,
        -1,
        -1,
        -1,
        -1,
        -1,
        1,
        4,
        -1,
        3,
        -1,
    ]  # the first term's pairs stay its own
    assert isinstance((Edges() & Window(1)).lower(example())[0], PairTerm)
    assert Window(1).on(example()).own_edge is None


def distances(edge_index, num_nodes):
    """Breadth first from each key: the number of edges to each query."""
    out = torch.full((num_nodes, num_nodes), 10**6)
    for key in range(num_nodes):
        level, depth = {key}, 0
        while level:
            for node in level:
                out[node, key] = depth
            depth += 1
            reached = {int(q) for k, q in edge_index.t().tolist() if k in level}
            level = {node for node in reached if out[node, key] == 10**6}
    return out


@pytest.mark.parametrize("k", [0, 1, 2, 3, 50])
def test_hops_are_distances(k):
    generator = torch.Generator().manual_seed(k)
    edge_index = torch.randint(0, 30, (2, 40), generator=generator)
    expected = distances(edge_index, 30) <= k
    data = Data(edge_index=edge_index, num_nodes=30)
    assert torch.equal(dense(Hops(k), data), expected)
    assert torch.equal(predicate(Hops(k), data), expected)


def test_one_hop_is_the_edges_and_the_loops():
    assert torch.equal(dense(Hops(1), example()), dense(Edges(self_loops=True), example()))


def test_hops_in_chunks(monkeypatch):
    whole = Hops(3).on(path(40)), Hops(3).allows(torch.arange(40)[:, None], torch.arange(40), path(40))
    monkeypatch.setattr("graphformer.patterns.hops._CHUNK", 7)
    assert Hops(3).on(path(40)) == whole[0]
    assert torch.equal(Hops(3).allows(torch.arange(40)[:, None], torch.arange(40), path(40)), whole[1])


def test_hops_of_a_large_sparse_graph_stay_sparse():
    assert Hops(3).count(path(100_000)) == 100_000 * 7 - 12


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Window(),
            "Window: radius must be given, or else left and right, not both; got radius=None, left=None",
        ),
        (lambda: Window(1, left=2), "not both; got radius=1, left=2, right=None. For example"),
        (
            lambda: Window(-1),
            "Window: radius must be an integer, 0 or more and below 2.31; got -1. Pass a plain integer",
        ),
        (lambda: Window(left=-2), "Window: left must be an integer, 0 or more and below 2.31; got -2"),
        (lambda: Window(right=1.5), "Window: right must be an integer, 0 or more and below 2.31; got 1.5"),
        (lambda: Window(2, dilation=0), "Window: dilation must be an integer, 1 or more and below 2.31; got 0"),
        (lambda: Window(2**31), "Window: radius must be an integer, 0 or more and below 2.31; got 2147483648"),
        (lambda: Window(True), "Window: radius must be an integer.*got True"),
        (lambda: Window(np.True_), "Window: radius must be an integer.*got np.True_"),
        (lambda: Window(np.float64(2)), "Window: radius must be an integer.*got np.float64"),
        (lambda: Window(torch.tensor(2)), "Window: radius must be an integer.*got tensor"),
        (lambda: Random(2, seed=np.uint64(2**63)), "Random: seed must be a 64-bit integer"),
        (lambda: Grid(2, np.float64(2)), "Grid: shape must be integers, 0 or more; got"),
        (lambda: Global(-1), "Global: num_nodes must be an integer, 0 or more and below 2.31; got -1"),
        (lambda: Blocks(0), "Blocks: size must be an integer, 1 or more and below 2.31; got 0"),
        (lambda: Random(-1), "Random: num_keys must be an integer, 0 or more and below 2.31; got -1"),
        (lambda: Random(2, seed=2**63), "Random: seed must be a 64-bit integer; got 9223372036854775808"),
        (lambda: Random(2, seed="x"), "Random: seed must be a 64-bit integer; got 'x'"),
        (lambda: Hops(-1), "Hops: k must be an integer, 0 or more and below 2.31; got -1"),
        (lambda: Edges(1), "Edges: self_loops must be True or False; got 1"),
        (
            lambda: Bipartite().on(3),
            r"Bipartite\(\): nodes must be a tuple \(key nodes, query nodes\); got one node set",
        ),
        (lambda: Edges().on(3), r"Edges\(\): nodes must hold edge_index; got no edges. Pass PyG data that has edge"),
        (lambda: Hops(2).on([3, 4]), r"Hops\(k=2\): nodes must hold edge_index; got no edges"),
        (lambda: Edges().on((example(), 3)), r"Edges\(\): nodes must be one node set with edges; got a \(keys"),
        (lambda: Hops(1).allows(torch.tensor([0]), torch.tensor([0]), 3), "must hold edge_index"),
        (
            lambda: Full() and Causal(),
            r"Pattern: pattern must not be asked for its truth; got Full\(\). Write & for `and`",
        ),
        (lambda: not Window(1), r"asked for its truth; got Window\(radius=1\)"),
        (lambda: Full().allows([0], torch.tensor([1]), 3), "allows: query must be a tensor; got list. Convert"),
        (lambda: Full().allows(torch.tensor([0]), [1], 3), "allows: key must be a tensor; got list. Convert"),
        (
            lambda: Full().allows(torch.tensor([0, 1]), torch.tensor([0, 1, 2]), 3),
            r"allows: query and key must have shapes that broadcast; got \[2\] and \[3\]. Pass pairs",
        ),
    ],
    ids=str,
)
def test_refusals(make, message):
    with pytest.raises(GraphformerError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda n: Window(n(3)),
        lambda n: Window((n(1), 2), dilation=n(2), offset=(n(-1), n(0))),
        lambda n: Window(left=n(3), stride=n(2)),
        lambda n: Blocks(n(4), shift=n(2)),
        lambda n: ShiftedWindows((n(4), n(6))),
        lambda n: Axial(n(1)),
        lambda n: BigBird(n(1), n(2), n(3), seed=n(4)),
        lambda n: Expander(n(4), seed=n(5)),
        lambda n: Tree(up=n(1)),
        lambda n: Nearest(n(2)) & Hops(n(2)) - Strided(n(3)) | VirtualNode(n(2)),
        lambda n: Full().as_relation(n(2)),
        lambda n: Full().as_relation(Offset2d(n(1), n(2))) | Causal().as_relation(Distance(n(2))),
        lambda n: Full().as_relation(EdgeType(n(3))) | Causal().as_relation(ShortestPath(n(2))),
        lambda n: Hash(n(4), n(2), seed=n(3)),
        lambda n: TopK(n(4)),
        lambda n: Clusters(n(4), n(0), n(1)),
        lambda n: Grid(n(2), 3),
    ],
)
def test_integers_of_numpy_are_held_as_plain_ones(make):
    ours = make(int)
    for kind in (np.int64, np.int32):
        theirs = make(kind)
        assert theirs == ours
        assert repr(theirs) == repr(ours)
    if isinstance(ours, Pattern):
        assert parse(repr(theirs)) == ours


@dataclass(frozen=True, repr=False)
class Lowers(Pattern):
    kind: str

    def _lower(self, sets):
        place = torch.arange(sets.num_queries)
        runs = RunTerm(sets.runs(0, 1))
        explicit = PairTerm(place, place, torch.full_like(place, -1))
        return {"none": [], "bare": runs, "tuple": (runs,), "runs": [sets.runs(0, 1)], "pairs": [explicit]}[self.kind]

    def _allows(self, sets, query, key):
        return query == key


@pytest.mark.parametrize(
    "use",
    [
        lambda p: p.on(3),
        lambda p: p.lower([3, 4]),
        lambda p: p.count((3, 4)),
        lambda p: (~p).on(3),
        lambda p: (Full() & p).on(3),
        lambda p: (p - Full()).on(3),
        lambda p: (Full() | p).on(3),
        lambda p: p.on(3, within=Full().lower(3)[0].runs),
        lambda p: Between({("a", "a"): p}).on({"a": 3}),
        lambda p: TopK(1).select(torch.ones(3, 1, 1), torch.ones(3, 1, 1), 3, p),
    ],
)
def test_a_class_that_lowers_to_something_else_is_refused(use):
    rule = r"^Lowers.* _lower must give a list of at least one RunTerm or PairTerm; got {}. A pattern without"
    for kind, found in {"none": "0 entries", "bare": "RunTerm", "tuple": "tuple", "runs": "1 entries"}.items():
        with pytest.raises(GraphformerError, match=rule.format(found)):
            use(Lowers(kind))
    with pytest.raises(GraphformerError, match="give a PairTerm only for nodes that hold edge_index; got no edges"):
        use(Lowers("pairs"))


def test_pairs_of_a_class_may_be_none_of_the_edges():
    assert Lowers("pairs").on(example()).own_edge.tolist() == [-1] * example().num_nodes


def test_bipartite_is_full_on_pairs_of_sets():
    nodes = ([3, 0, 2], [1, 4, 5])
    assert Bipartite().on(nodes) == Full().on(nodes)
    assert Bipartite().on(nodes).size == (5, 10)


def test_terms_of_a_graph_without_nodes():
    graph = (Window(1) | Edges()).on(Data(edge_index=torch.empty(2, 0, dtype=torch.int64), num_nodes=0))
    assert graph.size == (0, 0)
    assert isinstance(Full().lower(0)[0].runs, KeyRuns)
