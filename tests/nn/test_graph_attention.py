import copy
import io
import pickle

import pytest
import torch
import torch._dynamo.testing
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer
from torch_geometric.nn import GATv2Conv, GPSConv, HeteroConv, TransformerConv, to_hetero

from graphformer import AttentionGraph, GraphformerError, attend
from graphformer.nn import GraphAttention
from graphformer.patterns import Edges, Full

N, M, C, C_OUT, H, F = 7, 5, 6, 12, 3, 4
OPTIONS = [{}, {"edge_dim": F}, {"score": "additive", "edge_dim": F}, {"normalizer": "sigmoid"}, {"normalizer": "relu"}]


def some_edges(num_sources=N, num_targets=N, num_edges=17, seed=0):
    """Random pairs, duplicates possible, that leave the last target without a key."""
    draw = torch.Generator().manual_seed(seed)
    source = torch.randint(0, num_sources, (num_edges,), generator=draw)
    target = torch.randint(0, num_targets - 1, (num_edges,), generator=draw)
    return torch.stack((source, target))


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture(autouse=True)
def float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def load_mha(layer, mha):
    """Copy torch.nn.MultiheadAttention's weights into a GraphAttention."""
    for name, weight, bias in zip(
        ("query", "key", "value"), mha.in_proj_weight.chunk(3), mha.in_proj_bias.chunk(3), strict=True
    ):
        linear = getattr(layer, f"lin_{name}")
        linear.load_state_dict({"weight": weight.detach().clone(), "bias": bias.detach().clone()})
    layer.lin_out.load_state_dict(mha.out_proj.state_dict())


@pytest.mark.parametrize("num_keys", [None, 4], ids=["self", "cross"])
def test_is_torch_multihead_attention_from_its_weights(num_keys):
    mha = torch.nn.MultiheadAttention(C_OUT, H, batch_first=True)
    torch.nn.init.normal_(mha.in_proj_bias)
    torch.nn.init.normal_(mha.out_proj.bias)
    layer = GraphAttention(C_OUT, C_OUT, heads=H)
    load_mha(layer, mha)
    target = torch.randn(N, C_OUT, requires_grad=True)
    source = target if num_keys is None else torch.randn(num_keys, C_OUT, requires_grad=True)
    mask = torch.rand(N, source.shape[0]) < 0.6
    mask[:, 0] = True  # torch gives NaN for a query without keys

    theirs = mha(target[None], source[None], source[None], attn_mask=~mask, need_weights=False)[0][0]
    x = target if num_keys is None else (source, target)
    ours = layer(x, AttentionGraph.from_dense(mask))
    close(ours, theirs)
    leaves = [target] if num_keys is None else [target, source]
    pull = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad(ours, [*leaves, layer.lin_value.weight], pull),
        torch.autograd.grad(theirs, [*leaves, mha.in_proj_weight], pull),
        strict=True,
    ):
        close(mine, other if other.shape == mine.shape else other.chunk(3)[2])


def as_convolution(layer, query, key, value, edge):
    """Give a layer the maps of a PyG convolution, which has no output projection."""
    for mine, theirs in ((layer.lin_query, query), (layer.lin_key, key), (layer.lin_value, value)):
        mine.load_state_dict(theirs.state_dict())
    torch.nn.init.eye_(layer.lin_out.weight)
    torch.nn.init.zeros_(layer.lin_out.bias)
    with torch.no_grad():
        layer.edge_key.copy_(edge.weight.t().view_as(layer.edge_key))


def test_is_transformer_conv_from_its_weights():
    conv = TransformerConv((C, M), C_OUT // H, heads=H, edge_dim=F, root_weight=False)
    layer = GraphAttention((C, M), C_OUT, heads=H, edge_dim=F)
    as_convolution(layer, conv.lin_query, conv.lin_key, conv.lin_value, conv.lin_edge)
    layer.edge_value.data.copy_(layer.edge_key)
    x, edge_index, edge_attr = (torch.randn(N, C), torch.randn(M, M)), some_edges(N, M), torch.randn(17, F)
    theirs, (_, their_alpha) = conv(x, edge_index, edge_attr, return_attention_weights=True)
    ours, (_, our_alpha) = layer(x, edge_index, edge_attr, return_attention_weights=True)
    close(ours, theirs)
    close(our_alpha, their_alpha)


def test_is_gatv2_conv_from_its_weights():
    conv = GATv2Conv((C, M), C_OUT // H, heads=H, edge_dim=F, add_self_loops=False)
    layer = GraphAttention((C, M), C_OUT, heads=H, edge_dim=F, score="additive")
    as_convolution(layer, conv.lin_r, conv.lin_l, conv.lin_l, conv.lin_edge)
    torch.nn.init.zeros_(layer.edge_value)
    layer.score_weight.data.copy_(conv.att[0])
    x, edge_index, edge_attr = (torch.randn(N, C), torch.randn(M, M)), some_edges(N, M), torch.randn(17, F)
    theirs, (_, their_alpha) = conv(x, edge_index, edge_attr, return_attention_weights=True)
    ours, (_, our_alpha) = layer(x, edge_index, edge_attr, return_attention_weights=True)
    close(ours, theirs)
    close(our_alpha, their_alpha)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_unfused_path_gives_the_same_numbers_and_gradients(options):
    layer = GraphAttention((C, M), C_OUT, heads=H, **options)
    x = (torch.randn(N, C, requires_grad=True), torch.randn(M, M, requires_grad=True))
    edge_index = some_edges(N, M)
    edge_attr = torch.randn(17, F, requires_grad=True) if "edge_dim" in options else None
    leaves = [*x, *layer.parameters(), *([] if edge_attr is None else [edge_attr])]
    fused = layer(x, edge_index, edge_attr)
    seen = []
    handle = layer.register_message_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    unfused = layer(x, edge_index, edge_attr)
    handle.remove()
    assert seen == [(17, H, C_OUT // H)]
    close(unfused, fused)
    pull = torch.randn_like(fused)
    for a, b in zip(torch.autograd.grad(fused, leaves, pull), torch.autograd.grad(unfused, leaves, pull), strict=True):
        close(a, b)


def test_unfused_path_routes_the_node_sets_own_edges():
    edge_index = torch.tensor([[0, 1, 2, 0], [1, 1, 0, 2]])
    plain = AttentionGraph.from_edge_index(edge_index, num_nodes=3)
    graph = AttentionGraph(plain.by_query, 3, own_edge=torch.tensor([1, -1, 0, -1]), num_own_edges=2)
    layer = GraphAttention(C, C_OUT, heads=H, edge_dim=F)
    x, edge_attr = torch.randn(3, C), torch.randn(2, F)
    spread = torch.stack((edge_attr[1], torch.zeros(F), edge_attr[0], torch.zeros(F)))
    expected = layer(x, plain, spread)
    close(layer(x, graph, edge_attr), expected)
    layer.register_propagate_forward_hook(lambda *_: None)
    close(layer(x, graph, edge_attr), expected)


def test_unfused_path_routes_the_edges_of_a_pattern():
    data = Data(edge_index=some_edges().unique(dim=1), num_nodes=N)
    graph = (Edges() | Full()).on(data)
    assert graph.num_edges == N * N > data.num_edges == graph.num_own_edges
    layer = GraphAttention(C, C_OUT, heads=H, edge_dim=F)
    x, edge_attr = torch.randn(N, C), torch.randn(data.num_edges, F)
    dense = torch.zeros(N, N, F)  # by (key, query): the features of the node set's edges, zeros elsewhere
    dense[data.edge_index[0], data.edge_index[1]] = edge_attr
    expected = layer(x, AttentionGraph.from_edge_index(graph.edge_index, num_nodes=N), dense[tuple(graph.edge_index)])
    close(layer(x, graph, edge_attr), expected)
    assert not torch.allclose(layer(x, graph, edge_attr.roll(1, 0)), expected)
    layer.register_propagate_forward_hook(lambda *_: None)
    close(layer(x, graph, edge_attr), expected)


@pytest.mark.parametrize("unfused", [False, True])
def test_edge_features_of_another_dtype_are_converted(unfused):
    layer = GraphAttention(C, C_OUT, heads=H, edge_dim=F)
    if unfused:
        layer.register_propagate_forward_hook(lambda *_: None)
    x, edge_index, edge_attr = torch.randn(N, C), some_edges(), torch.randn(17, F).float()
    close(layer(x, edge_index, edge_attr), layer(x, edge_index, edge_attr.double()))


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
def test_reads_every_adjacency(options):
    layer = GraphAttention(C, C_OUT, heads=H, **options)
    edge_index = some_edges().unique(dim=1).contiguous()
    x = torch.randn(N, C)
    edge_attr = torch.randn(edge_index.shape[1], F) if options else None
    expected = layer(x, edge_index, edge_attr)
    known = EdgeIndex(edge_index, sparse_size=(N, N))
    for graph in (
        AttentionGraph.from_edge_index(edge_index, num_nodes=N),
        edge_index.int(),
        known,
        EdgeIndex(edge_index),
    ):
        close(layer(x, graph, edge_attr), expected)
    by_row = edge_index[1].mul(N).add(edge_index[0]).argsort()  # the order of a transposed adjacency's entries
    adjacency = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(edge_index.shape[1]), (N, N)).coalesce()
    edge_attr = None if edge_attr is None else edge_attr[by_row]
    for graph in (adjacency, adjacency.to_sparse_csr(), adjacency.to_sparse_csc()):
        close(layer(x, graph, edge_attr), expected)


class SparseTensorLike:
    """The part of torch_sparse.SparseTensor that adjacencies are read by."""

    def __init__(self, row, col, sizes):
        self._coo, self._sizes = (row, col, None), sizes

    def coo(self):
        return self._coo

    def sparse_sizes(self):
        return self._sizes


def test_reads_a_sparse_tensor():
    layer = GraphAttention((C, M), C_OUT, heads=H)
    x = (torch.randn(N, C), torch.randn(M, M))
    edge_index = some_edges(N, M)
    close(layer(x, SparseTensorLike(edge_index[1], edge_index[0], (M, N))), layer(x, edge_index))


@pytest.mark.parametrize("explain", [False, True])
def test_target_to_source_flow_reverses_the_edges(explain):
    forward = GraphAttention((C, M), C_OUT, heads=H, edge_dim=F)
    backward = GraphAttention((C, M), C_OUT, heads=H, edge_dim=F, flow="target_to_source")
    backward.load_state_dict(forward.state_dict())
    if explain:
        backward.register_propagate_forward_hook(lambda *_: None)
    x = (torch.randn(N, C), torch.randn(M, M))
    edge_index, edge_attr = some_edges(N, M), torch.randn(17, F)
    out, (pairs, alpha) = forward(x, edge_index, edge_attr, size=(N, M), return_attention_weights=True)
    again, (pairs_again, alpha_again) = backward(
        x, edge_index.flip(0), edge_attr, size=(M, N), return_attention_weights=True
    )
    close(again, out)
    close(alpha_again, alpha)
    assert torch.equal(pairs_again, edge_index.flip(0))
    assert torch.equal(pairs, edge_index)


def test_an_edge_vector_is_one_feature():
    layer = GraphAttention(C, C_OUT, heads=H, edge_dim=1)
    x, edge_index, length = torch.randn(N, C), some_edges(), torch.rand(17)
    assert torch.equal(layer(x, edge_index, length), layer(x, edge_index, length[:, None]))


def test_attention_weights_belong_to_the_edges():
    layer = GraphAttention(C, C_OUT, heads=H, dropout=0.5)
    x, edge_index = torch.randn(N, C), some_edges()
    out, (pairs, alpha) = layer(x, edge_index, return_attention_weights=True)
    assert torch.equal(pairs, edge_index)
    assert alpha.shape == (17, H)
    assert bool((alpha >= 0).all())
    assert bool((alpha > 0).all())  # before dropout
    total = torch.zeros(N, H).index_add(0, pairs[1], alpha)
    close(total, (torch.bincount(pairs[1], minlength=N) > 0).to(total.dtype)[:, None].expand(-1, H))
    layer.eval()
    close(layer(x, edge_index, return_attention_weights=True)[0], layer(x, edge_index))
    assert isinstance(layer(x, edge_index, return_attention_weights=False), torch.Tensor)


def test_a_node_without_in_edges_gets_the_bias_and_empty_edge_sets_work():
    layer = GraphAttention(C, C_OUT, heads=H, edge_dim=F)
    x, edge_index = torch.randn(N, C, requires_grad=True), some_edges()
    close(layer(x, edge_index, torch.randn(17, F))[-1], layer.lin_out.bias)
    nothing = torch.empty(2, 0, dtype=torch.int64)
    for explain in (False, True):
        out = layer(x, nothing, torch.empty(0, F))
        close(out, layer.lin_out.bias.expand(N, -1))
        close(torch.autograd.grad(out.sum(), x)[0], torch.zeros_like(x))
        if not explain:
            layer.register_propagate_forward_hook(lambda *_: None)
    assert layer(x[:0], nothing, torch.empty(0, F)).shape == (0, C_OUT)


def test_permuting_nodes_permutes_the_output_and_the_edge_order_does_not_matter():
    layer = GraphAttention(C, C_OUT, heads=H, edge_dim=F)
    x, edge_index, edge_attr = torch.randn(N, C), some_edges(), torch.randn(17, F)
    out = layer(x, edge_index, edge_attr)
    order = torch.randperm(N)
    place = order.argsort()  # where each node goes
    close(layer(x[order], place[edge_index], edge_attr), out[order])
    shuffle = torch.randperm(17)
    close(layer(x, edge_index[:, shuffle], edge_attr[shuffle]), out)
    with pytest.raises(AssertionError):
        close(layer(x, edge_index, edge_attr[shuffle]), out)


def test_a_batch_is_its_graphs():
    layer = GraphAttention(C, C_OUT, heads=H)
    graphs = [AttentionGraph.from_edge_index(some_edges(n, n, 2 * n, seed=n), num_nodes=n) for n in (3, 1 + 1, 6)]
    parts = [torch.randn(graph.num_keys, C) for graph in graphs]
    together = layer(torch.cat(parts), AttentionGraph.union(graphs))
    close(together, torch.cat([layer(x, graph) for x, graph in zip(parts, graphs, strict=True)]))


def test_a_relation_shifts_the_score():
    edge_index = torch.tensor([[0, 1, 2, 0], [1, 1, 1, 2]])
    graph = AttentionGraph.from_edge_index(edge_index, num_nodes=3, relation=torch.tensor([0, 1, 1, 0]))
    layer = GraphAttention(C, C_OUT, heads=H, num_relations=5)
    x = torch.randn(3, C)
    with torch.no_grad():
        layer.relation_bias[1] = 40.0
        alpha = layer(x, graph, return_attention_weights=True)[1][1]
    assert float(alpha[0].max()) < 1e-6  # relation 0 loses to relation 1 in the same row
    close(alpha[3], torch.ones(H))


def test_lazy_widths_are_taken_from_the_first_input():
    layer = GraphAttention((-1, -1), C_OUT, heads=H)
    empty = copy.deepcopy(layer)
    out = layer((torch.randn(N, C), torch.randn(M, 2)), some_edges(N, M))
    assert out.shape == (M, C_OUT)
    assert layer.lin_key.weight.shape == (C_OUT, C)
    assert layer.lin_query.weight.shape == (C_OUT, 2)
    empty.load_state_dict(layer.state_dict())
    close(empty.lin_key.weight, layer.lin_key.weight)


def test_state_travels_and_nothing_is_left_behind():
    layer = GraphAttention(C, C_OUT, heads=H, edge_dim=F, num_relations=2, score="additive")
    edge_index, edge_attr = some_edges(), torch.randn(17, F)
    graph = AttentionGraph.from_edge_index(edge_index, num_nodes=N, relation=torch.arange(17) % 2)
    x = torch.randn(N, C)
    before = set(layer.__dict__)
    out = layer(x, graph, edge_attr, return_attention_weights=True)[0]
    assert set(layer.__dict__) == before
    assert not any(isinstance(value, torch.Tensor) for value in layer.__dict__.values())
    fresh = GraphAttention(C, C_OUT, heads=H, edge_dim=F, num_relations=2, score="additive")
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    for other in (fresh, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        close(other(x, graph, edge_attr), out)
    torch.manual_seed(3)
    fresh.reset_parameters()
    changed = fresh(x, graph, edge_attr)
    assert not torch.allclose(changed, out)
    torch.manual_seed(3)
    fresh.reset_parameters()
    close(fresh(x, graph, edge_attr), changed)


@pytest.mark.parametrize("unfused", [False, True])
def test_heads_may_have_a_width_of_their_own(unfused):
    layer = GraphAttention(C, 5, heads=H, head_channels=7, edge_dim=2)
    graph = AttentionGraph.from_dense(torch.rand(N, N) < 0.5)
    x, edge_attr = torch.randn(N, C), torch.randn(graph.num_edges, 2)
    assert layer.head_channels == 7
    assert layer.lin_key.weight.shape == layer.lin_query.weight.shape == (7 * H, C)
    query, key, value = (lin(x).view(N, H, 7) for lin in (layer.lin_query, layer.lin_key, layer.lin_value))
    terms = {"edge_attr": edge_attr, "edge_key": layer.edge_key, "edge_value": layer.edge_value}
    expected = layer.lin_out(attend(query, key, value, graph, **terms).flatten(1))
    if unfused:
        layer.register_message_forward_hook(lambda *_: None)
    close(layer(x, graph, edge_attr), expected)
    assert expected.shape == (N, 5)


def test_repr_names_widths_and_heads():
    assert repr(GraphAttention(16, 32, heads=8)) == "GraphAttention(16, 32, heads=8)"
    assert repr(GraphAttention((16, 4), 32)) == "GraphAttention((16, 4), 32, heads=8)"


@pytest.mark.parametrize("unfused", [False, True])
def test_dropout_acts_in_training_only(unfused):
    layer = GraphAttention(C, C_OUT, heads=H, dropout=0.5)
    without = GraphAttention(C, C_OUT, heads=H)
    without.load_state_dict(layer.state_dict())
    if unfused:
        layer.register_propagate_forward_hook(lambda *_: None)
    x, edge_index = torch.randn(N, C), some_edges()
    assert not torch.allclose(layer(x, edge_index), layer(x, edge_index))
    layer.eval()
    close(layer(x, edge_index), without(x, edge_index))


def test_gradients_are_right():
    layer = GraphAttention(3, 4, heads=2, edge_dim=2)
    x = torch.randn(4, 3, requires_grad=True)
    edge_attr = torch.randn(6, 2, requires_grad=True)
    edge_index = some_edges(4, 4, 6)
    assert torch.autograd.gradcheck(lambda x, edge_attr: layer(x, edge_index, edge_attr), (x, edge_attr))


class Net(torch.nn.Module):
    def __init__(self, edge_dim=None):
        super().__init__()
        self.first = GraphAttention(C, C_OUT, heads=H, edge_dim=edge_dim)
        self.second = GraphAttention(C_OUT, 2, heads=1)

    def forward(self, x, edge_index, edge_attr=None):
        return self.second(self.first(x, edge_index, edge_attr).relu(), edge_index)


def explain(algorithm, model, x, edge_index, **kwargs):
    explainer = Explainer(
        model,
        algorithm,
        explanation_type="model",
        edge_mask_type="object",
        node_mask_type=None,
        model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"},
    )
    return explainer(x, edge_index, **kwargs)


def test_attention_explainer_reads_the_weights():
    model, x, edge_index = Net().eval(), torch.randn(N, C), some_edges()
    edge_mask = explain(AttentionExplainer(), model, x, edge_index).edge_mask
    first, (_, alpha_first) = model.first(x, edge_index, return_attention_weights=True)
    _, (_, alpha_second) = model.second(first.relu(), edge_index, return_attention_weights=True)
    close(edge_mask, torch.maximum(alpha_first.amax(1), alpha_second.amax(1)))
    assert not model.first._has_hooks()


def test_gnn_explainer_learns_an_edge_mask():
    model, x, edge_index = Net(edge_dim=F).eval(), torch.randn(N, C), some_edges()
    edge_attr = torch.randn(17, F)
    before = model(x, edge_index, edge_attr)
    explanation = explain(GNNExplainer(epochs=5), model, x, edge_index, edge_attr=edge_attr)
    assert explanation.edge_mask.shape == (17,)
    assert float(explanation.edge_mask.detach().std()) > 0
    close(model(x, edge_index, edge_attr), before)
    assert model.first.explain is None  # the explainer leaves the fused path on


def test_runs_in_a_heterogeneous_convolution():
    widths = {"paper": C, "author": M}
    edges = {("paper", "by", "author"): some_edges(N, 4), ("author", "of", "paper"): some_edges(4, N)}
    layers = {kind: GraphAttention((widths[kind[0]], widths[kind[2]]), C_OUT, heads=H) for kind in edges}
    x = {"paper": torch.randn(N, C), "author": torch.randn(4, M)}
    out = HeteroConv(layers)(x, edges)
    for kind, layer in layers.items():
        close(out[kind[2]], layer((x[kind[0]], x[kind[2]]), edges[kind]))


def test_runs_in_gps_and_in_to_hetero():
    x, edge_index = torch.randn(N, C), some_edges()
    gps = GPSConv(C, GraphAttention(C, C, heads=H), heads=2)
    assert gps(x, edge_index).shape == (N, C)
    metadata = (["a", "b"], [("a", "to", "b"), ("b", "to", "a")])

    class Lazy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GraphAttention((-1, -1), C_OUT, heads=H)

        def forward(self, x, edge_index):
            return self.conv(x, edge_index)

    model = to_hetero(Lazy(), metadata)
    edges = {metadata[1][0]: some_edges(N, 4), metadata[1][1]: some_edges(4, N)}
    out = model({"a": x, "b": torch.randn(4, M)}, edges)
    assert {kind: part.shape for kind, part in out.items()} == {"a": (N, C_OUT), "b": (4, C_OUT)}


@pytest.mark.parametrize("given", ["edge_index", "graph"])
def test_compiled_equals_eager(given):
    torch._dynamo.reset()
    layer = GraphAttention(C, C_OUT, heads=H, edge_dim=F)
    counter, programs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager"), []
    compiled = torch.compile(layer, backend=counter, fullgraph=True, dynamic=True)
    for num_nodes, num_edges in ((N, 17), (9, 23), (12, 41)):
        x = torch.randn(num_nodes, C, requires_grad=True)
        graph = some_edges(num_nodes, num_nodes, num_edges)
        if given == "graph":
            graph = AttentionGraph.from_edge_index(graph, num_nodes=num_nodes)
        edge_attr = torch.randn(num_edges, F)
        eager, traced = layer(x, graph, edge_attr), compiled(x, graph, edge_attr)
        close(traced, eager)
        close(*(torch.autograd.grad(out.square().sum(), x)[0] for out in (traced, eager)))
        programs.append(counter.frame_count)
    assert programs[0] == programs[-1], "a new size made a new program"


def test_autocast_runs_in_bfloat16():
    layer = GraphAttention(C, C_OUT, heads=H, edge_dim=F, num_relations=3).float()
    x, edge_attr = torch.randn(N, C, dtype=torch.float32), torch.randn(17, F, dtype=torch.float32)
    graph = AttentionGraph.from_edge_index(some_edges(), num_nodes=N, relation=torch.arange(17) % 3)
    exact = layer(x, graph, edge_attr)
    for unfused in (False, True):
        if unfused:
            layer.register_propagate_forward_hook(lambda *_: None)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = layer(x, graph, edge_attr)
        assert out.dtype == torch.bfloat16
        close(out.float(), exact, 0.05)
        out.sum().backward()
        assert layer.edge_key.grad.dtype == torch.float32


ERRORS = [
    ({"out_channels": 10}, "out_channels must be a positive multiple of heads = 3; got 10"),
    ({"heads": 0}, "heads must be at least 1; got 0"),
    ({"edge_dim": 0}, "edge_dim must be at least 1; got 0"),
    ({"num_relations": -1}, "num_relations must be at least 1; got -1"),
    ({"dropout": 1.0}, r"dropout must lie in \[0, 1\); got 1.0"),
    ({"score": "dott"}, "score must be one of dot, additive; got 'dott'. Did you mean dot?"),
    ({"normalizer": "max"}, "normalizer must be one of softmax, relu, sigmoid; got 'max'"),
    ({"heads": 4.0}, "heads must be an integer; got 4.0"),
    ({"heads": "4"}, "heads must be an integer; got '4'"),
    ({"out_channels": 12.0}, "out_channels must be an integer; got 12.0"),
    ({"out_channels": 0}, "out_channels must be at least 1; got 0"),
    ({"edge_dim": 1.5}, "edge_dim must be an integer; got 1.5"),
    ({"head_channels": 0}, "head_channels must be at least 1; got 0. Pass None for out_channels / heads"),
    ({"dropout": "0.1"}, r"dropout must lie in \[0, 1\); got '0.1'"),
    ({"in_channels": 0}, "in_channels must be a width or a pair of widths .*, each at least 1, or -1; got 0"),
    ({"in_channels": -2}, "in_channels must be a width or a pair .*; got -2. -1 takes the width from"),
    ({"in_channels": "64"}, "in_channels must be a width or a pair .*; got '64'"),
    ({"in_channels": 6.0}, "in_channels must be a width or a pair .*; got 6.0"),
    ({"in_channels": (6, 5, 4)}, r"in_channels must be a width or a pair .*; got \(6, 5, 4\)"),
    ({"in_channels": (6, 0)}, r"in_channels must be a width or a pair .*; got \(6, 0\)"),
    ({"backend": "refrence"}, "backend must be one of auto, .*; got 'refrence'. Did you mean reference?"),
    ({"flow": "up"}, "flow must be one of source_to_target, target_to_source; got 'up'"),
]


@pytest.mark.parametrize(("options", "message"), ERRORS, ids=lambda value: str(value)[:30])
def test_refuses_bad_options(options, message):
    with pytest.raises(GraphformerError, match=message):
        GraphAttention(**{"in_channels": C, "out_channels": C_OUT, "heads": H, **options})


def ones(*shape):
    return torch.ones(shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("in_channels", "x", "message"),
    [
        (C, ones(N, 4), r"x must have shape \[N, 6\] where in_channels = 6; got \[7, 4\]"),
        (C, ones(C), r"x must have shape \[N, 6\] where in_channels = 6; got \[6\]"),
        (C, ones(2, N, C), r"x must have shape \[N, 6\] where in_channels = 6; got \[2, 7, 6\]"),
        (-1, ones(2, N, C), r"x must have shape \[N, C\] where in_channels = -1; got \[2, 7, 6\]"),
        ((C, M), ones(N, C), r"x must have shape \[N, 5\] where in_channels = \(6, 5\); got \[7, 6\]"),
        ((C, M), (ones(N, C), ones(N, C)), r"x must have shape \[N, 5\] where in_channels = .* \[7, 6\]"),
        (C, None, r"x must be a tensor or a pair of tensors; got NoneType. Pass x \[N, C\], or"),
        (C, (ones(N, C), None), r"x must be a tensor or a pair of tensors; got \(Tensor, NoneType\)"),
        (C, (ones(N, C),) * 3, r"x must be a tensor or a pair of tensors; got \(Tensor, Tensor, Tensor\)"),
        (C, ones(N, C).long(), "x must have the weights' dtype torch.float64; got torch.int64"),
        (C, ones(N, C).half(), "x must have the weights' dtype torch.float64; got torch.float16. Convert it"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_refuses_nodes_that_do_not_fit(in_channels, x, message):
    with pytest.raises(GraphformerError, match=f"^GraphAttention: {message}"):
        GraphAttention(in_channels, C_OUT, heads=H)(x, torch.tensor([[0, 1], [1, 0]]))


def test_refuses_nodes_that_autocast_does_not_cast():
    layer = GraphAttention(C, C_OUT, heads=H).float()
    for x in (torch.ones(N, C).double(), torch.ones(N, C).long()):
        with (
            torch.autocast("cpu", dtype=torch.bfloat16),
            pytest.raises(GraphformerError, match="x must have the weights' dtype torch.float32; got torch"),
        ):
            layer(x, some_edges())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.ones(N, C).half(), some_edges()).shape == (N, C_OUT)


def test_refuses_inputs_that_do_not_fit():
    x, edge_index = torch.randn(N, C), some_edges()
    plain = GraphAttention(C, C_OUT, heads=H)
    with pytest.raises(GraphformerError, match="edge_attr must be None where edge_dim is None"):
        plain(x, edge_index, torch.randn(17, F))
    with_edges = GraphAttention(C, C_OUT, heads=H, edge_dim=F)
    with pytest.raises(GraphformerError, match="edge_attr must be given where edge_dim = 4; got None"):
        with_edges(x, edge_index)
    with pytest.raises(GraphformerError, match=r"edge_attr must have shape \[E, 4\]; got \[17, 3\]"):
        with_edges(x, edge_index, torch.randn(17, 3))
    with pytest.raises(GraphformerError, match=r"edge_attr must have shape \[E, F\]"):
        with_edges(x, edge_index, torch.randn(16, F))
    with pytest.raises(GraphformerError, match=r"graph must have \(keys, queries\) = \(7, 7\) like x; got \(5, 5\)"):
        plain(x, AttentionGraph.from_dense(torch.ones(5, 5).bool()))
    with pytest.raises(GraphformerError, match=r"x must have \(7, 5\) \(source, target\) rows; got \(7, 7\)"):
        plain(x, edge_index, size=(7, 5))
    with pytest.raises(GraphformerError, match="size must be a pair of counts; got 3"):
        plain(x, edge_index, size=3)
    with pytest.raises(GraphformerError, match="edge_attr must be a tensor; got list"):
        with_edges(x, edge_index, [1])
    reverse = GraphAttention(C, C_OUT, heads=H, flow="target_to_source")
    with pytest.raises(GraphformerError, match='graph must be an edge index where flow is "target_to_source"'):
        reverse(x, AttentionGraph.from_edge_index(edge_index, num_nodes=N))
    related = GraphAttention(C, C_OUT, heads=H, num_relations=2)
    with pytest.raises(GraphformerError, match="graph must carry at most num_relations = 2 relations; got none"):
        related(x, edge_index)
    many = AttentionGraph.from_edge_index(edge_index, num_nodes=N, relation=torch.arange(17) % 3)
    with pytest.raises(GraphformerError, match="at most num_relations = 2 relations; got 3"):
        related(x, many)
    with pytest.raises(GraphformerError, match=r"must hold ids in \[0, 7\); got 7"):
        plain(x, edge_index + 1)
