"""Second derivatives of `attend` and of every attention layer: forces from energies, and losses on forces."""

import pytest
import torch
import torch_geometric.nn as pyg
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch_geometric.data import Batch, Data

import graphformer as gf
from graphformer import nn
from graphformer.kernels import formula, tangent
from graphformer.kernels.problem import Tensors
from graphformer.nn.aggr import attentional, set_transformer
from graphformer.patterns import Full, TopK, Within
from graphformer.testing import assert_close, random_graph

pytestmark = pytest.mark.usefixtures("float64")

BACKENDS = ["native", "reference"]
CUTOFF, STEP = 1.5, 1e-5
SCORES = {
    "dot": lambda weight: "dot",
    "gatv2": gf.Additive,
    "bahdanau": lambda weight: gf.Additive(weight, "tanh"),
}
WAYS = ["within", "duplicates, isolated atoms", "runs", "bipartite"]


@pytest.fixture(params=["one chunk", "many chunks"])
def _chunking(request, monkeypatch):
    if request.param == "many chunks":
        monkeypatch.setattr(formula, "chunk_edges", lambda tensors: 7)


@pytest.fixture
def second_passes(monkeypatch):
    """Grows with every second derivative of the kernel."""
    passes, second = [], tangent.second

    def spy(*arguments):
        passes.append(arguments)
        return second(*arguments)

    monkeypatch.setattr(tangent, "second", spy)
    return passes


def atoms():
    """Two molecules with a lone atom between them; no two atoms are at the cutoff."""
    pos = torch.tensor([[0.1, -0.2, 0.1], [1, 0.1, 0], [0.2, 0.9, 0.3], [1.1, 1.2, 0.1], [9, 9, 9], [9, 9.8, 9.3]])
    places = (pos, torch.tensor([[5.0, 5, 5]]), pos[:3] * 1.1)
    return Batch.from_data_list([Data(pos=place) for place in places])


def lay_out(way, batch):
    near = Within(CUTOFF).on(batch)
    key, query = near.edge_index
    pairs = near.edge_index[:, key != query]
    pairs = pairs[:, torch.randperm(pairs.shape[1])]
    if way == "duplicates, isolated atoms":
        pairs = torch.cat((pairs, pairs[:, :5]), dim=1)
        return gf.AttentionGraph.from_edge_index(pairs, num_nodes=batch.num_nodes)
    if way == "bipartite":
        return gf.AttentionGraph.from_edge_index(pairs[:, pairs[1] < 4], size=(batch.num_nodes, 4))
    return near if way == "within" else Full().on(batch)


def lengths(pos, edge_index):
    return (pos[edge_index[0]] - pos[edge_index[1]]).square().sum(1).clamp(min=1e-12).sqrt()


def make_weights():
    shapes = {"node": (3, 6), "edge_key": (3, 2, 3), "edge_value": (3, 2, 3), "score": (2, 3), "read": (2, 3)}
    shapes |= {"relation_bias": (4, 2), "relation_key": (4, 2, 3), "relation_value": (4, 2, 3)}
    return {name: torch.randn(shape, requires_grad=True) for name, shape in shapes.items()}


def energy_of(pos, weights, graph, score, normalizer, backend):
    """An energy for which nodes, edge features and bias come from coordinates, and relations are bins of lengths."""
    basis = nn.RadialBasis(3, 2 * CUTOFF)
    nodes = torch.tanh(pos @ weights["node"]).unflatten(1, (2, 3))
    distance = lengths(pos, graph.edge_index)
    terms = {name: weights[name] for name in ("edge_key", "edge_value")}
    terms |= {"edge_attr": basis(distance), "bias": basis.log_envelope(distance)}
    if graph.relation is not None:
        terms |= {name: weights[name] for name in ("relation_bias", "relation_key", "relation_value")}
    made = SCORES[score](weights["score"])
    query, options = nodes[: graph.num_queries], {"score": made, "normalizer": normalizer, "backend": backend}
    out = gf.attend(query, nodes * 0.5, nodes.sin(), graph, **options, **terms)
    return (out * weights["read"]).sum()


def with_bins(graph, pos):
    bins = (lengths(pos, graph.edge_index) * 2).long().clamp(max=3)
    return gf.AttentionGraph.from_edge_index(graph.edge_index, size=graph.size, relation=bins, num_relations=4)


def loss_on_forces(energy, pos, leaves):
    """The slope of the energy, a loss on it, and the gradients of that in the leaves."""
    (slope,) = torch.autograd.grad(energy, pos, create_graph=True)
    loss = (slope * torch.linspace(-1, 1, slope.numel()).view_as(slope)).sum() + slope.square().sum()
    return slope, loss, torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)


def moved(leaves, moves, step):
    return [(leaf + step * move).detach().requires_grad_() for leaf, move in zip(leaves, moves, strict=True)]


def assert_slope(function, leaves, moves, slopes):
    """Raise unless the function's finite difference along the moves is what its slopes say."""
    ahead, behind = (function(moved(leaves, moves, sign * STEP)) for sign in (1, -1))
    told = sum((slope * move).sum() for slope, move in zip(slopes, moves, strict=True))
    torch.testing.assert_close(told, (ahead - behind) / (2 * STEP), rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("_chunking")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("normalizer", ["softmax", "relu", "sigmoid"])
@pytest.mark.parametrize("score", SCORES)
def test_forces_and_their_loss(score, normalizer, way):
    """Against finite differences, with each backend, and the two against one another."""
    batch = atoms()
    graph = lay_out(way, batch)
    graph = graph if way == "runs" else with_bins(graph, batch.pos)  # relations would list the runs
    assert (graph.query_side.runs is not None) == (way == "runs")
    weights = make_weights()
    leaves = [batch.pos.clone().requires_grad_(), *weights.values()]
    moves = [torch.randn_like(leaf) for leaf in leaves]
    found = []
    for backend in BACKENDS:

        def energy(leaves, backend=backend):
            return energy_of(leaves[0], dict(zip(weights, leaves[1:], strict=True)), graph, score, normalizer, backend)

        def loss(leaves, energy=energy):
            return loss_on_forces(energy(leaves), leaves[0], leaves)[1]

        slope, _, grads = loss_on_forces(energy(leaves), leaves[0], leaves)
        assert_slope(lambda some, energy=energy: energy([*some, *leaves[1:]]), leaves[:1], moves[:1], [slope])
        assert_slope(loss, leaves, moves, grads)
        found.append((slope, *grads))
    for native, reference in zip(*found, strict=True):
        assert_close(native, reference)


def test_a_wrong_slope_is_seen():
    x = torch.randn(3, requires_grad=True)
    with pytest.raises(AssertionError):
        assert_slope(lambda leaves: leaves[0].square().sum(), [x], [torch.ones(3)], [2 * x.detach() * 1.0001])


@pytest.mark.parametrize("name", Tensors._fields)
@pytest.mark.parametrize("score", SCORES)
def test_each_tensor_alone(score, name):
    """The others have no gradient: neither asked for nor given a direction."""
    graph = random_graph(3, 4, num_edges=7, num_relations=2, seed=2)
    shapes = {"query": (3, 2, 3), "key": (4, 2, 3), "value": (4, 2, 2), "weight": (2, 3), "bias": (7, 2)}
    shapes |= {"relation_bias": (2, 2), "relation_key": (2, 2, 3), "relation_value": (2, 2, 2)}
    shapes |= {"edge_attr": (7, 2), "edge_key": (2, 2, 3), "edge_value": (2, 2, 2)}
    tensors = {field: torch.randn(shape) for field, shape in shapes.items()}
    if score == "dot" and name == "weight":
        pytest.skip("the dot score has no weight")

    def function(tensor):
        given = tensors | {name: tensor}
        made = SCORES[score](given.pop("weight"))
        return gf.attend(*(given.pop(field) for field in ("query", "key", "value")), graph, score=made, **given).sin()

    assert torch.autograd.gradgradcheck(function, tensors[name].requires_grad_())


@pytest.mark.parametrize("normalizer", ["softmax", "relu", "sigmoid"])
@pytest.mark.parametrize("score", SCORES)
def test_third_derivatives(score, normalizer):
    """The second derivative along a direction is checked as a function: by its value's and its slope's differences."""
    graph = random_graph(3, 4, num_edges=9, num_relations=2, seed=2)
    shapes = {"query": (3, 2, 3), "key": (4, 2, 3), "value": (4, 2, 2), "weight": (2, 3), "relation_bias": (2, 2)}
    shapes |= {"edge_attr": (9, 2), "edge_key": (2, 2, 3), "edge_value": (2, 2, 2)}
    leaves = [torch.randn(shape, requires_grad=True) for shape in shapes.values()]
    along = [torch.randn_like(leaf) for leaf in leaves]

    def second(*leaves):
        given = dict(zip(shapes, leaves, strict=True))
        made = SCORES[score](given.pop("weight"))
        nodes = [given.pop(field) for field in ("query", "key", "value")]
        out = gf.attend(*nodes, graph, score=made, normalizer=normalizer, **given).sin().sum()
        asked = [leaf for leaf in leaves if score != "dot" or leaf is not leaves[3]]
        first = torch.autograd.grad(out, asked, create_graph=True)
        moves = [move for leaf, move in zip(leaves, along, strict=True) if any(leaf is some for some in asked)]
        return torch.autograd.grad(first, asked, moves, create_graph=True)

    assert torch.autograd.gradcheck(second, leaves, fast_mode=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_removed_pairs_stay_out(backend):
    """Whatever a removed pair holds, second derivatives are those of the graph without it."""
    pairs = torch.tensor([[0, 1, 2, 3, 1], [0, 0, 1, 2, 2]])
    keep = torch.tensor([True, True, True, False, True])
    whole = gf.AttentionGraph.from_edge_index(pairs, num_nodes=4)
    less = gf.AttentionGraph.from_edge_index(pairs[:, keep], num_nodes=4)
    x, bias, attr, maps = torch.randn(4, 2, 3), torch.randn(5), torch.randn(5, 2), torch.randn(2, 2, 3)
    bias[3], x[3], attr[3] = -torch.inf, torch.nan, torch.inf
    along = [torch.randn_like(part) for part in (x, bias, attr, maps)]
    for direction in along[:3]:
        direction[3] = torch.nan
    found = []
    for graph, some in ((whole, slice(None)), (less, keep)):
        leaves = [part.clone().requires_grad_() for part in (x, bias[some], attr[some], maps)]
        nodes, shift, features, edge_map = leaves
        terms = {"bias": shift, "edge_attr": features, "edge_key": edge_map, "edge_value": edge_map}
        out = gf.attend(nodes, nodes, nodes, graph, backend=backend, **terms)
        first = torch.autograd.grad(out[:3].sin().sum(), leaves, create_graph=True)
        directions = [along[0], along[1][some], along[2][some], along[3]]
        found.append(torch.autograd.grad(first, leaves, directions))
    of_nodes, *by_edge, of_maps = found[0]
    for mine, expected in zip((of_nodes, *(part[keep] for part in by_edge), of_maps), found[1], strict=True):
        assert bool(mine[:3].isfinite().all())
        assert_close(mine, expected)


def test_second_derivatives_hold_chunks_only(monkeypatch):
    sizes, meet = [], tangent._meet

    def spy(*arguments):
        sizes.append(arguments[3].query_index.shape[0])
        return meet(*arguments)

    monkeypatch.setattr(tangent, "_meet", spy)
    monkeypatch.setattr(formula, "CHUNK_ELEMENTS", 10)
    x = torch.randn(5, 1, 2, requires_grad=True)
    out = gf.attend(x, x, x, random_graph(5, num_edges=23))
    (first,) = torch.autograd.grad(out.sin().sum(), x, create_graph=True)
    first.square().sum().backward()
    assert sizes == [5, 5, 5, 5, 3] * 2  # once for the weights, once for what follows from them


def forces_through(layer, batch, call):
    """What a layer's forces and all gradients of a loss on them are."""
    pos = batch.pos.clone().requires_grad_()
    energy = call(layer, pos).sin().sum()
    slope, _, grads = loss_on_forces(energy, pos, [pos, *layer.parameters()])
    return [slope, *grads]


def by_edges(batch, channels=4):
    """A call of PyG's kind: nodes and edge features come from coordinates."""
    edge_index = lay_out("duplicates, isolated atoms", batch).edge_index
    lift = torch.randn(3, channels)
    basis = nn.RadialBasis(3, 2 * CUTOFF)
    return lambda layer, pos: layer(torch.tanh(pos @ lift), edge_index, basis(lengths(pos, edge_index)))


DROP_INS = [
    ("TransformerConv", {"beta": True}),
    ("TransformerConv", {"concat": False, "root_weight": False}),
    ("GATConv", {}),
    ("GATConv", {"add_self_loops": False, "residual": True}),
    ("GATConv", {"fill_value": "max"}),
    ("GATv2Conv", {}),
    ("GATv2Conv", {"add_self_loops": False, "share_weights": True}),
    ("GATv2Conv", {"fill_value": "add", "residual": True}),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "options"), DROP_INS, ids=str)
def test_drop_in_layers_have_pygs(name, options, backend):
    theirs = getattr(pyg, name)(4, 3, heads=2, edge_dim=3, **options)
    mine = getattr(nn, name)(4, 3, heads=2, edge_dim=3, **options)
    mine.load_state_dict(theirs.state_dict())
    mine.backend = backend
    batch = atoms()
    call = by_edges(batch)
    for ours, other in zip(forces_through(mine, batch, call), forces_through(theirs, batch, call), strict=True):
        assert_close(ours, other)
    assert mine.why_unfused() == []


@pytest.mark.parametrize("name", ["TransformerConv", "GATConv", "GATv2Conv"])
def test_drop_in_layers_between_two_sets(name):
    options = {} if name == "TransformerConv" else {"add_self_loops": False}
    theirs = getattr(pyg, name)((4, 3), 3, heads=2, edge_dim=3, **options)
    mine = getattr(nn, name)((4, 3), 3, heads=2, edge_dim=3, **options)
    mine.load_state_dict(theirs.state_dict())
    batch = atoms()
    edge_index, lift = lay_out("bipartite", batch).edge_index, torch.randn(3, 4)

    def call(layer, pos):
        attr = nn.RadialBasis(3, 2 * CUTOFF)(lengths(pos, edge_index))
        return layer((torch.tanh(pos @ lift), pos[:4]), edge_index, attr)

    for ours, other in zip(forces_through(mine, batch, call), forces_through(theirs, batch, call), strict=True):
        assert_close(ours, other)


BY_SETS = {
    "GPSConv": lambda home: home.GPSConv(4, pyg.GATv2Conv(4, 4, edge_dim=3), heads=2, norm=None, act="gelu"),
    "SetTransformerAggregation": lambda home: home.SetTransformerAggregation(4, heads=2, layer_norm=True),
    "AttentionalAggregation": lambda home: home.AttentionalAggregation(torch.nn.Linear(4, 1), torch.nn.Linear(4, 3)),
}


@pytest.mark.parametrize("name", BY_SETS)
def test_layers_over_whole_sets_have_pygs(name, second_passes, monkeypatch):
    monkeypatch.setattr(attentional, "_LEAST_BYTES", 0)  # smaller inputs would be left to PyG
    monkeypatch.setattr(set_transformer, "_BATCH", 0)
    theirs, mine = BY_SETS[name](pyg), BY_SETS[name](nn)
    mine.load_state_dict(theirs.state_dict())
    batch = atoms()
    edge_index = lay_out("duplicates, isolated atoms", batch).edge_index
    lift, basis = torch.randn(3, 4), nn.RadialBasis(3, 2 * CUTOFF)

    def call(layer, pos):
        x = torch.tanh(0.1 * pos @ lift + 0.5)
        if "GPS" not in name:
            return layer(x, batch.batch)
        more = {} if layer.conv is None else {"edge_attr": basis(lengths(pos, edge_index))}
        return layer(x, edge_index, batch.batch, **more)

    with sdpa_kernel(SDPBackend.MATH):  # torch's others have no second derivatives
        expected = forces_through(theirs, batch, call)
        assert not second_passes
        for ours, other in zip(forces_through(mine, batch, call), expected, strict=True):
            assert_close(ours, other)
    assert second_passes


def test_multihead_attention_has_torchs():
    theirs = torch.nn.MultiheadAttention(6, 2, batch_first=True)
    mine = nn.MultiheadAttention(6, 2, batch_first=True, pattern=Full())
    mine.load_state_dict(theirs.state_dict())
    batch, lift = atoms(), torch.randn(3, 6)

    def call(layer, pos):
        x = (pos @ lift).tanh().view(2, 5, 6)
        return layer(x, x, x, need_weights=False)[0]

    with sdpa_kernel(SDPBackend.MATH):
        expected = forces_through(theirs, batch, call)
    for ours, other in zip(forces_through(mine, batch, call), expected, strict=True):
        assert_close(ours, other)


OURS = {
    "GraphAttention": lambda backend: nn.GraphAttention(4, 6, 2, edge_dim=3, num_relations=4, backend=backend),
    "GraphAttention, additive": lambda backend: nn.GraphAttention(
        4, 6, 2, edge_dim=3, num_relations=4, score="additive", normalizer="sigmoid", backend=backend
    ),
    "TransformerBlock": lambda backend: nn.TransformerBlock(
        4, 2, edge_dim=3, num_relations=4, activation="gelu", degree_scaler=True, backend=backend
    ),
    "ContentAttention": lambda backend: nn.ContentAttention(4, 6, 2, content=TopK(3), pattern=Full(), backend=backend),
}


@pytest.mark.parametrize("name", OURS)
def test_our_layers(name):
    """Against finite differences, and one backend against the other."""
    batch = atoms()
    graph = with_bins(Within(CUTOFF).on(batch), batch.pos)
    lift, offset, basis = torch.randn(3, 4), torch.linspace(-1, 1, 4), nn.RadialBasis(3, 2 * CUTOFF)

    def call(layer, pos):
        x = torch.tanh(0.1 * pos @ lift + offset)
        if name == "ContentAttention":
            return layer(x, batch)
        distance = lengths(pos, graph.edge_index)
        return layer(x, graph, basis(distance), edge_bias=basis.log_envelope(distance))

    layers = [OURS[name](backend) for backend in BACKENDS]
    layers[1].load_state_dict(layers[0].state_dict())
    native, reference = (forces_through(layer, batch, call) for layer in layers)
    for mine, expected in zip(native, reference, strict=True):
        assert_close(mine, expected)

    def loss(leaves):
        state = dict(zip(dict(layers[0].named_parameters()), leaves[1:], strict=True))
        out = torch.func.functional_call(_Call(layers[0], call), {f"layer.{k}": v for k, v in state.items()}, leaves[0])
        return loss_on_forces(out.sin().sum(), leaves[0], leaves)[1]

    leaves = [batch.pos.clone().requires_grad_(), *layers[0].parameters()]
    assert_slope(loss, leaves, [torch.randn_like(leaf) for leaf in leaves], native[1:])


class _Call(torch.nn.Module):
    """A layer and how it is called, as a module of its own, so that its weights can be replaced."""

    def __init__(self, layer, call):
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, pos):
        return self.call(self.layer, pos)


def test_an_energy_is_smooth_where_a_neighbour_goes():
    """With the fading features and bias, and the node itself among its keys; without the bias it jumps."""
    torch.manual_seed(1)
    layer, basis = nn.GraphAttention(1, 6, 2, edge_dim=3), nn.RadialBasis(3, CUTOFF)
    jumps = []
    for bias in (True, False):
        energies = []
        for distance in (CUTOFF - 1e-4, CUTOFF + 1e-4):
            pos = torch.tensor([[0.0], [distance]])
            graph = Within(CUTOFF).on(Data(pos=pos))
            length = lengths(pos, graph.edge_index)
            fade = basis.log_envelope(length) if bias else None
            energies.append(layer(torch.tensor([[1.0], [2.0]]), graph, basis(length), edge_bias=fade).sum().detach())
        jumps.append(float((energies[0] - energies[1]).abs()))
    assert jumps[0] < 1e-6 < 1e-3 < jumps[1]
