"""Patterns, edges and relations in the global part of GPSConv."""

import pytest
import torch
import torch_geometric.nn as pyg
from gps_cases import C, F, gine, molecules
from torch_geometric.data import Data

from graphformer.graphs import AttentionGraph
from graphformer.nn import GPSConv, GraphAttention
from graphformer.nn.node_facts import graph_of
from graphformer.patterns import (
    Distance,
    Edges,
    EdgeType,
    Expander,
    Full,
    Hops,
    VirtualNode,
    Window,
    Within,
)
from graphformer.testing import assert_close


def with_mask(theirs, data, mask):
    """PyG's layer with a dense mask, True for what is removed, over all nodes as one graph."""
    theirs.attn.register_forward_pre_hook(
        lambda _, inputs, options: (inputs, dict(options, attn_mask=mask, key_padding_mask=None)), with_kwargs=True
    )
    return theirs(data.x, data.edge_index, None)


@pytest.mark.parametrize(
    "pattern",
    [Window(1), Edges(self_loops=True), Edges() | Expander(2) | VirtualNode(), Hops(2) | Window(0)],
    ids=repr,
)
def test_any_pattern_is_its_dense_mask(pattern):
    data = molecules()
    ours = GPSConv(C, None, heads=2, pattern=pattern).double().eval()
    theirs = pyg.GPSConv(C, None, heads=2).double().eval()
    theirs.load_state_dict(ours.state_dict())
    dense = (pattern & Full()).on(data).to_dense(counts=True)
    assert dense.sum() < Full().on(data).num_edges
    mask = torch.log(dense.double())  # a pair that is there twice counts twice
    wanted = with_mask(theirs, data, mask)
    assert_close(ours(data.x, data.edge_index, data.batch), wanted)
    assert_close(ours(data.x, data.edge_index, data.batch, graph=pattern.on(data)), wanted)
    assert_close(ours(data.x, AttentionGraph.from_edge_index(data.edge_index, len(data.x)), data.batch), wanted)


@pytest.mark.parametrize("pattern", [None, Edges() | VirtualNode()], ids=repr)
def test_edge_features_reach_the_global_part(pattern):
    """The same attention as that of GraphAttention, which has the same maps."""
    data = molecules()
    layer = GPSConv(C, None, heads=2, norm=None, pattern=pattern, edge_dim=F).double()
    other = GraphAttention(C, C, 2, edge_dim=F).double()
    with torch.no_grad():
        for name, weight, bias in zip(
            ("query", "key", "value"), layer.attn.in_proj_weight.chunk(3), layer.attn.in_proj_bias.chunk(3), strict=True
        ):
            getattr(other, f"lin_{name}").weight.copy_(weight)
            getattr(other, f"lin_{name}").bias.copy_(bias)
        other.lin_out.load_state_dict(layer.attn.out_proj.state_dict())
        other.edge_key.copy_(layer.edge_key)
        other.edge_value.copy_(layer.edge_value)
    graph = (Edges() | Full() if pattern is None else pattern).on(data)
    x = other(data.x, graph, data.edge_attr) + data.x
    assert_close(layer(data.x, data.edge_index, data.batch, edge_attr=data.edge_attr), x + layer.mlp(x))
    one = GPSConv(C, None, heads=2, edge_dim=1).double()
    flat = one(data.x, data.edge_index, data.batch, edge_attr=data.edge_attr[:, 0])
    assert_close(flat, one(data.x, data.edge_index, data.batch, edge_attr=data.edge_attr[:, :1]))


def test_relations_shift_the_score():
    data = molecules([6])
    layer = GPSConv(C, None, heads=2, pattern=Full().as_relation(Distance(3)), num_relations=8).double().eval()
    theirs = pyg.GPSConv(C, None, heads=2).double().eval()
    theirs.load_state_dict(layer.state_dict(), strict=False)
    assert_close(layer(data.x, None, data.batch), theirs(data.x, None, data.batch))  # starts at zero
    torch.nn.init.normal_(layer.relation_bias)
    relation = Full().as_relation(Distance(3)).on(6).relation.view(6, 6).long()
    wanted = with_mask(theirs, data, layer.relation_bias.detach()[relation].permute(2, 0, 1))
    assert_close(layer(data.x, None, data.batch), wanted)
    layer.reset_parameters()
    assert (layer.relation_bias == 0).all()


def test_terms_are_parameters_only_where_asked_for():
    theirs = pyg.GPSConv(C, gine(), heads=2)
    assert GPSConv(C, gine(), heads=2, pattern=Window(1)).state_dict().keys() == theirs.state_dict().keys()
    asked = GPSConv(C, gine(), heads=2, edge_dim=F, num_relations=4)
    assert asked.state_dict().keys() - theirs.state_dict().keys() == {"edge_key", "edge_value", "relation_bias"}
    before = asked.edge_key.clone()
    asked.reset_parameters()
    assert not torch.equal(asked.edge_key, before)


def test_patterns_read_what_forward_is_given():
    data = molecules([6])
    pos, types = torch.randn(6, 2), torch.randint(4, (data.num_edges,))
    near = graph_of(Within(1.0), 6, data.edge_index, data.batch, {"pos": pos, "size": None})
    assert near == Within(1.0).on(Data(pos=pos))
    typed = graph_of(Edges().as_relation(EdgeType(4)), 6, data.edge_index, None, {"edge_type": types})
    assert torch.equal(typed.relation.long().sort().values, types.sort().values)
