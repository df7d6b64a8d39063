from __future__ import annotations

import pytest
import torch

import graphformer
from graphformer import attend, attention_weights, watch_attention
from graphformer.nn import GATConv, GraphAttention, MultiheadAttention, TransformerBlock
from graphformer.patterns import Full
from graphformer.testing import assert_close, random_graph


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_the_weights_are_those_of_the_call(backend):
    graph = random_graph(12, num_edges=40, seed=1)
    query, key, value = torch.randn(3, 12, 2, 4).unbind()
    bias = torch.randn(graph.num_edges, 2)
    plain = attend(query, key, value, graph, bias=bias, normalizer="sigmoid", backend=backend)
    with watch_attention() as seen:
        out = attend(query, key, value.requires_grad_(), graph, bias=bias, normalizer="sigmoid", backend=backend)
    assert torch.equal(out, plain)
    assert len(seen) == 1
    assert seen[0].graph is graph
    assert_close(seen[0].weights, attention_weights(query, key, graph, bias=bias, normalizer="sigmoid"))
    assert not seen[0].weights.requires_grad
    attend(query, key, value, graph)
    assert len(seen) == 1  # the block has ended


def test_every_layer_is_seen_in_order():
    edges = torch.tensor([[0, 1, 2, 2], [1, 2, 0, 1]])
    graph = graphformer.AttentionGraph.from_edge_index(edges, num_nodes=3)
    block, conv = TransformerBlock(8, 2), GATConv(8, 4, heads=3)
    full = MultiheadAttention(8, 4, pattern=Full(), batch_first=True)
    x = torch.randn(3, 8)
    with watch_attention() as seen:
        block(x, graph)
        conv(x, edges)
        full(x.unsqueeze(0), x.unsqueeze(0), x.unsqueeze(0), need_weights=False)
    assert [tuple(call.weights.shape) for call in seen] == [(4, 2), (7, 3), (9, 4)]  # GAT adds self loops
    for call in seen:
        total = torch.zeros(3, call.weights.shape[1]).index_add(0, call.graph.edge_index[1], call.weights)
        assert_close(total, torch.ones_like(total))


def test_an_inner_block_takes_what_happens_in_it():
    layer, edges = GraphAttention(4, 4, heads=1), torch.tensor([[0], [1]])
    with watch_attention() as outer:
        layer(torch.ones(2, 4), edges)
        with watch_attention() as inner:
            layer(torch.ones(2, 4), edges)
        with pytest.raises(ZeroDivisionError), watch_attention():
            raise ZeroDivisionError
        layer(torch.ones(2, 4), edges)
    assert (len(outer), len(inner)) == (2, 1)
