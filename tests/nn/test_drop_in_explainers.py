"""The layers under PyG's explainers."""

import pytest
import torch
import torch_geometric.nn as pyg
from drop_in_cases import C, D, E, N, Net, assert_same, counted, distinct_edges, each_layer, hetero_graph
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer

from graphformer import nn as ours
from graphformer.nn.conv.fused import FusedConv
from graphformer.testing import assert_close

pytestmark = pytest.mark.usefixtures("float64")


@each_layer
def test_attention_explainer(name):
    explanations, x, edge_index = [], torch.randn(N, C), distinct_edges()
    models = [Net(module, name) for module in (pyg, ours)]
    for model in models:
        model(x, edge_index)
    models[1].load_state_dict(models[0].state_dict())
    expected = models[0](x, edge_index)
    for model in models:
        explainer = Explainer(
            model,
            algorithm=AttentionExplainer(),
            explanation_type="model",
            edge_mask_type="object",
            model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
        )
        explanations.append(explainer(x, edge_index).edge_mask)
    assert explanations[1].shape == (E,)
    assert float(explanations[1].max()) > 0
    assert_close(explanations[1], explanations[0])
    with counted() as paths:
        assert_same(models[1](x, edge_index), expected)
    assert paths == {"kernel": 2}


@each_layer
def test_attention_explainer_of_a_hetero_model(name):
    x, edges = hetero_graph()
    found = []
    state = None
    for module in (pyg, ours):
        model = pyg.to_hetero(Net(module, name), (list(x), list(edges)))
        with torch.no_grad():
            model(x, edges)
        state = model.state_dict() if state is None else state
        model.load_state_dict(state)
        explainer = Explainer(
            HeteroOut(model),
            algorithm=AttentionExplainer(),
            explanation_type="model",
            edge_mask_type="object",
            model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
        )
        found.append(explainer(x, edges))
    for kind in edges:
        assert_close(found[1][kind].edge_mask, found[0][kind].edge_mask)


class HeteroOut(torch.nn.Module):
    """One node type of a model's output."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, edge_index):
        return self.model(x, edge_index)["paper"]


class Fresh(FusedConv, pyg.GATConv):
    """A layer that is made for the first time in the test below."""

    original = pyg.GATConv

    def forward(self, x, edge_index):
        return pyg.GATConv.forward(self, x, edge_index)


def test_explained_after_pygs_layer_was_made():
    """PyG writes propagate anew for each class when it is first made; a later class must not explain by that one."""
    layers = pyg.GATConv(C, D), Fresh(C, D)
    layers[1].load_state_dict(layers[0].state_dict())
    x, edge_index = torch.randn(N, C), distinct_edges()
    plain = layers[1](x, edge_index)
    for layer in layers:
        layer.explain, layer._apply_sigmoid = True, False
        layer._edge_mask, layer._loop_mask = torch.linspace(0, 1, E), edge_index[0] != edge_index[1]
    assert_same(layers[1](x, edge_index), layers[0](x, edge_index))
    assert not torch.allclose(layers[1](x, edge_index), plain)


@each_layer
def test_gnn_explainer(name):
    found, x, edge_index = [], torch.randn(N, C), distinct_edges()
    state = None
    for module in (pyg, ours):
        model = Net(module, name, **({} if name == "TransformerConv" else {"add_self_loops": True}))
        model(x, edge_index)
        state = model.state_dict() if state is None else state
        model.load_state_dict(state)
        torch.manual_seed(0)
        explainer = Explainer(
            model,
            algorithm=GNNExplainer(epochs=5),
            explanation_type="model",
            node_mask_type="attributes",
            edge_mask_type="object",
            model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
        )
        explanation = explainer(x, edge_index, index=1)
        found.append((explanation.edge_mask, explanation.node_mask))
    assert float(found[1][0].max()) > 0
    assert_same(found[1], found[0])
    with counted() as paths:
        model(x, edge_index)
    assert paths == {"kernel": 2}
