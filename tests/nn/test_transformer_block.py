import copy

import pytest
import torch

from graphformer import AttentionGraph, GraphformerError
from graphformer.nn import FeedForward, TransformerBlock

C, H = 12, 3
LENGTHS = [4, 1, 7]


def full_graph(lengths):
    return AttentionGraph.from_dense(torch.block_diag(*(torch.ones(n, n) for n in lengths)).bool())


def load_encoder_layer(block, layer):
    """Copy the weights of a torch.nn.TransformerEncoderLayer; returns pairs of their parameters."""
    pairs = [
        (block.attention.lin_out, layer.self_attn.out_proj),
        (block.feed_forward.lin_in, layer.linear1),
        (block.feed_forward.lin_out, layer.linear2),
        (block.attention_norm, layer.norm1),
        (block.feed_forward_norm, layer.norm2),
    ]
    for mine, theirs in pairs:
        mine.load_state_dict(theirs.state_dict())
    attention = layer.self_attn
    thirds = zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
    for name, (weight, bias) in zip(("query", "key", "value"), thirds, strict=True):
        linear = getattr(block.attention, f"lin_{name}")
        linear.load_state_dict({"weight": weight.detach().clone(), "bias": bias.detach().clone()})
    return [(mine.weight, theirs.weight) for mine, theirs in pairs]


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [True, False], ids=["pre-norm", "post-norm"])
def test_is_torch_encoder_layer_from_its_weights(norm_first, activation):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        C, H, 2 * C, dropout=0.0, activation=activation, norm_first=norm_first, batch_first=True, dtype=torch.float64
    )
    for parameter in layer.parameters():  # biases and norms start at constants, which would hide a mix-up
        torch.nn.init.normal_(parameter, std=0.5)
    block = TransformerBlock(C, H, feed_forward=2, norm_first=norm_first, activation=activation).double()
    pairs = load_encoder_layer(block, layer)
    x = torch.randn(sum(LENGTHS), C, dtype=torch.float64, requires_grad=True)
    ours = block(x, full_graph(LENGTHS))
    theirs = torch.cat([layer(part[None])[0] for part in x.split(LENGTHS)])
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)

    pull = torch.randn_like(ours)
    mine = torch.autograd.grad(ours, [x, *(pair[0] for pair in pairs), block.attention.lin_query.weight], pull)
    other = torch.autograd.grad(theirs, [x, *(pair[1] for pair in pairs), layer.self_attn.in_proj_weight], pull)
    for a, b in zip(mine, (*other[:-1], other[-1].chunk(3)[0]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_every_option_trains(norm, norm_first):
    torch.manual_seed(0)
    block = TransformerBlock(
        C,
        H,
        norm=norm,
        norm_first=norm_first,
        dropout=0.1,
        attention_dropout=0.2,
        edge_dim=5,
        num_relations=2,
        score="additive",
    )
    plain = full_graph(LENGTHS)
    graph = AttentionGraph(plain.by_query, 12, relation=torch.arange(plain.num_edges) % 2, num_relations=2)
    x, edge_attr = torch.randn(12, C), torch.randn(plain.num_edges, 5)
    out = block(x, graph, edge_attr)
    assert out.shape == (12, C)
    out.square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in block.parameters())
    block.eval()
    torch.testing.assert_close(block(x, graph, edge_attr), copy.deepcopy(block)(x, graph, edge_attr))


def test_a_batch_of_one_node_trains_with_batch_norm():
    block = TransformerBlock(C, H, norm="batch")
    assert bool(block(torch.randn(1, C), full_graph([1])).isfinite().all())


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    block, x, graph = TransformerBlock(C, H, dropout=0.5), torch.randn(12, C), full_graph(LENGTHS)
    assert not torch.equal(block(x, graph), block(x, graph))
    block.eval()
    assert torch.equal(block(x, graph), block(x, graph))


def test_reset_parameters_draws_anew():
    block, x, graph = TransformerBlock(C, H), torch.randn(12, C), full_graph(LENGTHS)
    before = block(x, graph)
    block.reset_parameters()
    assert not torch.allclose(block(x, graph), before)


@pytest.mark.parametrize(
    ("x", "got"), [(torch.ones(4, C + 1), r"\[4, 13\]"), (torch.ones(C), r"\[12\]"), (None, "None")]
)
def test_refuses_nodes_of_another_width(x, got):
    with pytest.raises(GraphformerError, match=rf"TransformerBlock: x must have shape \[N, 12\]; got {got}"):
        TransformerBlock(C, H)(x, full_graph([4]))


def test_refuses_unknown_names():
    with pytest.raises(GraphformerError, match="norm must be one of layer, batch; got 'instance'"):
        TransformerBlock(C, H, norm="instance")
    with pytest.raises(GraphformerError, match="activation must be one of relu, gelu; got 'rely'. Did you mean relu?"):
        FeedForward(C, 8, activation="rely")
    with pytest.raises(GraphformerError, match="feed_forward must be at least 1; got 0"):
        TransformerBlock(C, H, feed_forward=0)
    for name in ("dropout", "attention_dropout"):
        with pytest.raises(GraphformerError, match=rf"TransformerBlock: {name} must lie in \[0, 1\); got 1.5"):
            TransformerBlock(C, H, **{name: 1.5})
    with pytest.raises(GraphformerError, match="TransformerBlock: channels must be at least 1; got -1"):
        TransformerBlock(-1, H)
    with pytest.raises(GraphformerError, match="feed_forward must be an integer; got 1.5"):
        TransformerBlock(C, H, feed_forward=1.5)
    with pytest.raises(GraphformerError, match="FeedForward: hidden must be at least 1; got -1"):
        FeedForward(C, -1)
    with pytest.raises(GraphformerError, match=r"FeedForward: dropout must lie in \[0, 1\); got 2"):
        FeedForward(C, 8, dropout=2)
    with pytest.raises(GraphformerError, match="out_channels must be a positive multiple of heads = 5; got 12"):
        TransformerBlock(C, 5)
