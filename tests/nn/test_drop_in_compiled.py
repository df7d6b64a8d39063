"""The layers under torch.jit, torch.compile and torch.utils.checkpoint."""

import pytest
import torch
import torch._dynamo.testing
from drop_in_cases import GATS, KERNEL, C, D, E, F, N, assert_same, counted, distinct_edges, each_layer, some_edges

from graphformer import nn as ours
from graphformer.patterns import Window

pytestmark = pytest.mark.usefixtures("float64")


class Scriptable(torch.nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor, edge_attr: torch.Tensor) -> torch.Tensor:
        return self.conv(x, edge_index, edge_attr)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_torch_jit_script_takes_pygs_layer():
    """PyG's own GATConv and GATv2Conv can no longer be scripted."""
    layer = ours.TransformerConv(C, D, heads=2, edge_dim=F)
    given = torch.randn(N, C), some_edges(), torch.randn(E, F)
    scripted = torch.jit.script(Scriptable(layer))
    assert_same(scripted(*given), layer(*given))
    assert scripted.conv.lin_key.weight.data_ptr() == layer.lin_key.weight.data_ptr()
    with counted() as paths:
        layer(*given)
    assert paths == KERNEL


@each_layer
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torch_jit_trace_takes_pygs_messages(name):
    """A trace holds the edges of no graph in particular: it runs for other sizes too."""
    layer = getattr(ours, name)(C, D, heads=2)
    with counted() as paths:
        traced = torch.jit.trace(layer, (torch.randn(N, C), some_edges()), check_trace=False)
    assert paths == {"messages": 1}
    given = torch.randn(N + 3, C), some_edges(N + 3, N + 3, 2 * E)
    assert_same(traced(*given), layer(*given))
    assert layer.why_unfused() == []


COMPILED = [("TransformerConv", {}), *((name, {"add_self_loops": loops}) for name in GATS for loops in (True, False))]


def run_compiled(name, options, edge_dim, backend, sizes=((7, 19), (9, 30), (11, 31), (8, 23), (40, 90))):
    """Outputs and gradients of the compiled layer are those of the layer itself; counts programs after each size."""
    layer = getattr(ours, name)(C, D, heads=2, edge_dim=edge_dim, **options)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiled, programs = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter), []
    for num_nodes, num_edges in sizes:
        x = torch.randn(num_nodes, C, requires_grad=True)
        edge_index = torch.randint(num_nodes, (2, num_edges))
        edge_attr = None if edge_dim is None else torch.randn(num_edges, edge_dim, requires_grad=True)
        leaves = [x, *layer.parameters(), *([] if edge_attr is None else [edge_attr])]
        grads = []
        for call in (layer, compiled):
            out = call(x, edge_index, edge_attr)
            grads.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
        assert_same(grads[1], grads[0])
        programs.append(counter.frame_count)
    assert "graphformer.attend" in counter.graphs[-1].code
    return programs


@pytest.mark.parametrize(("name", "options"), COMPILED, ids=str)
@pytest.mark.parametrize("edge_dim", [None, F])
def test_compiles_whole_and_once_for_all_sizes(name, options, edge_dim):
    programs = run_compiled(name, options, edge_dim, "aot_eager")
    assert programs[0] == programs[-1]


@pytest.mark.parametrize(("name", "options"), COMPILED, ids=str)
def test_compiles_with_an_attention_graph(name, options):
    layer = getattr(ours, name)(C, D, heads=2, edge_dim=F, **options)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled, programs = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter), []
    for num_nodes in (9, 12, 17):
        graph, x = Window(2).on(num_nodes), torch.randn(num_nodes, C, requires_grad=True)
        edge_attr = torch.randn(graph.num_edges, F)
        found, expected = compiled(x, graph, edge_attr), layer(x, graph, edge_attr)
        assert_same(found, expected)
        assert_same(*(torch.autograd.grad(out.square().sum(), x) for out in (found, expected)))
        programs.append(counter.frame_count)
    assert "graphformer.attend" in counter.graphs[-1].code
    assert programs[0] == programs[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), COMPILED[:2], ids=str)
def test_compiles_with_inductor(name, options):
    programs = run_compiled(name, options, F, "inductor")
    assert programs[0] == programs[-1]


@each_layer
def test_compiled_layers_return_weights_and_stay_unfused(name):
    layer = getattr(ours, name)(C, D, heads=2)
    x, edge_index = torch.randn(N, C), distinct_edges()
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="eager")
    assert_same(
        compiled(x, edge_index, return_attention_weights=True), layer(x, edge_index, return_attention_weights=True)
    )
    expected = layer(x, edge_index)
    layer.aggr_module.register_forward_hook(lambda module, inputs, out: out)
    assert layer.why_unfused() == ["aggr_module has hooks"]
    torch._dynamo.reset()
    with torch.no_grad():
        assert_same(torch.compile(layer, backend="eager")(x, edge_index), expected.detach())


@each_layer
def test_checkpointed_layers_draw_the_same_dropout_again(name):
    layer = getattr(ours, name)(C, D, dropout=0.5)
    x, edge_index = torch.randn(N, C, requires_grad=True), some_edges()
    grads = []
    for call in (layer, lambda *given: torch.utils.checkpoint.checkpoint(layer, *given, use_reentrant=False)):
        torch.manual_seed(0)
        grads.append(torch.autograd.grad(call(x, edge_index).square().sum(), [x, *layer.parameters()]))
    assert_same(grads[1], grads[0])
