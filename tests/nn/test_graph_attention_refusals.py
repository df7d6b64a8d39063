"""What GraphAttention refuses, and in which words."""

import pytest
import torch
from graph_attention_cases import C_OUT, C, F, H, M, N, some_edges

from graphformer import AttentionGraph, GraphformerError
from graphformer.nn import GraphAttention

pytestmark = pytest.mark.usefixtures("float64")

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
