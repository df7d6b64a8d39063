"""Graphs on PyG data: stored on samples, united in batches, moved, split and sent between processes."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData, InMemoryDataset
from torch_geometric.loader import DataLoader

from graphformer import AttentionGraph
from graphformer._errors import InputError
from graphformer.graphs import attach
from graphformer.graphs.united import UnitedGraphs
from graphformer.patterns import Edges, Hops


class Molecule(Data):
    """A user's own data class."""


def samples(base: type[Data] = Data) -> list[Data]:
    out = []
    for num_nodes in (2, 3, 4, 5):
        edge_index = torch.stack((torch.arange(num_nodes), torch.arange(num_nodes).roll(1)))
        graph = AttentionGraph.from_edge_index(edge_index, num_nodes=num_nodes)
        out.append(attach(base(x=torch.zeros(num_nodes, 1), edge_index=edge_index), graph))
    return out


@pytest.mark.parametrize("base", [Data, Molecule])
@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loader_unites_the_graphs(base: type[Data], num_workers: int) -> None:
    loader = DataLoader(samples(base), batch_size=2, num_workers=num_workers)
    for batch in loader:
        assert isinstance(batch, base)
        assert torch.equal(batch.attention_graph.edge_index, batch.edge_index)
        assert batch.attention_graph.num_queries == batch.num_nodes


def test_the_union_is_made_once_and_follows_a_move() -> None:
    batch = Batch.from_data_list(samples())
    assert batch.attention_graph is batch.attention_graph
    assert batch.cpu().attention_graph is batch.attention_graph
    assert batch.share_memory_().attention_graph.by_query.ptr.is_shared()
    assert batch.to("meta").attention_graph.device.type == "meta"


@pytest.mark.parametrize("act", [lambda b: b.to("cpu"), lambda b: b.share_memory_(), lambda b: pickle.dumps(b)])
def test_a_batch_travels_as_one_graph(act: object) -> None:
    """Neither a worker's pickle nor a move touches the members' tensors one by one."""
    batch = Batch.from_data_list(samples())
    act(batch)
    assert isinstance(batch["attention_graph"], UnitedGraphs)
    assert torch.equal(batch.attention_graph.edge_index, batch.edge_index)


FEW_FILES = """
import resource, torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from graphformer.patterns import Edges, Hops

pattern = Edges(self_loops=True).as_relation(0) | Hops(2).as_relation(1)
ring = torch.arange(9)
edge_index = torch.stack((ring, ring.roll(1)))
samples = [pattern(Data(x=torch.zeros(9, 1), edge_index=edge_index)) for _ in range(640)]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = list(DataLoader(samples, batch_size=64, num_workers=2))
print(sum(batch.attention_graph.num_queries for batch in held))
"""


@pytest.mark.slow
def test_workers_need_few_file_descriptors() -> None:
    out = subprocess.run([sys.executable, "-c", FEW_FILES], capture_output=True, text=True, timeout=60, check=False)
    assert out.stdout.split() == [str(9 * 640)], out.stderr


def test_a_batch_can_be_taken_apart() -> None:
    originals = samples()
    batch = Batch.from_data_list(originals)
    for same in (batch, pickle.loads(pickle.dumps(batch)), batch.cpu()):
        for original, again in zip(originals, same.to_data_list(), strict=True):
            assert type(again) is type(original)
            assert again.attention_graph == original.attention_graph
        assert same[1:3][1].attention_graph == originals[2].attention_graph


@pytest.mark.parametrize("act", [lambda b: b, lambda b: b.cpu(), lambda b: pickle.loads(pickle.dumps(b))])
def test_batches_of_batches(act: object) -> None:
    first, second = Batch.from_data_list(samples()[:2]), Batch.from_data_list(samples()[1:])
    both = act(Batch.from_data_list([act(first), second]))
    assert both.attention_graph == AttentionGraph.union([first.attention_graph, second.attention_graph])
    assert both[1].attention_graph == second.attention_graph
    pattern = Edges() | Hops(2)
    given = [pattern(Batch.from_data_list(samples()[:2])), pattern(Batch.from_data_list(samples()[1:]))]
    both = act(Batch.from_data_list(given))
    assert both.attention_graph == AttentionGraph.union([batch.attention_graph for batch in given])


@pytest.mark.parametrize("base", [Data, Molecule])
def test_copies(base: type[Data]) -> None:
    sample = samples(base)[1]
    for other in (copy.copy(sample), copy.deepcopy(sample), pickle.loads(pickle.dumps(sample))):
        assert isinstance(other, base)
        assert other.attention_graph == sample.attention_graph
    batch = Batch.from_data_list(samples(base))
    assert pickle.loads(pickle.dumps(batch)).attention_graph == batch.attention_graph


def test_the_original_is_left_alone() -> None:
    data = Data(x=torch.zeros(2, 1))
    attach(data, AttentionGraph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), num_nodes=2))
    assert type(data) is Data
    assert "attention_graph" not in data


def test_a_graph_for_a_whole_batch() -> None:
    batch = Batch.from_data_list([Data(x=torch.zeros(2, 1)), Data(x=torch.zeros(3, 1))])
    graph = AttentionGraph.from_edge_index(torch.tensor([[0, 2], [1, 4]]), num_nodes=5)
    assert attach(batch, graph).attention_graph == graph
    assert attach(Batch.from_data_list(samples()[:2]), graph).attention_graph == graph
    molecules = attach(Batch.from_data_list([Molecule(x=torch.zeros(5, 1))]), graph)
    assert isinstance(molecules, Molecule)
    assert isinstance(molecules, Batch)
    assert molecules.num_graphs == 1
    assert pickle.loads(pickle.dumps(molecules)).attention_graph == graph


def test_a_carrier_is_at_home_where_its_base_is() -> None:
    assert type(samples(Molecule)[0]).__module__ == __name__
    assert type(samples()[0]).__module__ == Data.__module__


class Rings(InMemoryDataset):
    """A data set on disk whose samples carry a graph."""

    def __init__(self, root: str, pattern: object) -> None:
        super().__init__(root, pre_transform=pattern)
        self.load(self.processed_paths[0])

    @property
    def processed_file_names(self) -> str:
        return "rings.pt"

    def process(self) -> None:
        kept = [Data(x=s.x, edge_index=s.edge_index) for s in samples()]
        self.save([self.pre_transform(data) for data in kept], self.processed_paths[0])


READ_AGAIN = """
import sys, torch
import graphformer.patterns
import torch_geometric.data
values, slices, kind = torch.load(sys.argv[1], weights_only=True)
print(kind.__name__, len(values["attention_graph"]))
"""


def test_a_saved_data_set_loads_without_trust(tmp_path: Path) -> None:
    pattern = Edges() | Hops(2)
    for dataset in (Rings(str(tmp_path), pattern), Rings(str(tmp_path), pattern)):  # PyG warns where trust is needed
        assert [data.attention_graph for data in dataset] == [pattern.on(data) for data in samples()]
        assert Batch.from_data_list(list(dataset)).attention_graph == AttentionGraph.union(
            [data.attention_graph for data in dataset]
        )


@pytest.mark.slow
def test_another_process_loads_it_too(tmp_path: Path) -> None:
    dataset = Rings(str(tmp_path), Edges())
    fresh = [sys.executable, "-c", READ_AGAIN, dataset.processed_paths[0]]
    out = subprocess.run(fresh, capture_output=True, text=True, timeout=60, check=False)
    assert out.stdout.split() == ["DataWithAttention", "4"], out.stderr


GRAPH = AttentionGraph.from_edge_index(torch.tensor([[0], [1]]), num_nodes=2)


@pytest.mark.parametrize(
    ("data", "graph", "message"),
    [
        ({}, GRAPH, "attach: data must be a PyG Data or HeteroData, or a Batch of these; got dict. Keep"),
        (HeteroData(), GRAPH, "attach: graph must have one query for each of the 0 nodes of data; got 2 queries. Make"),
        (Data(x=torch.zeros(2, 1)), "graph", "attach: graph must be an AttentionGraph; got str. Make"),
        (
            Data(x=torch.zeros(3, 1)),
            GRAPH,
            "attach: graph must have one query for each of the 3 nodes of data; got 2 queries. Make",
        ),
    ],
    ids=["dict", "hetero", "no graph", "other nodes"],
)
def test_refusals_of_attach(data: object, graph: object, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        attach(data, graph)


def test_graphs_that_do_not_go_together_are_told_where_they_are_read() -> None:
    """Also after a pickle: a worker that raised there would leave the loader waiting."""
    related = AttentionGraph.from_edge_index(torch.tensor([[0], [1]]), num_nodes=2, relation=torch.tensor([0]))
    mixed = [attach(Data(x=torch.zeros(2, 1)), graph) for graph in (GRAPH, related)]
    batch = pickle.loads(pickle.dumps(Batch.from_data_list(mixed)))
    with pytest.raises(InputError, match=r"graphs must all carry relation or none; got 1 of 2\. Make"):
        _ = batch.attention_graph
    with pytest.raises(InputError, match=r"graphs must all carry relation or none; got 1 of 2\. Make"):
        batch.to("cpu")


def test_a_missing_graph_is_a_missing_attribute() -> None:
    for batch in (Batch.from_data_list(samples(), exclude_keys=["attention_graph"]), Data(x=torch.zeros(2, 1))):
        assert not hasattr(batch, "attention_graph")
        with pytest.raises(AttributeError, match="has no attribute 'attention_graph'"):
            _ = batch.attention_graph
