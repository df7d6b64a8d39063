"""GraphAttention in models of several layers, under explainers, torch.compile and autocast."""

import pytest
import torch
import torch._dynamo.testing
from graph_attention_cases import C_OUT, C, F, H, M, N, close, some_edges
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer
from torch_geometric.nn import GPSConv, HeteroConv, to_hetero

from graphformer import AttentionGraph
from graphformer.nn import GraphAttention

pytestmark = pytest.mark.usefixtures("float64")


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
