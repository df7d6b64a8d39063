"""GraphAttention beside torch's and PyG's attention, its unfused path, its inputs and what it carries."""

import copy
import io
import pickle

import pytest
import torch
from graph_attention_cases import C_OUT, C, F, H, M, N, close, some_edges
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.nn import GATv2Conv, TransformerConv

from graphformer import AttentionGraph, attend
from graphformer.nn import GraphAttention
from graphformer.patterns import Edges, Full

pytestmark = pytest.mark.usefixtures("float64")

OPTIONS = [{}, {"edge_dim": F}, {"score": "additive", "edge_dim": F}, {"normalizer": "sigmoid"}, {"normalizer": "relu"}]


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


@pytest.mark.parametrize("unfused", [False, True])
@pytest.mark.parametrize("score", ["dot", "additive"])
def test_relation_vectors_are_one_hot_edge_features(score, unfused):
    edge_index, relation = some_edges(), torch.arange(17) % 3
    layer = GraphAttention(C, C_OUT, heads=H, num_relations=4, relation_vectors=True, score=score)
    features = GraphAttention(C, C_OUT, heads=H, edge_dim=4, score=score)
    weights = {k: v for k, v in layer.state_dict().items() if not k.startswith("relation_")}
    tables = {"edge_key": layer.relation_key, "edge_value": layer.relation_value}
    features.load_state_dict(weights | tables)
    if unfused:
        layer.register_propagate_forward_hook(lambda *_: None)
    x, graph = torch.randn(N, C), AttentionGraph.from_edge_index(edge_index, num_nodes=N, relation=relation)
    wanted = features(x, edge_index, torch.nn.functional.one_hot(relation, 4).to(x.dtype))
    close(layer(x, graph), wanted)
    assert not torch.allclose(layer(x, AttentionGraph.from_edge_index(edge_index, N, relation=relation * 0)), wanted)


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
