"""Every kind of adjacency that PyG takes, attention graphs in its place, and the graphs that are kept of them."""

import gc
import io
import threading
import weakref

import pytest
import torch
from drop_in_cases import GATS, NAMES, C, D, E, F, N, assert_same, counted, distinct_edges, some_edges, twins
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from graphformer import AttentionGraph, GraphformerError
from graphformer import nn as ours
from graphformer.nn.conv import cache, fused, loops
from graphformer.patterns import Edges, Expander, Window

pytestmark = pytest.mark.filterwarnings("ignore:Sparse :UserWarning")  # torch's own, about its sparse tensors
each_layer = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------- EdgeIndex


@each_layer
def test_edge_index_of_every_kind(name):
    edge_index, x = distinct_edges(), torch.randn(N, C)
    by_source = edge_index[:, edge_index[0].argsort(stable=True)]
    theirs, mine = twins(name, edge_dim=F)
    for known in (
        EdgeIndex(edge_index),
        EdgeIndex(edge_index, sparse_size=(N, N)),
        EdgeIndex(edge_index, sparse_size=(N, N), sort_order="col"),
        EdgeIndex(edge_index, sparse_size=(N, N), sort_order="col").fill_cache_(),
        EdgeIndex(by_source, sparse_size=(N, N), sort_order="row").fill_cache_(),
        EdgeIndex(edge_index, sparse_size=(N, N)).sort_by("row").values,
        EdgeIndex(edge_index, sparse_size=(None, N)),
    ):
        edge_attr = torch.randn(E, F)
        expected, found = (layer(x, known, edge_attr, return_attention_weights=True) for layer in (theirs, mine))
        assert type(found[1][0]) is type(expected[1][0]) is EdgeIndex
        assert found[1][0].sparse_size() == expected[1][0].sparse_size()
        assert_same(
            [found[0], found[1][0].as_tensor(), found[1][1]], [expected[0], expected[1][0].as_tensor(), expected[1][1]]
        )
    assert_same(mine(x, known, edge_attr), mine(x, edge_index, edge_attr))


@each_layer
def test_what_is_written_to_the_tensor_in_an_edge_index_is_seen(name):
    layer, x, plain = getattr(ours, name)(C, D), torch.randn(N, C), distinct_edges()
    known = EdgeIndex(plain, sparse_size=(N, N))
    layer(x, known)
    plain.copy_(plain.flip(0))
    assert_same(layer(x, known), layer(x, plain.clone()))


# ---------------------------------------------------------------- torch's sparse matrices


def as_matrix(edge_index, values, layout, num_nodes=N):
    """A transposed adjacency of edges that come by target; its values are in the order of the edges."""
    source, target = edge_index
    size = (num_nodes, num_nodes, *values.shape[1:])
    if layout == "coo":
        return torch.sparse_coo_tensor(torch.stack((target, source)), values, size, is_coalesced=True)
    ptr = torch.zeros(num_nodes + 1, dtype=torch.int64)
    ptr[1:] = torch.bincount(target, minlength=num_nodes).cumsum(0)
    return torch.sparse_csr_tensor(ptr, source, values, size)


@each_layer
@pytest.mark.parametrize("layout", ["coo", "csr"])
@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("edge_dim", [None, F])
def test_matrices_hold_edges_and_their_features(name, layout, loops, edge_dim):
    options = {} if name == "TransformerConv" else {"add_self_loops": loops}
    theirs, mine = twins(name, edge_dim=edge_dim, **options)
    edge_index, x = distinct_edges(), torch.randn(N, C)
    found = []
    # PyG cannot differentiate its loops in a matrix of this layout.
    has_grad = bool(edge_dim) and not (name in GATS and loops and layout == "coo")
    for layer in (theirs, mine):
        torch.manual_seed(5)
        values = torch.randn((E, F) if edge_dim else (E,), requires_grad=has_grad)
        matrix = as_matrix(edge_index, values, layout)
        # PyG cannot return weights in a matrix that holds features.
        asks = {} if edge_dim and name != "TransformerConv" else {"return_attention_weights": True}
        result = layer(x, matrix, **asks)
        out = result[0] if asks else result
        grads = torch.autograd.grad(out.square().sum(), values) if has_grad else ()
        found.append((result, *grads))
    assert_same(found[1], found[0])
    if asks:
        assert result[1][0].layout == matrix.layout
    else:
        out, (where, alpha) = mine(x, matrix, return_attention_weights=True)
        assert_same(out, result)
        assert where.layout == matrix.layout
        assert where.shape == (N, N, 2)
        assert_same(where.to_dense().sum(1), torch.zeros(N, 2) + (where.to_dense() > 0).any(1))
        assert torch.equal(where.values(), alpha)


@pytest.mark.parametrize("name", GATS)
def test_features_beside_a_matrix_go_by_its_entries(name):
    theirs, mine = twins(name, edge_dim=F, add_self_loops=False)
    edge_index, edge_attr, x = distinct_edges(), torch.randn(E, F), torch.randn(N, C)
    matrix = as_matrix(edge_index, torch.ones(E), "csr")
    assert_same(mine(x, matrix, edge_attr), theirs(x, matrix, edge_attr))
    assert_same(mine(x, matrix, edge_attr), mine(x, edge_index, edge_attr))


@each_layer
def test_matrices_that_pyg_does_not_read(name):
    """By columns and uncoalesced: features and weights are in the order in which the entries are stored."""
    layer = getattr(ours, name)(C, D, edge_dim=F, **({} if name == "TransformerConv" else {"add_self_loops": False}))
    edge_index, x = distinct_edges()[:, torch.randperm(E)], torch.randn(N, C)
    values = torch.randn(E, F)
    expected, (_, alpha) = layer(x, edge_index, values, return_attention_weights=True)

    loose = torch.sparse_coo_tensor(edge_index.flip(0), values, (N, N, F))
    out, (_, found) = layer(x, loose, return_attention_weights=True)
    assert_same((out, found), (expected, alpha))
    assert not loose.is_coalesced()
    with pytest.raises(GraphformerError, match=f"{name}: edge_index must be coalesced where its values have gradients"):
        layer(x, loose.requires_grad_())

    order = (edge_index[0] * N + edge_index[1]).argsort()
    ptr = torch.zeros(N + 1, dtype=torch.int64)
    ptr[1:] = torch.bincount(edge_index[0], minlength=N).cumsum(0)
    by_column = torch.sparse_csc_tensor(ptr, edge_index[1, order], values[order], (N, N, F))
    out, (where, found) = layer(x, by_column, return_attention_weights=True)
    assert_same((out, found), (expected, alpha[order]))
    assert where.layout == torch.sparse_csc


@each_layer
def test_an_uncoalesced_matrix_stays_one_and_its_copies_count(name):
    options = {} if name == "TransformerConv" else {"add_self_loops": False}  # which would make copies one, as in PyG
    layer, x = getattr(ours, name)(C, D, **options), torch.randn(N, C)
    edge_index = torch.tensor([[3, 3, 1, 0], [0, 0, 2, 5]])
    matrix = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(4), (N, N))
    assert_same(layer(x, matrix), layer(x, edge_index))
    assert not matrix.is_coalesced()


def test_transformer_conv_adds_stored_features_that_it_has_no_map_for():
    theirs, mine = twins("TransformerConv")
    edge_index, values, x = distinct_edges(), torch.randn(E, 1, 1), torch.randn(N, C)
    matrix = as_matrix(edge_index, values, "coo")
    with counted() as paths:
        found = mine(x, matrix)
    assert paths == {"messages": 1}
    assert_same(found, theirs(x, matrix))


@each_layer
def test_sparse_tensors(name):
    torch_sparse = pytest.importorskip("torch_sparse", reason="torch-sparse is built from source; not installed here")
    edge_index, x = distinct_edges(), torch.randn(N, C)
    plain = torch_sparse.SparseTensor.from_edge_index(edge_index, sparse_sizes=(N, N)).t()
    theirs, mine = twins(name)
    found, expected = (layer(x, plain, return_attention_weights=True) for layer in (mine, theirs))
    assert_same(found, expected)
    assert_same(mine(x, plain), mine(x, edge_index))
    bipartite = torch_sparse.SparseTensor.from_edge_index(some_edges(N, 5), sparse_sizes=(N, 5)).t()
    theirs, mine = twins(name, (C, 5))
    pair = (x, torch.randn(5, 5))
    assert_same(mine(pair, bipartite), theirs(pair, bipartite))
    if name == "GATConv":
        assert_same(mine((x, None), bipartite), theirs((x, None), bipartite))

    theirs, mine = twins(name, edge_dim=F, **({} if name == "TransformerConv" else {"add_self_loops": False}))
    edge_attr = torch.randn(E, F, requires_grad=True)
    found = []
    for layer in (mine, theirs):
        valued = torch_sparse.SparseTensor.from_edge_index(edge_index, edge_attr, (N, N)).t()
        out = layer(x, valued)
        found.append((out, *torch.autograd.grad(out.square().sum(), edge_attr)))
    assert_same(*found)
    if name != "TransformerConv":
        for layer in twins(name, edge_dim=F):
            with pytest.raises(NotImplementedError):
                layer(x, valued)
    for layer in twins(name, flow="target_to_source"):
        with pytest.raises(ValueError, match='Flow direction "target_to_source" is invalid'):
            layer(x, plain)


# ---------------------------------------------------------------- attention graphs in the place of an edge index


def unfuse(layer):
    layer.register_propagate_forward_hook(lambda *_: None)
    return layer


@each_layer
@pytest.mark.parametrize("unfused", [False, True])
def test_an_attention_graph_is_its_pairs(name, unfused):
    layer, x = getattr(ours, name)(C, D, heads=2, edge_dim=F), torch.randn(N, C)
    graph = Window(2).on(N)
    edge_attr = torch.randn(graph.num_edges, F)
    expected = layer(x, graph.edge_index.clone(), edge_attr, return_attention_weights=True)
    if unfused:
        unfuse(layer)
    with counted() as paths:
        found = layer(x, graph, edge_attr, return_attention_weights=True)
    assert paths == ({"messages": 1} if unfused else {"kernel": 1})
    assert_same(found, expected)


@each_layer
@pytest.mark.parametrize("unfused", [False, True])
def test_features_follow_the_node_sets_own_edges(name, unfused):
    data = Data(edge_index=distinct_edges(), num_nodes=N)
    graph = (Edges() | Expander(degree=4, seed=1)).on(data)
    assert graph.num_edges > graph.num_own_edges == E
    layer, x, edge_attr = getattr(ours, name)(C, D, heads=2, edge_dim=F), torch.randn(N, C), torch.randn(E, F)
    dense = torch.zeros(N, N, F)  # by (source, target): the node set's features, zeros elsewhere
    dense[data.edge_index[0], data.edge_index[1]] = edge_attr
    pairs = graph.edge_index.clone()
    expected = layer(x, pairs, dense[pairs[0], pairs[1]])
    if unfused:
        unfuse(layer)
    assert_same(layer(x, graph, edge_attr), expected)
    with pytest.raises(AssertionError):
        assert_same(layer(x, graph, edge_attr.roll(1, 0)), expected)
    with pytest.raises(GraphformerError, match=rf"{name}: edge_attr must have E = {E} rows; got \[20, 3\]"):
        layer(x, graph, torch.randn(E + 1, F))


@each_layer
@pytest.mark.parametrize("unfused", [False, True])
def test_attention_graphs_that_do_not_fit(name, unfused):
    layer = getattr(ours, name)(C, D)
    reverse = getattr(ours, name)(C, D, flow="target_to_source")
    if unfused:
        unfuse(layer), unfuse(reverse)
    with pytest.raises(GraphformerError, match=rf"{name}: edge_index must have .* \(7, 7\) like x; got \(9, 9\)"):
        layer(torch.randn(N, C), Window(1).on(9))
    with pytest.raises(
        GraphformerError, match=f'{name}: edge_index must be an edge index .* "target_to_source"; got Att'
    ):
        reverse(torch.randn(N, C), Window(1).on(N))


def test_gat_conv_attends_over_a_graph_of_two_sets_without_targets():
    layer, x = ours.GATConv((C, 5), D), torch.randn(N, C)
    graph = AttentionGraph.from_edge_index(distinct_edges(N, 5), size=(N, 5))
    assert_same(layer((x, None), graph), layer((x, None), graph.edge_index.clone(), size=(N, 5)))


# ---------------------------------------------------------------- graphs that are kept


class Counter:
    """Counts the graphs and the loops that are made."""

    def __init__(self, monkeypatch):
        self.graphs = self.loops = 0
        lay_out, replaced = fused._lay_out, loops._replaced
        monkeypatch.setattr(fused, "_lay_out", lambda *given: self.count("graphs", lay_out(*given)))
        monkeypatch.setattr(loops, "_replaced", lambda *given: self.count("loops", replaced(*given)))

    def count(self, name, made):
        setattr(self, name, getattr(self, name) + 1)
        self.last = weakref.ref(made) if isinstance(made, AttentionGraph) else self.last
        return made

    last = None


@pytest.fixture
def made(monkeypatch):
    return Counter(monkeypatch)


def test_layers_share_one_graph(made):
    edge_index, x = some_edges(), torch.randn(N, C)
    for _ in range(2):
        for name in NAMES:
            getattr(ours, name)(C, D)(x, edge_index)
    assert (made.graphs, made.loops) == (2, 1)  # with loops and without
    ours.GATConv((C, C), D)((x, torch.randn(N + 2, C)), edge_index)  # as many loops, another graph
    assert (made.graphs, made.loops) == (3, 1)
    ours.TransformerConv(C, D, flow="target_to_source")(x, edge_index)
    assert (made.graphs, made.loops) == (4, 1)


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_layers_share_the_graph_of_a_matrix(made, layout):
    matrix, x = as_matrix(distinct_edges(), torch.ones(E), layout), torch.randn(N, C)
    for name in (*NAMES, *NAMES):
        getattr(ours, name)(C, D)(x, matrix)
    assert made.graphs == 2


WRITES = {
    "copy_": lambda edges: edges.copy_(edges.flip(0)),
    "an element": lambda edges: edges.__setitem__((0, 3), (edges[0, 3] + 1) % N),
    "through a view": lambda edges: edges[1].copy_(edges[1].flip(0)),
    "out=": lambda edges: torch.remainder(edges + 1, N, out=edges),
    "set_": lambda edges: edges.set_(distinct_edges(num_edges=12)),
    "data": lambda edges: setattr(edges, "data", edges.flip(0)),
    "data of another size": lambda edges: setattr(edges, "data", distinct_edges(num_edges=12)),
}


@each_layer
@pytest.mark.parametrize("write", WRITES)
def test_edges_written_in_place_give_the_new_result(name, write):
    layer, x, edge_index = getattr(ours, name)(C, D), torch.randn(N, C), some_edges()
    before = layer(x, edge_index)
    WRITES[write](edge_index)
    found = layer(x, edge_index)
    assert_same(found, layer(x, edge_index.clone()))
    assert not torch.equal(found, before)


@each_layer
def test_a_matrix_written_in_place_gives_the_new_result(name):
    layer, x = getattr(ours, name)(C, D), torch.randn(N, C)
    matrix = as_matrix(distinct_edges(), torch.ones(E), "csr")
    layer(x, matrix)
    matrix.col_indices().copy_(matrix.col_indices().add(1).remainder(N))
    assert_same(layer(x, matrix), layer(x, matrix.clone()))


def test_a_graph_dies_with_its_edges(made):
    x, edge_index = torch.randn(N, C), some_edges()
    for name in NAMES:
        ours_layer = getattr(ours, name)(C, D)
        ours_layer(x, edge_index).sum().backward()
    graph, kept = made.last, len(cache._KEPT.entries)
    assert graph() is not None
    del edge_index
    gc.collect()
    assert graph() is None
    assert len(cache._KEPT.entries) < kept


def test_another_tensor_at_the_same_address_is_another(made):
    layer, x, storage = ours.GATConv(C, D), torch.randn(N, C), torch.empty(2, E, dtype=torch.int64)
    for _ in range(3):
        edge_index = storage.view(2, E)  # a new tensor over old memory
        storage.copy_(some_edges())
        assert_same(layer(x, edge_index), layer(x, edge_index.clone()))
    for _ in range(20):  # ids of freed tensors come again
        edge_index = some_edges()
        assert_same(layer(x, edge_index), layer(x, edge_index.clone()))


def test_views_of_one_tensor_are_told_apart():
    layer, x, both = ours.TransformerConv(C, D), torch.randn(N, C), torch.cat((some_edges(), some_edges()), 1)
    first, second = both[:, :E], both[:, E:]
    outs = layer(x, first), layer(x, second)
    assert_same(outs, (layer(x, first.clone()), layer(x, second.clone())))
    both.copy_(both.flip(1))
    assert_same((layer(x, first), layer(x, second)), (layer(x, first.clone()), layer(x, second.clone())))


def test_no_more_than_a_few_are_kept(made):
    layer, x, many = ours.TransformerConv(C, D), torch.randn(N, C), [some_edges() for _ in range(3 * cache._MOST)]
    for _ in range(2):
        for edge_index in many:
            layer(x, edge_index)
    assert len(cache._KEPT.entries) <= cache._MOST
    count = made.graphs
    layer(x, many[-1])
    assert made.graphs == count


def test_inference_mode(made):
    layer, x = ours.GATConv(C, D), torch.randn(N, C)
    with torch.inference_mode():
        inside = some_edges()
        first = layer(x, inside)
        inside.copy_(inside.flip(0))
        assert not torch.equal(layer(x, inside), first)  # tensors of inference mode have no version: nothing is kept
    outside = inside.clone()
    with torch.inference_mode():
        count = made.graphs
        assert_same(layer(x, outside), layer(x, outside))
        assert made.graphs == count + 1
    layer(x, outside).sum().backward()  # what was made inside is good outside
    assert layer.lin.weight.grad is not None


def test_threads():
    """Many threads, on shared tensors and on their own; none throws out what another keeps."""
    layer, x, errors = ours.TransformerConv(C, D), torch.randn(N, C), []
    shared = [some_edges() for _ in range(5)]
    expected = [layer(x, edge_index.clone()) for edge_index in shared]
    count, each = 6, cache._MOST - len(shared)
    meet = threading.Barrier(count, timeout=60)

    def work(number):
        try:
            draw = torch.Generator().manual_seed(number)
            own = [torch.randint(N, (2, E), generator=draw) for _ in range(each)]
            meet.wait()
            for step, edge_index in enumerate(own):
                assert torch.allclose(layer(x, shared[step % 5]), expected[step % 5])
                layer(x, edge_index)
            meet.wait()
            assert all(edge_index in cache._KEPT.entries for edge_index in own)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test shall tell it
            errors.append(error)
            meet.abort()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


class Encoded(torch.utils.data.Dataset):
    """Graphs that go through a layer in the worker process."""

    def __init__(self, layer):
        self.layer, self.x, self.edge_index = layer, torch.randn(N, C), some_edges()

    def __len__(self):
        return 8

    def __getitem__(self, index):
        with torch.no_grad():
            out = self.layer(self.x + index, self.edge_index)
        return Data(x=self.x + index, edge_index=self.edge_index, out=out)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_and_batches():
    data = Encoded(ours.GATConv(C, D))
    data[0]  # a graph is kept when the workers are forked
    for workers in (0, 2):
        for batch in DataLoader(
            data, batch_size=4, num_workers=workers, multiprocessing_context="fork" if workers else None
        ):
            assert_same(data.layer(batch.x, batch.edge_index), batch.out)


@pytest.mark.parametrize(
    "kind", [lambda edges: edges, lambda edges: EdgeIndex(edges, sparse_size=(N, N))], ids=["tensor", "EdgeIndex"]
)
def test_a_batch_is_stored_after_use_as_before(kind):
    data = Data(x=torch.randn(N, C), edge_index=kind(some_edges()))

    def stored():
        buffer = io.BytesIO()
        torch.save(data, buffer)
        return buffer.getvalue()

    before = stored()
    for name in NAMES:
        getattr(ours, name)(C, D)(data.x, data.edge_index)
    assert stored() == before
