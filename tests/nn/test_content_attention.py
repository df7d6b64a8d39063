import copy
import io
import math

import pytest
import torch

from graphformer import attend
from graphformer.nn import ContentAttention, GraphAttention, LearnedClusters, SortedBlocks
from graphformer.patterns import Blocks, Causal, Clusters, Full, Hash, TopK, Window, fold_heads

pytestmark = pytest.mark.usefixtures("float64")

H, D, C, C_OUT = 3, 4, 5, 12
LENGTHS = [7, 0, 1, 12, 3, 7]
N = sum(LENGTHS)


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def contents():
    clusters = LearnedClusters(3, H, D)
    return [Hash(4, 2), TopK(3), Clusters(2), clusters, SortedBlocks(2, H, D), SortedBlocks(3, H, D, causal=True)]


names = ["Hash", "TopK", "Clusters", "LearnedClusters", "SortedBlocks", "causal SortedBlocks"]


# ---------------------------------------------------------------- the layer


@pytest.mark.parametrize("index", range(6), ids=names)
@pytest.mark.parametrize("pattern", [None, Causal()], ids=repr)
def test_layer_works_set_by_set_and_trains(index, pattern):
    layer = ContentAttention(C, C_OUT, H, content=contents()[index], pattern=pattern).eval()
    x = torch.randn(N, C, requires_grad=True)
    out = layer(x, LENGTHS)
    close(out, torch.cat([layer(part, len(part)) for part in x.split(LENGTHS)]))
    grads = torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])
    for (name, weight), grad in zip([("x", x), *layer.named_parameters()], grads, strict=True):
        assert grad.shape == weight.shape
        # A bias of the keys shifts all scores of a query alike, which a softmax does not see.
        assert bool((grad.abs() > 1e-12).any()) or name == "lin_key.bias", name


def test_layer_is_graph_attention_where_all_is_chosen():
    layer = ContentAttention((C, 3), C_OUT, H, content=TopK(100), pattern=Window(2))
    twin = GraphAttention((C, 3), C_OUT, H)
    twin.load_state_dict(layer.state_dict())
    x = torch.randn(6, C), torch.randn(9, 3)
    nodes = ([4, 2], [6, 3])
    close(layer(x, nodes), twin(x, Window(2).on(nodes)))


@pytest.mark.parametrize("index", [4, 5], ids=names[4:])
def test_gradients_are_those_of_the_numbers(index):
    layer = ContentAttention(C, C_OUT, H, content=contents()[index])
    x = torch.randn(9, C, requires_grad=True)
    weight = layer.content.weight

    def run(x, weight):
        return torch.func.functional_call(layer, {"content.weight": weight}, (x, [6, 3]))

    assert torch.autograd.gradcheck(run, (x, weight))


@pytest.mark.parametrize(
    "content", [Hash(4), TopK(3), SortedBlocks(3, H, D, causal=True)], ids=lambda c: type(c).__name__
)
def test_causal_layers_do_not_look_ahead(content):
    layer = ContentAttention(C, C_OUT, H, content=content.double() if hasattr(content, "double") else content)
    layer.pattern = Causal()
    x = torch.randn(14, C)
    out = layer(x, 14)
    for cut in range(1, 14):
        later = x.clone()
        later[cut:] = torch.randn(14 - cut, C) * 5
        close(layer(later, 14)[:cut], out[:cut])
        assert not torch.allclose(layer(later, 14)[cut:], out[cut:])


def test_sorted_blocks_look_ahead_unless_causal():
    """What the option is for: limiting the pairs alone leaves the matching to see what comes."""
    layer = ContentAttention(C, C_OUT, H, content=SortedBlocks(3, H, D), pattern=Causal())
    x = torch.randn(14, C)
    later = x.clone()
    later[7:] = torch.randn(7, C) * 5
    assert not torch.allclose(layer(later, 14)[:7], layer(x, 14)[:7])


def test_layer_dropout_and_copies():
    layer = ContentAttention(C, C_OUT, H, content=Hash(4), dropout=0.5)
    x = torch.randn(10, C)
    assert not torch.equal(layer(x, 10), layer(x, 10))
    layer.eval()
    assert torch.equal(layer(x, 10), copy.deepcopy(layer)(x, 10))
    assert repr(layer).splitlines()[1].strip() == "-1, 12, heads=3" or "content=Hash(num_buckets=4" in repr(layer)
    before = layer.lin_key.weight.clone()
    layer.reset_parameters()
    assert not torch.equal(before, layer.lin_key.weight)


def test_layer_takes_no_nodes_and_unknown_widths():
    layer = ContentAttention(-1, C_OUT, H, content=Hash(4))
    assert layer(torch.randn(4, 9), 4).shape == (4, C_OUT)
    assert layer(torch.randn(0, 9), 0).shape == (0, C_OUT)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ContentAttention(C, 13, H, content=Hash(4)), "out_channels must be a multiple of heads = 3; got 13"),
        (lambda: ContentAttention(0, 12, H, content=Hash(4)), "in_channels must be at least 1; got 0"),
        (lambda: ContentAttention(C, 12, 0, content=Hash(4)), "heads must be at least 1; got 0"),
        (lambda: ContentAttention(C, 0, H, content=Hash(4)), "out_channels must be at least 1; got 0"),
        (
            lambda: ContentAttention(C, 12, H, content=Full()),
            r"content must be a content pattern or a module; got Full",
        ),
        (
            lambda: ContentAttention(C, 12, H, content=Hash(4), pattern=4),
            "pattern must be a structured pattern or None",
        ),
        (lambda: ContentAttention(C, 12, H, content=Hash(4), dropout=1), r"dropout must lie in \[0, 1\); got 1"),
        (lambda: ContentAttention(C, 12, H, content=Hash(4), backend="gpu"), "backend must be one of auto"),
        (lambda: ContentAttention(C, 12, H, content=Hash(4))(torch.ones(4, C), 5), r"nodes must count .* \(4, 4\)"),
        (lambda: SortedBlocks(0, H, D), "SortedBlocks: block must be at least 1; got 0"),
        (lambda: SortedBlocks(2, H, D, iterations=0), "SortedBlocks: iterations must be at least 1; got 0"),
        (lambda: SortedBlocks(2, H, D, temperature=0), "SortedBlocks: temperature must be above 0 and finite; got 0"),
        (lambda: SortedBlocks(2, H, D, causal=1), "SortedBlocks: causal must be True or False; got 1"),
        (lambda: SortedBlocks(2, H, D)(torch.ones(4, 2, D), torch.ones(4, 2, D), 4), r"width \[3, 4\]; got \[2, 4\]"),
        (lambda: LearnedClusters(0, H, D), "LearnedClusters: num_clusters must be at least 1; got 0"),
        (lambda: LearnedClusters(2, H, D, decay=1), r"LearnedClusters: decay must lie in \[0, 1\); got 1"),
        (lambda: LearnedClusters(2, H, D)(torch.ones(4, H, 1), torch.ones(4, H, 1), 4), r"\[3, 4\]; got \[3, 1\]"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------- sorted blocks


def sinkhorn_loop(score, allowed, iterations, causal):
    """P from a matrix of scores, entry by entry."""
    size_a, size_b = score.shape
    p = [[math.exp(score[a, b]) if allowed(a, b) else 0.0 for b in range(size_b)] for a in range(size_a)]
    for _ in range(iterations):
        column = [
            [sum(p[r][b] for r in range(a + 1 if causal else size_a)) for b in range(size_b)] for a in range(size_a)
        ]
        p = [[p[a][b] / column[a][b] if p[a][b] else 0.0 for b in range(size_b)] for a in range(size_a)]
        p = [[x / sum(row) if x else 0.0 for x in row] for row in p]
    return p


def loop_blocks(module, query, key, m, n, h):
    """{(i, j): bias} of one set and head."""
    size, causal = module.block, module.causal
    cut = lambda x: [x[start : start + size] for start in range(0, len(x), size)]  # noqa: E731
    queries, keys = cut(query), cut(key)
    mine = [part.mean(0) for part in queries]
    if causal:
        mine = [query[: a * size].mean(0) if a else torch.zeros(D) for a in range(len(queries))]
    score = torch.zeros(len(queries), len(keys))
    for a in range(len(queries)):
        for b in range(len(keys)):
            score[a, b] = mine[a] @ module.weight[h] @ keys[b].mean(0) / (module.temperature * math.sqrt(D))
    allowed = (lambda a, b: b < a) if causal else (lambda a, b: b != a)
    p = sinkhorn_loop(score.detach(), allowed, module.iterations, causal)
    found = {}
    for i in range(n):
        a = i // size
        best = max(range(len(keys)), key=lambda b: (p[a][b], -b)) if keys and any(p[a]) else None
        for j in range(m):
            if j // size == a and (j <= i or not causal):
                found[i, j] = 0.0
            elif j // size == best:
                found[i, j] = math.log(p[a][best])
    return found


@pytest.mark.parametrize(
    "nodes", [LENGTHS, ([6, 2, 0, 9, 1], [3, 8, 2, 9, 0]), 0], ids=["ragged", "bipartite", "nothing"]
)
@pytest.mark.parametrize("causal", [False, True])
def test_sorted_blocks_are_the_loop(causal, nodes):
    keys, queries = nodes if isinstance(nodes, tuple) else (nodes, nodes)
    sizes = [(0, 0)] if nodes == 0 else list(zip(keys, queries, strict=True))
    query, key = (torch.randn(sum(size[side] for size in sizes), H, D) for side in (1, 0))
    module = SortedBlocks(2, H, D, causal=causal)
    torch.nn.init.normal_(module.weight)
    graph, bias = module(query, key, nodes)
    expected = {}
    i = j = 0
    for m, n in sizes:
        for h in range(H):
            for (a, b), value in loop_blocks(module, query[i : i + n, h], key[j : j + m, h], m, n, h).items():
                expected[h * len(query) + i + a, h * len(key) + j + b] = value
        i, j = i + n, j + m
    found = dict(zip(map(tuple, graph.edge_index.flip(0).t().tolist()), bias.tolist(), strict=True))
    assert list(found) == sorted(expected)
    close(torch.tensor(list(found.values())), torch.tensor([expected[pair] for pair in found]))


def test_sorted_blocks_follow_their_score():
    """Blocks 0 and 3 are alike, and so are 1 and 2: each matches its like; a map of -1 matches the unlike."""
    x = torch.zeros(8, 1, 2)
    x[[0, 1, 6, 7], 0, 0] = x[[2, 3, 4, 5], 0, 1] = 4.0
    module = SortedBlocks(2, heads=1, width=2)
    block = lambda graph: {(int(i) // 2, int(j) // 2) for j, i in graph.edge_index.t()}  # noqa: E731
    own = {(b, b) for b in range(4)}
    assert block(module(x, x, 8)[0]) == own | {(0, 3), (3, 0), (1, 2), (2, 1)}
    with torch.no_grad():
        module.weight.neg_()
    assert not block(module(x, x, 8)[0]) & {(0, 3), (3, 0), (1, 2), (2, 1)}


def test_sorted_blocks_of_constant_input_and_of_one_block():
    x = torch.ones(7, H, D)
    graph, bias = SortedBlocks(2, H, D)(x, x, [2, 5])
    assert graph.degree.view(H, 7).tolist() == [[2, 2, 4, 4, 4, 4, 3]] * H
    close(bias.exp().unique(), torch.tensor([0.5, 1.0]))
    assert graph.edge_index[:, graph.edge_index[1] == 2].tolist() == [[2, 3, 4, 5], [2, 2, 2, 2]]
    graph, bias = SortedBlocks(7, H, D)(x, x, 7)
    assert graph.num_edges == H * 49
    assert not bool(bias.any())


def test_sorted_blocks_keep_to_a_pattern():
    x = torch.randn(9, H, D)
    module = SortedBlocks(2, H, D)
    graph, bias = module(x, x, [6, 3], Blocks(2))
    assert torch.equal(graph.degree.view(H, 9), Blocks(2).on([6, 3]).degree.expand(H, -1))
    assert not bool(bias.any())
    graph, _ = SortedBlocks(2, H, D, causal=True)(x, x, [6, 3], Window(1))
    assert set((graph.edge_index[1] - graph.edge_index[0]).tolist()) == {0, 1}


def test_the_matching_is_trained():
    """W learns to send each block to the one that is rewarded; the choice itself has no gradient, its weight has."""
    x = torch.eye(4).repeat_interleave(3, 0)[:, None]  # block b holds the unit vector b
    reward = 2 * x.roll(3, 0) - 1 + x  # 1 for the block before, 0 for the block's own, -1 for the others
    module = SortedBlocks(3, heads=1, width=4)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.3)
    gained = []
    for _ in range(40):
        graph, bias = module(x, x, 12)
        out = attend(fold_heads(torch.zeros_like(x)), fold_heads(x), fold_heads(x), graph, bias=bias)
        gain = (out * reward).sum()
        optimizer.zero_grad()
        (-gain).backward()
        optimizer.step()
        gained.append(float(gain.detach()))
    assert gained[0] < 2
    assert gained[-1] > 5.9  # of 12 * 1/2: a query that weighs both blocks equally
    assert {(int(i) // 3 - int(j) // 3) % 4 for j, i in graph.edge_index.t()} == {0, 1}


# ---------------------------------------------------------------- learned clusters


def test_learned_clusters_are_the_loop():
    module = LearnedClusters(4, H, D).eval()
    query, key = torch.randn(9, H, D), torch.randn(7, H, D)
    graph, bias = module(query, key, ([4, 3], [3, 6]))
    assert bias is None
    found = set(map(tuple, graph.edge_index.flip(0).t().tolist()))
    query_set, key_set = [0] * 3 + [1] * 6, [0] * 4 + [1] * 3
    nearest = lambda x, h: int((module.centroids[h] @ x).argmax())  # noqa: E731
    assert found == {
        (h * 9 + i, h * 7 + j)
        for h in range(H)
        for i in range(9)
        for j in range(7)
        if query_set[i] == key_set[j] and nearest(query[i, h], h) == nearest(key[j, h], h)
    }


def test_learned_clusters_move_in_training_only():
    module = LearnedClusters(5, H, D, decay=0.75)
    before = module.centroids.clone()
    x = torch.randn(3, H, D, requires_grad=True)
    module.eval()(x, x, 3)
    assert torch.equal(module.centroids, before)
    module.train()(x, x, 3)
    for h in range(H):
        unit = x[:, h].detach() / x[:, h].detach().norm(dim=1, keepdim=True)
        label = (unit @ before[h].t()).argmax(1)
        for c in range(5):
            expected = before[h, c]
            if bool((label == c).any()):
                total = unit[label == c].sum(0)
                expected = 0.75 * expected + 0.25 * total / total.norm()
                expected = expected / expected.norm()
            close(module.centroids[h, c], expected)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_learned_clusters_learn_nothing_from_what_is_not_finite(bad):
    modules = [LearnedClusters(3, 2, 4, decay=0.5) for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    query, key = torch.randn(2, 9, 2, 4)
    query[5, 1, 2] = key[2, 0] = bad
    modules[0](query, key, 9)
    assert bool(modules[0].centroids.isfinite().all())
    assert not torch.equal(modules[0].centroids, modules[1].centroids)
    for head, keys, queries in ((0, [0, 1, *range(3, 9)], range(9)), (1, range(9), [0, 1, 2, 3, 4, 6, 7, 8])):
        alone = LearnedClusters(3, 1, 4, decay=0.5)
        alone.centroids.copy_(modules[1].centroids[head : head + 1])
        nodes = (len(list(keys)), len(list(queries)))
        alone(query[list(queries), head : head + 1], key[list(keys), head : head + 1], nodes)
        torch.testing.assert_close(alone.centroids[0], modules[0].centroids[head])


def test_learned_clusters_settle_on_what_is_there():
    centre = torch.eye(D)[:2].repeat(20, 1)
    module = LearnedClusters(2, heads=1, width=D, decay=0.5)
    module.centroids.copy_(torch.tensor([[0.5, -0.2, 1.0, 0.3], [-0.1, 0.4, -0.2, 1.0]]))
    for _ in range(20):
        x = (centre + 0.05 * torch.randn(40, D))[:, None]
        graph, _ = module(x, x, 40)
    assert graph.degree.tolist() == [20] * 40
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    twin = LearnedClusters(2, heads=1, width=D)
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(twin.centroids, module.centroids)
    module.reset_parameters()
    close(module.centroids.norm(dim=-1), torch.ones(1, 2))
