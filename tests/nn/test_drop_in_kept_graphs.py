"""The graphs that are kept of edges: shared, made anew when edges change, and freed with them."""

import gc
import io
import threading
import weakref

import pytest
import torch
from drop_in_cases import (
    NAMES,
    C,
    D,
    E,
    N,
    as_matrix,
    assert_same,
    distinct_edges,
    each_layer,
    some_edges,
    sparse_warnings,
)
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from graphformer import AttentionGraph
from graphformer import nn as ours
from graphformer.nn.conv import cache, fused, loops

pytestmark = [pytest.mark.usefixtures("float64"), sparse_warnings]


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
