"""Content patterns against loops over single queries, and their laws."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pattern_cases import patterns
from torch_geometric.data import Batch, Data

from graphformer import AttentionGraph, attend
from graphformer.patterns import (
    Blocks,
    Causal,
    Clusters,
    Content,
    Edges,
    Full,
    Hash,
    Nearest,
    Pairs,
    TopK,
    Where,
    Window,
    fold_heads,
    unfold_heads,
)
from graphformer.patterns.content import clusters, top_k
from graphformer.patterns.content import hash as hash_file

H, D = 3, 5
MEMBERS = [Hash(4), Hash(6, rounds=3, seed=9), TopK(1), TopK(4), Clusters(3), Clusters(2, iterations=0, seed=5)]
ids = [repr(member) for member in MEMBERS]
NODES = {
    "one set": 11,
    "ragged": [7, 0, 1, 12, 3, 7],
    "bipartite": ([6, 2, 0, 9, 1], [3, 8, 2, 9, 0]),
    "nothing": 0,
    "empty sets": [0, 0],
}


def lengths(nodes):
    """[(keys, queries)] of each set."""
    keys, queries = nodes if isinstance(nodes, tuple) else (nodes, nodes)
    listed = [side if isinstance(side, list) else [side] for side in (keys, queries)]
    return list(zip(*listed, strict=True))


def vectors(nodes, heads=H, seed=0):
    """Queries [N, H, D] and keys [M, H, D] in float64."""
    generator = torch.Generator().manual_seed(seed)
    sizes = lengths(nodes)
    make = lambda side: torch.randn(  # noqa: E731
        sum(size[side] for size in sizes), heads, D, dtype=torch.float64, generator=generator
    )
    return make(1), make(0)


def dense(graph):
    """The graph as a boolean matrix, once it is seen to hold each pair once, in order."""
    key, query = graph.edge_index
    code = query * max(graph.num_keys, 1) + key
    assert bool((code[1:] > code[:-1]).all())
    out = torch.zeros(graph.num_queries, graph.num_keys, dtype=torch.bool)
    out[query, key] = True
    return out


def loop_hash(pattern, query, key, h, allowed):
    """Which of the directions and their opposites is nearest, one vector at a time."""
    generator = torch.Generator().manual_seed(pattern.seed)
    half = pattern.num_buckets // 2
    drawn = torch.randn(pattern.rounds, H, D, half, generator=generator).double()

    def bucket(x, turn):
        near = [float(x @ (sign * drawn[turn, h, :, b])) for sign in (1, -1) for b in range(half)]
        return near.index(max(near))

    turns = range(pattern.rounds)
    return [[any(bucket(q, r) == bucket(k, r) for r in turns) for k in key] for q in query]


def loop_top_k(pattern, query, key, h, allowed):
    rows = []
    for q, row in zip(query, allowed, strict=True):
        ranked = sorted((j for j in range(len(key)) if row[j]), key=lambda j: (-float(q @ key[j]), j))
        rows.append([j in ranked[: pattern.k] for j in range(len(key))])
    return rows


def loop_clusters(pattern, query, key, h, allowed):
    points = [x / x.norm() for x in (*query, *key)]
    if not (len(query) and len(key)):
        return [[False] * len(key) for _ in query]
    start = torch.randperm(len(points), generator=torch.Generator().manual_seed(pattern.seed)).tolist()
    centroids = [points[i] for i in start[: pattern.num_clusters]]

    def labels():
        return [max(range(len(centroids)), key=lambda c: (float(x @ centroids[c]), -c)) for x in points]

    for _ in range(pattern.iterations):
        label = labels()
        for c in range(len(centroids)):
            mine = [x for x, own in zip(points, label, strict=True) if own == c]
            centroids[c] = sum(mine) / sum(mine).norm() if mine else centroids[c]
    label = labels()
    return [[label[i] == label[len(query) + j] for j in range(len(key))] for i in range(len(query))]


LOOPS = {Hash: loop_hash, TopK: loop_top_k, Clusters: loop_clusters}


def loop(pattern, query, key, nodes, structured):
    """The mask [H * N, H * M] that a student would make."""
    num_queries, num_keys = len(query), len(key)
    out = torch.zeros(H, num_queries, H, num_keys, dtype=torch.bool)
    i = j = 0
    for m, n in lengths(nodes):
        for h in range(H):
            mine, theirs = query[i : i + n, h], key[j : j + m, h]
            allowed = structured.allows(torch.arange(n)[:, None], torch.arange(m), (m, n)).tolist()
            rows = LOOPS[type(pattern)](pattern, mine, theirs, h, allowed)
            for a in range(n):
                for b in range(m):
                    out[h, i + a, h, j + b] = rows[a][b] and allowed[a][b]
        i, j = i + n, j + m
    return out.view(H * num_queries, H * num_keys)


@pytest.mark.parametrize("nodes", NODES.values(), ids=NODES)
@pytest.mark.parametrize("structured", [Full(), Causal(), Window(1)], ids=repr)
@pytest.mark.parametrize("content", MEMBERS, ids=ids)
def test_is_the_loop_over_queries(content, structured, nodes):
    query, key = vectors(nodes)
    graph = content.select(query, key, nodes, None if structured == Full() else structured)
    assert graph.size == (H * len(key), H * len(query))
    assert torch.equal(dense(graph), loop(content, query, key, nodes, structured))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_is_the_loop_over_random_sets(data):
    number = st.integers(1, 5)
    seed = st.integers(-(2**63), 2**63 - 1)
    content = data.draw(
        st.one_of(
            st.builds(lambda half, rounds, seed: Hash(2 * half, rounds, seed), number, number, seed),
            st.builds(TopK, number),
            st.builds(Clusters, number, st.integers(0, 5), seed),
        )
    )
    sizes = data.draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=4))
    nodes = [m for m, _ in sizes], [n for _, n in sizes]
    structured = data.draw(patterns("bipartite"))
    query, key = vectors(nodes, seed=data.draw(st.integers(0, 99)))
    graph = content.select(query, key, nodes, structured)
    assert torch.equal(dense(graph), loop(content, query, key, nodes, structured))


@pytest.mark.parametrize("content", MEMBERS, ids=ids)
def test_small_chunks_choose_the_same(content, monkeypatch):
    query, key = vectors(NODES["ragged"])
    whole = content.select(query, key, NODES["ragged"], Causal())
    for module in (hash_file, top_k, clusters):
        monkeypatch.setattr(module, "_CHUNK", 7)
    assert content.select(query, key, NODES["ragged"], Causal()) == whole


@pytest.mark.parametrize("kind", ["ragged", "bipartite"])
@pytest.mark.parametrize("content", MEMBERS, ids=ids)
def test_a_batch_is_its_sets(content, kind):
    query, key = vectors(NODES[kind])
    batch = dense(content.select(query, key, NODES[kind])).view(H, len(query), H, len(key))
    i = j = 0
    for m, n in lengths(NODES[kind]):
        alone = dense(content.select(query[i : i + n], key[j : j + m], (m, n))).view(H, n, H, m)
        assert torch.equal(batch[:, i : i + n, :, j : j + m], alone)
        batch[:, i : i + n, :, j : j + m] = False
        i, j = i + n, j + m
    assert not bool(batch.any())


@pytest.mark.parametrize("structured", [None, Causal()], ids=repr)
@pytest.mark.parametrize("content", MEMBERS, ids=ids)
def test_attention_is_dense_attention_under_the_same_choice(content, structured):
    nodes = NODES["bipartite"]
    query, key = (x.requires_grad_() for x in vectors(nodes))
    value = torch.randn(len(key), H, 4, dtype=torch.float64, requires_grad=True)
    graph = content.select(query, key, nodes, structured)
    folded = [fold_heads(x) for x in (query, key, value)]
    ours = unfold_heads(attend(*folded, graph), H)

    mask = dense(graph).view(H, len(query), H, len(key)).diagonal(dim1=0, dim2=2)  # [N, M, H]
    score = torch.einsum("nhd,mhd->nmh", query, key) / math.sqrt(D)
    weight = score.masked_fill(~mask, -1e300).softmax(1) * mask  # so that a row without keys has no NaN
    theirs = torch.einsum("nmh,mhd->nhd", weight, value)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    pull = torch.randn_like(ours)
    leaves = (query, key, value)
    for mine, other in zip(
        torch.autograd.grad(ours, leaves, pull), torch.autograd.grad(theirs, leaves, pull), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)
        assert bool((mine != 0).any()) or content == TopK(1)  # the only key of a query has weight 1, whatever its score


@pytest.mark.parametrize("content", MEMBERS, ids=ids)
def test_one_node_and_constant_input(content):
    one = torch.ones(1, H, D)
    assert content.select(one, one, 1).degree.tolist() == [1] * H
    constant = torch.randn(1, H, D).expand(13, H, D)
    mask = dense(content.select(constant, constant, [9, 4])).view(H, 13, H, 13)
    expected = TopKMask(content.k) if isinstance(content, TopK) else Full()
    for h in range(H):
        assert torch.equal(mask[h, :, h], expected.allows(torch.arange(13)[:, None], torch.arange(13), [9, 4]))


@dataclass(frozen=True, repr=False)
class TopKMask(Full):
    """The first k of each set: what is left of a choice among equal scores."""

    k: int = 1

    def _allows(self, sets, query, key):
        return sets.local_key[key] < self.k


def test_ties_go_to_the_lower_id():
    """Small integers, whose products are exact, so that most scores are tied."""
    query, key = torch.randint(0, 2, (2, 40, H, D)).double().unbind(0)
    for k in (1, 3, 17, 39, 40, 50):
        graph = TopK(k).select(query, key, 40)
        assert torch.equal(dense(graph), loop(TopK(k), query, key, 40, Full()))


def test_scores_that_are_not_finite():
    key = torch.tensor([0.0, -torch.inf, 1.0, torch.nan, 1.0, 1.0]).view(6, 1, 1)
    query = torch.ones(1, 1, 1)
    chosen = [TopK(k).select(query, key, (6, 1)).edge_index[0].tolist() for k in (1, 2, 3, 5, 6)]
    assert chosen == [[3], [2, 3], [2, 3, 4], [0, 2, 3, 4, 5], [0, 2, 3, 4, 5]]


def test_top_k_of_fewer_keys_and_of_few_that_are_allowed():
    query, key = vectors([2, 6])
    degree = TopK(4).select(query, key, [2, 6]).degree.view(H, 8)
    assert degree.tolist() == [[2] * 2 + [4] * 6] * H
    degree = TopK(4).select(query, key, [2, 6], Causal()).degree.view(H, 8)
    assert degree.tolist() == [[1, 2, 1, 2, 3, 4, 4, 4]] * H


def test_queries_without_a_key_in_their_bucket_are_empty():
    query = torch.tensor([1.0, 1.0, -1.0]).view(3, 1, 1)
    key = torch.tensor([2.0, 3.0]).view(2, 1, 1)
    for content in (Hash(2), Clusters(5)):
        graph = content.select(query, key, (2, 3))
        assert graph.degree.tolist() == [2, 2, 0]
        assert attend(query, key, key, graph)[2] == 0


def test_hash_goes_by_angle():
    x = torch.randn(200, 1, 16)
    graph = Hash(8).select(x, x * torch.rand(200, 1, 1).add(0.1), 200)
    assert torch.equal(dense(graph), dense(Hash(8).select(x, x, 200)))
    near, far = (x + scale * torch.randn(200, 1, 16) for scale in (0.1, 2.0))
    shared = [int(dense(Hash(8).select(x, y, 200)).diagonal().sum()) for y in (near, far)]
    assert shared[0] > 170
    assert shared[1] < 120
    more = Hash(8, rounds=4).select(x, far, 200)
    assert bool((dense(Hash(8).select(x, far, 200)) <= dense(more)).any())
    assert int(dense(more).diagonal().sum()) > shared[1]


@pytest.mark.parametrize("make", [Hash, Clusters])
def test_seeds(make):
    query, key = vectors(50)
    graphs = [make(6, seed=seed).select(query, key, 50) for seed in (3, 3, 4, -(2**63), 2**63 - 1)]
    assert graphs[0] == graphs[1]
    assert graphs[0] != graphs[2]
    state = torch.get_rng_state()
    make(6).select(query, key, 50)
    assert torch.equal(state, torch.get_rng_state())


def test_clusters_find_what_is_there():
    centre = torch.eye(D)[[0, 1, 2]].repeat(20, 1)
    x = (centre + 0.05 * torch.randn(60, D))[:, None]
    mask = dense(Clusters(3, seed=2).select(x, x, 60))
    assert torch.equal(mask, (torch.arange(60)[:, None] - torch.arange(60)) % 3 == 0)


def test_centroids_without_members_stay():
    points = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, -1.0], [1.0, 0.0]]])
    centroids = torch.tensor([[[0.6, 0.8], [0.8, 0.6], [-1.0, 0.0]]]).expand(2, 3, 2)
    moved = clusters.follow_members(centroids, points, torch.tensor([[0, 1, 1], [1, 1, 0]]))
    assert moved[0].tolist() == [[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]]
    assert torch.equal(moved[1], torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]]))  # opposite members: no direction


def test_half_precision_chooses_as_float32():
    query, key = (x.bfloat16() for x in vectors(40))
    for content in MEMBERS:
        with torch.autocast("cpu", torch.bfloat16):
            graph = content.select(query, key, 40)
        assert graph == content.select(query.float(), key.float(), 40)


def test_patterns_that_read_the_nodes_limit_every_head():
    data = [Data(edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]), num_nodes=n) for n in (3, 5)]
    batch = Batch.from_data_list(data)
    query, key = vectors([3, 5])
    graph = TopK(2).select(query, key, batch, Edges() | Window(0))
    mask = (Edges() | Window(0)).allows(torch.arange(8)[:, None], torch.arange(8), batch)
    assert torch.equal(dense(graph), torch.block_diag(*[mask.int()] * H).bool())
    graph = Hash(2, rounds=8).select(query, query, batch, Blocks(2))
    assert set(map(tuple, (graph.edge_index % 8).t().tolist())) <= set(
        map(tuple, Blocks(2).on([3, 5]).edge_index.t().tolist())
    )


@pytest.mark.parametrize("content", MEMBERS, ids=ids)
def test_a_limit_is_lowered_and_a_formula_asked_about_few_pairs(content, monkeypatch):
    """The formulas of Nearest and Hops cost a look at a whole set for every pair."""
    asked = []

    def rule(query, key):
        asked.append(query.numel())
        return key <= query + 2

    data = Data(pos=torch.rand(90, 2, generator=torch.Generator().manual_seed(4)), num_nodes=90)
    query, key = vectors(90)
    expected = content.select(query, key, 90, Pairs(lambda n: (Window(2) & Nearest(5)).on(data).edge_index))
    monkeypatch.setattr(Nearest, "_allows", None)
    assert content.select(query, key, data, Window(2) & Nearest(5)) == expected
    assert content.select(query, key, data, Nearest(5) & Where(rule) & Window(2)) == expected
    assert 0 < sum(asked) <= 2 * 90 * 5
    if not isinstance(content, TopK):  # which ranks all keys that are allowed
        asked.clear()
        content.select(query, key, data, Where(rule))
        assert sum(asked) <= content.select(query, key, data).num_edges


def test_heads_fold_and_unfold():
    x = torch.randn(4, H, D)
    folded = fold_heads(x)
    assert folded.shape == (4 * H, 1, D)
    assert all(torch.equal(folded[h * 4 + i, 0], x[i, h]) for h in range(H) for i in range(4))
    assert torch.equal(unfold_heads(folded, H), x)
    assert unfold_heads(fold_heads(x[:0]), H).shape == (0, H, D)


def test_graphs_are_attention_graphs_by_query():
    query, key = vectors(20)
    graph = Hash(4, rounds=3).select(query, key, 20)
    assert graph == AttentionGraph.from_dense(dense(graph))
    assert graph.by_query.edge_id is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hash(5), "Hash: num_buckets must be even; got 5"),
        (lambda: Hash(0), "Hash: num_buckets must be at least 1; got 0"),
        (lambda: Hash(4, rounds=0), "Hash: rounds must be at least 1; got 0"),
        (lambda: Hash(4, seed=2**63), "Hash: seed must be a 64-bit integer"),
        (lambda: Hash(4, seed=1.0), "Hash: seed must be a 64-bit integer; got 1.0"),
        (lambda: TopK(0), "TopK: k must be at least 1; got 0"),
        (lambda: TopK(2.5), "TopK: k must be an integer; got 2.5"),
        (lambda: Clusters(True), "Clusters: num_clusters must be an integer; got True"),
        (lambda: Clusters(2, iterations=-1), "Clusters: iterations must not be negative; got -1"),
        (lambda: Clusters(2, seed=None), "Clusters: seed must be a 64-bit integer; got None"),
        (lambda: fold_heads(torch.ones(2, 3)), r"fold_heads: x must have shape \[N, H, D\]; got \[2, 3\]"),
        (lambda: unfold_heads(torch.ones(2, 3, 4), 2), r"unfold_heads: x must have shape \[H \* N, 1, D\]; got"),
        (lambda: fold_heads([1]), r"fold_heads: x must have shape \[N, H, D\]; got list"),
        (lambda: unfold_heads([1], 2), r"unfold_heads: x must have shape \[H \* N, 1, D\]; got list"),
        (lambda: unfold_heads(torch.ones(4, 1, 4), 2.0), "unfold_heads: heads must be an integer; got 2.0. Pass the H"),
        (lambda: unfold_heads(torch.ones(4, 1, 4), 0), "unfold_heads: heads must be at least 1; got 0"),
        (lambda: unfold_heads(torch.ones(7, 1, 4), 2), "unfold_heads: heads must divide the 7 rows of x; got 2"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


X = torch.ones(4, H, D)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[0], X, 4), r"TopK.select: query must have shape \[nodes, H, D\]; got \[3, 5\]"),
        ((X, None, 4), r"TopK.select: key must have shape \[nodes, H, D\]; got NoneType"),
        ((X[:, :0], X[:, :0], 4), r"TopK.select: query must have shape \[nodes, H, D\]; got \[4, 0, 5\]"),
        ((X.long(), X, 4), "TopK.select: query must be floating; got torch.int64"),
        ((X, X[:, :2], 4), r"TopK.select: key must have heads and width \[3, 5\] like query; got \[2, 5\]"),
        ((X, X.double(), 4), "TopK.select: key must have query's dtype torch.float32; got torch.float64"),
        ((X, X.to("meta"), 4), "TopK.select: key must be on cpu like query; got meta"),
        ((X, X, [2, 3]), r"TopK.select: nodes must count the \(keys, queries\) \(4, 4\) .* got \(5, 5\)"),
        ((X, X[:3], 4), r"TopK.select: nodes must count the \(keys, queries\) \(3, 4\) .* got \(4, 4\)"),
        ((X, X, "four"), "TopK.select: nodes must be a count"),
        ((X, X, 4, "Causal()"), "TopK.select: pattern must be a structured pattern or None; got 'Causal"),
    ],
)
def test_wrong_vectors(arguments, message):
    with pytest.raises(ValueError, match=message):
        TopK(2).select(*arguments)


def test_a_content_pattern_must_say_how_it_chooses():
    with pytest.raises(NotImplementedError, match="Content must define _pairs"):
        Content().select(X, X, 4)
    assert repr(Hash(4, 2)) == "Hash(num_buckets=4, rounds=2, seed=0)"
    assert Hash(4) == Hash(4)
    assert hash(Hash(4)) == hash(Hash(4))
