"""The corners of PyG's attention layers: inputs that are odd, empty or wrong, and what the layers say of themselves."""

import copy
import io
import pickle

import pytest
import torch
import torch_geometric.nn as pyg
from drop_in_cases import GATS, NAMES, C, D, E, F, N, assert_same, counted, distinct_edges, some_edges, tensors, twins
from torch_geometric import EdgeIndex

from graphformer import GraphformerError
from graphformer import nn as ours
from graphformer.testing import assert_close

pytestmark = pytest.mark.filterwarnings("ignore:Sparse :UserWarning")  # torch's own, about its sparse tensors
each_layer = pytest.mark.parametrize("name", NAMES)
each_gat = pytest.mark.parametrize("name", GATS)


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------- what a layer says of itself


@each_layer
def test_repr_is_pygs(name):
    assert repr(getattr(ours, name)(8, 32, heads=2)) == f"{name}(8, 32, heads=2)"
    assert repr(getattr(ours, name)((8, 16), 32)) == f"{name}((8, 16), 32, heads=1)"
    assert repr(getattr(ours, name)(-1, 4)) == f"{name}(-1, 4, heads=1)"


@each_layer
def test_one_seed_gives_pygs_weights(name):
    layers = []
    for module in (pyg, ours):
        torch.manual_seed(3)
        layers.append(getattr(module, name)((C, 5), D, heads=2, edge_dim=F))
    for theirs, mine in zip(*(layer.state_dict().items() for layer in layers), strict=True):
        assert theirs[0] == mine[0]
        assert torch.equal(theirs[1], mine[1])
    before = copy.deepcopy(layers[1].state_dict())
    layers[1].reset_parameters()
    assert not torch.equal(layers[1].lin_edge.weight, before["lin_edge.weight"])
    torch.manual_seed(3)
    layers[0].reset_parameters()
    torch.manual_seed(3)
    layers[1].reset_parameters()
    assert_same(list(layers[1].state_dict().values()), list(layers[0].state_dict().values()))


@each_layer
def test_state_travels_and_nothing_is_left_behind(name):
    layer, x, edge_index = getattr(ours, name)(C, D, heads=2, edge_dim=F), torch.randn(N, C), some_edges()
    edge_attr, before = torch.randn(E, F), dict(layer.__dict__)
    out = layer(x, edge_index, edge_attr, return_attention_weights=True)[0]
    assert {key: value for key, value in layer.__dict__.items() if value is not before.get(key)} == {}
    assert getattr(layer, "_alpha", None) is None
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    copies = [copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer)), loaded]
    for other in copies:
        assert type(other) is type(layer)
        with counted() as paths:
            assert torch.equal(other(x, edge_index, edge_attr), out)
        assert paths == {"kernel": 1}


@each_layer
def test_lazy_widths_are_taken_from_the_first_input(name):
    x, edge_index, edge_attr = (torch.randn(N, C), torch.randn(N, 5)), some_edges(), torch.randn(E, F)
    for widths, nodes in ((-1, x[0]), ((-1, -1), x)):
        layers = []
        for module in (pyg, ours):
            layer = getattr(module, name)(widths, D, heads=2, edge_dim=-1)
            twin = copy.deepcopy(layer)
            twin.load_state_dict(layer.state_dict())  # still without widths
            layer(nodes, edge_index, edge_attr)
            twin.load_state_dict(layer.state_dict())
            layers.append(twin)
        layers[1].load_state_dict(layers[0].state_dict())
        assert_same(layers[1](nodes, edge_index, edge_attr), layers[0](nodes, edge_index, edge_attr))
        assert layers[1].lin_edge.weight.shape == (2 * D, F)
        assert layers[1].why_unfused() == []


# ---------------------------------------------------------------- weights


@each_layer
def test_weights_are_returned_as_pyg_returns_them(name):
    theirs, mine = twins(name)
    x, edge_index = torch.randn(N, C), some_edges()
    for asked in (None, False, True):
        expected, found = (layer(x, edge_index, return_attention_weights=asked) for layer in (theirs, mine))
        assert type(found) is type(expected)
        assert isinstance(found, tuple) == (asked is True or (asked is False and name == "TransformerConv"))
        assert_same(found, expected)
    out, (pairs, alpha) = mine(x, edge_index, return_attention_weights=True)
    assert torch.equal(out, mine(x, edge_index))
    assert float(alpha.detach().min()) >= 0
    assert float(alpha.detach().max()) <= 1
    total = torch.zeros(N, 2).index_add(0, pairs[1], alpha)
    has_pairs = torch.bincount(pairs[1], minlength=N) > 0
    assert_close(total, has_pairs.to(total.dtype)[:, None].expand(-1, 2))
    assert bool(has_pairs.all()) == (name != "TransformerConv")


def values_of(layer, x):
    linear = {"TransformerConv": "lin_value", "GATConv": "lin", "GATv2Conv": "lin_l"}[type(layer).__name__]
    return getattr(layer, linear)(x).view(-1, 2, D)


@each_layer
@pytest.mark.parametrize("training", [True, False])
def test_the_weights_are_those_of_the_output(name, training):
    drops = training and name != "TransformerConv"  # whose weights are those before dropout
    layer = getattr(ours, name)(C, D, heads=2, dropout=0.5 if drops else 0.0, bias=False, **no_skip(name))
    x, edge_index = torch.randn(N, C), some_edges()
    out, (pairs, alpha) = layer.train(training)(x, edge_index, return_attention_weights=True)
    assert_close(
        out.view(N, 2, D),
        torch.zeros(N, 2, D).index_add(0, pairs[1], alpha[:, :, None] * values_of(layer, x)[pairs[0]]),
    )
    assert bool((alpha == 0).any()) == drops


def no_skip(name):
    return {"root_weight": False} if name == "TransformerConv" else {}


@each_layer
def test_dropout_has_its_probability_and_keeps_the_mean(name):
    """Over many targets that attend alike, the share of weights dropped and the mean are those of the probability."""
    count, p = 4000, 0.3
    layer = getattr(ours, name)(1, 1, dropout=p, bias=False, **no_skip(name))
    x = torch.ones(2 * count, 1)
    edge_index = torch.stack((torch.arange(count) + count, torch.arange(count)))
    if name != "TransformerConv":
        layer.add_self_loops = False
    with torch.no_grad():
        whole = layer.eval()(x, edge_index)[:count]
        first, second = layer.train()(x, edge_index)[:count], layer(x, edge_index)[:count]
    ratio = first / whole
    kept = ratio != 0
    assert_close(ratio[kept], torch.full_like(ratio[kept], 1 / (1 - p)))
    assert abs(float((~kept).double().mean()) - p) < 4 * (p * (1 - p) / count) ** 0.5
    assert not torch.equal(first, second)
    assert torch.equal(layer.eval()(x, edge_index)[:count], whole)


@each_layer
def test_dropout_follows_torchs_seed(name):
    layer, x, edge_index = getattr(ours, name)(C, D, dropout=0.5), torch.randn(N, C), some_edges()
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(layer(x, edge_index))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


@each_layer
def test_dropout_of_everything_leaves_what_pyg_leaves(name):
    theirs, mine = twins(name, dropout=1.0)
    x, edge_index = torch.randn(N, C), some_edges()
    assert_same(mine(x, edge_index), theirs(x, edge_index))
    assert mine.why_unfused() == ["dropout leaves no weight"]


# ---------------------------------------------------------------- edges that are odd, and none at all


ODD = {
    "no edges": lambda: torch.empty(2, 0, dtype=torch.int64),
    "one loop": lambda: torch.tensor([[2], [2]]),
    "only loops": lambda: torch.arange(N).expand(2, N),
    "loops twice and others": lambda: torch.tensor([[0, 0, 1, 2, 3], [0, 0, 1, 1, 2]]),
    "one pair five times": lambda: torch.tensor([[3] * 5, [1] * 5]),
    "all to one": lambda: torch.stack((torch.arange(N), torch.full((N,), 4))),
    "int32": lambda: some_edges().int(),
    "not contiguous": lambda: some_edges().t().contiguous().t(),
    "every second": lambda: some_edges()[:, ::2],
}


@each_layer
@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("edge_dim", [None, F])
def test_odd_edges(name, odd, edge_dim):
    edge_index, x = ODD[odd](), torch.randn(N, C, requires_grad=True)
    edge_attr = None if edge_dim is None else torch.randn(edge_index.shape[1], F, requires_grad=True)
    found = []
    theirs, mine = twins(name, edge_dim=edge_dim)
    # torch 2.15 gives PyG's layers wrong gradients for int32 indices; ours are those of the same indices in int64.
    for layer, edges in ((theirs, edge_index.long()), (mine, edge_index)):
        out, (pairs, alpha) = layer(x, edges, edge_attr, return_attention_weights=True)
        assert pairs.dtype == (torch.int64 if layer is theirs or name != "TransformerConv" else edge_index.dtype)
        leaves = [x, *([] if edge_attr is None else [edge_attr])]
        grads = torch.autograd.grad(out.square().sum(), leaves, allow_unused=True, materialize_grads=True)
        found.append((out, pairs.long(), alpha, *grads))
    assert_same(found[1], found[0])
    assert all(bool(tensor.isfinite().all()) for tensor in found[1])


@each_layer
def test_no_nodes(name):
    for options in ({}, {"edge_dim": F}):
        theirs, mine = twins(name, **options)
        edge_attr = torch.empty(0, F) if options else None
        arguments = torch.empty(0, C), torch.empty(2, 0, dtype=torch.int64), edge_attr
        assert mine(*arguments).shape == (0, 2 * D)
        assert_same(mine(*arguments, return_attention_weights=True), theirs(*arguments, return_attention_weights=True))


@each_layer
def test_an_empty_list_of_edges_is_float_by_torchs_default(name):
    layer, x = getattr(ours, name)(C, D), torch.randn(N, C)
    assert_same(layer(x, torch.tensor([[], []])), layer(x, torch.empty(2, 0, dtype=torch.int64)))


@each_layer
def test_isolated_nodes_get_what_is_left_of_them(name):
    layer, x = getattr(ours, name)(C, D, heads=2), torch.randn(N, C)
    out = layer(x, torch.tensor([[0], [1]]))
    left = layer.lin_skip(x) if name == "TransformerConv" else values_of(layer, x).flatten(1) + layer.bias
    keep = torch.arange(N) != 1
    assert_close(out[keep], left[keep])


@each_layer
def test_target_to_source_reads_row_0_as_targets(name):
    (_, forward), (_, backward) = twins(name, edge_dim=F), twins(name, edge_dim=F, flow="target_to_source")
    backward.load_state_dict(forward.state_dict())
    x, edge_index, edge_attr = torch.randn(N, C), distinct_edges(), torch.randn(E, F)
    if name != "TransformerConv":
        forward.fill_value = backward.fill_value = 0.5  # a mean is taken over row 1, whatever the flow, as in PyG
    out, (_, alpha) = forward(x, edge_index, edge_attr, return_attention_weights=True)
    reverse, (_, alpha_back) = backward(x, edge_index.flip(0), edge_attr, return_attention_weights=True)
    assert_same((reverse, alpha_back), (out, alpha))


# ---------------------------------------------------------------- edge features


@each_gat
def test_one_feature_an_edge_may_come_as_a_vector(name):
    for fill in ("mean", "max", 0.5):
        theirs, mine = twins(name, edge_dim=1, fill_value=fill)
        x, edge_index, length = torch.randn(N, C), some_edges(), torch.rand(E)
        assert_same(mine(x, edge_index, length), theirs(x, edge_index, length))
        assert_same(mine(x, edge_index, length), mine(x, edge_index, length[:, None]))


def test_transformer_conv_takes_a_vector_too():
    _, layer = twins("TransformerConv", edge_dim=1)
    x, edge_index, length = torch.randn(N, C), some_edges(), torch.rand(E)
    assert_same(layer(x, edge_index, length), layer(x, edge_index, length[:, None]))


def test_transformer_conv_adds_features_that_it_has_no_map_for():
    """PyG adds them to the values as they are; so do we, by PyG's own messages."""
    theirs, mine = twins("TransformerConv")
    x, edge_index = torch.randn(N, C), some_edges()
    for shape in ((E, 2, D), (E, 1, 1)):
        edge_attr = torch.randn(shape)
        with counted() as paths:
            found = mine(x, edge_index, edge_attr)
        assert paths == {"messages": 1}
        assert_same(found, theirs(x, edge_index, edge_attr))


def test_gat_conv_does_not_read_features_without_edge_dim():
    theirs, mine = twins("GATConv")
    x, edge_index, edge_attr = torch.randn(N, C), some_edges(), torch.randn(E, F)
    assert_same(mine(x, edge_index, edge_attr), theirs(x, edge_index, edge_attr))
    assert_same(mine(x, edge_index, edge_attr), mine(x, edge_index))


@each_gat
def test_gats_do_without_features_that_are_not_given(name):
    theirs, mine = twins(name, edge_dim=F)
    x, edge_index = torch.randn(N, C), some_edges()
    assert_same(mine(x, edge_index), theirs(x, edge_index))


@each_gat
def test_loops_of_more_targets_than_sources(name):
    """PyG leaves its room when it fills the loops' features; they are those of the first targets."""
    _, layer = twins(name, (C, 5), edge_dim=F)
    x, edge_attr = (torch.randn(3, C), torch.randn(N, 5)), torch.randn(E, F)
    edge_index = distinct_edges(3, N, E - 1)
    loop_free = edge_index[:, edge_index[0] != edge_index[1]]
    edge_attr = torch.randn(loop_free.shape[1], F)
    mean = torch.stack(
        [edge_attr[loop_free[1] == i].mean(0) if (loop_free[1] == i).any() else torch.zeros(F) for i in range(3)]
    )
    looped = torch.cat((loop_free, torch.arange(3).expand(2, 3)), 1)
    expected = layer(x, loop_free, edge_attr)
    layer.add_self_loops = False
    assert_same(expected, layer(x, looped, torch.cat((edge_attr, mean))))


# ---------------------------------------------------------------- two node sets, sizes


@each_layer
def test_two_sets_of_any_sizes(name):
    for num_sources, num_targets in ((N, 5), (4, N), (N, N)):
        theirs, mine = twins(name, (C, 5))
        x = torch.randn(num_sources, C), torch.randn(num_targets, 5)
        edge_index = some_edges(num_sources, num_targets)
        for pair in (x, list(x)):
            assert_same(
                mine(pair, edge_index, return_attention_weights=True),
                theirs(pair, edge_index, return_attention_weights=True),
            )


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("widths", [(C, 5), C], ids=str)
def test_gat_conv_attends_without_targets(loops, residual, widths):
    theirs, mine = twins("GATConv", widths, add_self_loops=loops, residual=residual)
    x, edge_index = (torch.randn(N, C), None), distinct_edges(N, 5)
    for size in (None, (N, 5)):
        found, expected = (layer(x, edge_index, size=size, return_attention_weights=True) for layer in (mine, theirs))
        assert_same(found, expected)
    matrix = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(E), (5, N)).coalesce()
    for adjacency in (matrix, matrix.to_sparse_csr()):
        assert_same(mine(x, adjacency), theirs(x, adjacency))
        assert mine(x, adjacency).shape[0] == 5
    if not loops:
        known = EdgeIndex(edge_index, sparse_size=(N, 5))
        assert_same(mine(x, known), theirs(x, known))


def test_gat_conv_reads_size():
    theirs, mine = twins("GATConv", (C, 5))
    x, edge_index = (torch.randn(N, C), torch.randn(4, 5)), some_edges(N, 4)
    for size in ((N, 4), [N, 4]):
        assert_same(mine(x, edge_index, size=size), theirs(x, edge_index, size=size))


# ---------------------------------------------------------------- refusals


def ones(*shape):
    return torch.ones(shape, dtype=torch.float64)


EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])
WRONG = [
    (NAMES, {}, (ones(N, C), EDGES[0]), ValueError, r"edge_index must have shape \[2, E\]; got \[3\]\. Row 0 holds"),
    (NAMES, {}, (ones(N, C), EDGES.t()), ValueError, r"edge_index must have shape \[2, E\]; got \[3, 2\]"),
    (NAMES, {}, (ones(N, C), EDGES.double()), ValueError, "edge_index must have an integer dtype; got torch.float64"),
    (NAMES, {}, (ones(N, C), EDGES.tolist()), ValueError, r"edge_index must be a tensor \[2, E\], .* got list"),
    (NAMES, {}, (ones(N, C), EDGES - 1), IndexError, r"hold ids in \[0, 7\) in row [01], .* got -1. .* valid indices"),
    (NAMES, {}, (ones(2, C), EDGES), IndexError, r"edge_index must hold ids in \[0, 2\) in row 0, like .* x; got 2"),
    (NAMES, {}, ((ones(3, C), ones(2, C)), EDGES), IndexError, r"hold ids in \[0, 2\) in row 1, like .* got 2"),
    (NAMES, {"flow": "target_to_source"}, (ones(2, C), EDGES), IndexError, r"hold ids in \[0, 2\) in row 0, .* got 2"),
    (NAMES, {}, (None, EDGES), ValueError, r"x must be a tensor or a pair of tensors; got NoneType. Pass x \[N, C\]"),
    (NAMES, {}, ((ones(N, C),) * 3, EDGES), ValueError, "x must be a tensor or a pair of tensors; got Tensor, Tensor"),
    (("TransformerConv", "GATv2Conv"), {}, ((ones(N, C), None), EDGES), ValueError, "pair of .* got Tensor, NoneType"),
    (GATS, {}, (ones(2, N, C), EDGES), ValueError, r"x must have shape \[N, C\]; got \[2, 7, 6\]. .* static graphs"),
    (
        ("TransformerConv",),
        {"edge_dim": F},
        (ones(N, C), EDGES),
        ValueError,
        "edge_attr must be given where edge_dim = 3; got None. Pass edge_attr",
    ),
    (
        ("GATv2Conv",),
        {},
        (ones(N, C), EDGES, ones(3, F)),
        ValueError,
        r"edge_attr must be None where edge_dim is None; got \[3, 3\]",
    ),
    (NAMES, {"edge_dim": F}, (ones(N, C), EDGES, ones(3, 2)), ValueError, r"edge_attr must have shape \[E, 3\]; got"),
    (
        NAMES,
        {"edge_dim": F},
        (ones(N, C), EDGES, ones(2, F)),
        ValueError,
        r"edge_attr must have E = 3 rows; got \[2, 3\]",
    ),
    (
        ("GATConv",),
        {},
        (ones(N, C), EDGES, None, (N, 5)),
        ValueError,
        r"size must be that of x; got \(7, 5\). x has 7 so",
    ),
    (("GATConv",), {}, ((ones(N, C), None), EDGES, None, (5, N)), ValueError, r"size must be that of x; got \(5, 7\)"),
    (
        NAMES,
        {},
        (ones(N, C), EdgeIndex(EDGES, sparse_size=(9, 9))),
        ValueError,
        r"edge_index must have \(sources, targets\) = \(7, 7\) like x; got \(9, 9\)",
    ),
    (
        NAMES,
        {},
        (ones(N, C), torch.eye(5).to_sparse()),
        ValueError,
        r"\(sources, targets\) = \(7, 7\) like x; got \(5, 5\)",
    ),
    (
        NAMES,
        {"flow": "target_to_source"},
        (ones(N, C), torch.eye(N).to_sparse()),
        ValueError,
        'must be an edge index .* where flow is "target_to_source"; .* Flow direction "target_to_source" is invalid',
    ),
    (
        GATS,
        {"edge_dim": F},
        (ones(N, C), torch.eye(N).to_sparse(), ones(N, F)),
        NotImplementedError,
        "edge_attr must not come with a sparse matrix that is given self loops; got edge_dim = 3",
    ),
]


@pytest.mark.parametrize(
    ("name", "options", "arguments", "error", "message"),
    [(name, *case) for names, *case in WRONG for name in names],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_what_does_not_fit(name, options, arguments, error, message):
    layer = getattr(ours, name)(C, D, **options)
    with pytest.raises(GraphformerError, match=f"^{name}: .*{message}") as caught:
        layer(*arguments)
    assert isinstance(caught.value, error)  # what PyG's own layer raises, or its parent


@each_gat
def test_a_matrix_by_columns_cannot_be_given_loops(name):
    matrix = torch.eye(N).to_sparse_csc()
    for layer in twins(name):
        with pytest.raises(ValueError, match="Unexpected sparse tensor layout"):
            layer(ones(N, C), matrix)


# ---------------------------------------------------------------- derivatives and precision


@each_layer
def test_first_and_second_derivatives(name):
    layer = getattr(ours, name)(3, 2, heads=2, edge_dim=2)
    edge_index = torch.tensor([[0, 1, 2, 2, 1], [1, 0, 1, 1, 1]])
    x, edge_attr = torch.randn(4, 3, requires_grad=True), torch.randn(5, 2, requires_grad=True)
    names, weights = zip(*layer.named_parameters(), strict=True)

    def call(x, edge_attr, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x, edge_index, edge_attr))

    assert torch.autograd.gradcheck(call, (x, edge_attr, *weights))
    assert torch.autograd.gradgradcheck(lambda x, edge_attr: call(x, edge_attr, *weights), (x, edge_attr))
    with counted() as paths:
        call(x, edge_attr, *weights)
    assert paths == {"kernel": 1}


@each_layer
def test_the_gradient_of_a_force_reaches_the_weights(name):
    """Energies to forces: the loss is on the gradient, and its gradient is PyG's for every weight."""
    found = []
    edge_index = distinct_edges()
    for layer in twins(name, edge_dim=1):
        place = torch.linspace(0, 1, 3 * N).view(N, 3).requires_grad_()
        length = (place[edge_index[0]] - place[edge_index[1]]).square().sum(1, keepdim=True)
        energy = layer(torch.cat((place, place), 1), edge_index, length).square().sum()
        (force,) = torch.autograd.grad(energy, place, create_graph=True)
        grads = torch.autograd.grad(force.square().sum(), list(layer.parameters()), allow_unused=True)
        found.append([force, *(torch.zeros(()) if grad is None else grad for grad in grads)])
    for mine, theirs in zip(found[1], found[0], strict=True):
        assert_close(
            mine if mine.dim() else torch.zeros_like(theirs), theirs if theirs.dim() else torch.zeros_like(mine)
        )


@each_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_and_autocast(name, dtype):
    _, layer = twins(name, edge_dim=F, dtype=torch.float32)
    x, edge_index, edge_attr = torch.randn(N, C).float(), some_edges(), torch.randn(E, F).float()
    expected = layer(x, edge_index, edge_attr)
    with torch.autocast("cpu", dtype=dtype):
        under, (_, alpha) = layer(x, edge_index, edge_attr, return_attention_weights=True)
    assert_close(under, expected, dtype)
    assert bool(alpha.isfinite().all())
    under.float().square().sum().backward()
    assert all(weight.grad is None or weight.grad.dtype == torch.float32 for weight in layer.parameters())
    halved = copy.deepcopy(layer).to(dtype)
    with counted() as paths:
        out = halved(x.to(dtype), edge_index, edge_attr.to(dtype))
    assert paths == {"kernel": 1}
    assert out.dtype == dtype
    assert_close(out, expected, dtype)


@each_layer
def test_autocast_gives_pygs_dtype(name):
    theirs, mine = twins(name, dtype=torch.float32)
    x, edge_index = torch.randn(N, C).float(), some_edges()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mine(x, edge_index).dtype == theirs(x, edge_index).dtype


# ---------------------------------------------------------------- laws


@each_layer
def test_order_of_nodes_and_edges(name):
    layer = getattr(ours, name)(C, D, heads=2, edge_dim=F)
    x, edge_index, edge_attr = torch.randn(N, C), some_edges(), torch.randn(E, F)
    out = layer(x, edge_index, edge_attr)
    order = torch.randperm(N)
    assert_close(layer(x[order], order.argsort()[edge_index], edge_attr), out[order])
    shuffle = torch.randperm(E)
    assert_close(layer(x, edge_index[:, shuffle], edge_attr[shuffle]), out)
    with pytest.raises(AssertionError):
        assert_close(layer(x, edge_index, edge_attr[shuffle]), out)


@each_layer
def test_a_batch_is_its_graphs(name):
    layer, counts = getattr(ours, name)(C, D), (3, 1, 6)
    parts = [(torch.randn(n, C), torch.randint(n, (2, 2 * n))) for n in counts]
    starts = [0, 3, 4]
    together = torch.cat([edges + start for (_, edges), start in zip(parts, starts, strict=True)], 1)
    whole = layer(torch.cat([x for x, _ in parts]), together)
    assert_close(whole, torch.cat([layer(x, edges) for x, edges in parts]))


def test_same_can_fail():
    theirs, mine = twins("GATConv")
    x, edge_index = torch.randn(N, C), some_edges()
    with torch.no_grad():
        mine.att_src[0, 0, 0] += 1e-6
    with pytest.raises(AssertionError):
        assert_same(mine(x, edge_index), theirs(x, edge_index))
    with pytest.raises(AssertionError):
        assert_same(tensors(x), [x.float()])
