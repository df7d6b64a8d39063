"""Reading node sets: every accepted form, every refusal."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData

from graphformer import GraphformerError
from graphformer.patterns import Between, Edges, Full, Window
from graphformer.patterns.node_sets import NodeSets, read_nodes


def ptrs(nodes):
    sets = read_nodes(nodes, "test")
    return sets.key_ptr.tolist(), sets.query_ptr.tolist(), sets.is_bipartite


def sample(num_nodes):
    return Data(x=torch.zeros(num_nodes, 2), edge_index=torch.tensor([[0], [num_nodes - 1]]))


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (4, [0, 4]),
        (0, [0, 0]),
        ([], [0]),
        ([3, 0, 2], [0, 3, 3, 5]),
        (sample(3), [0, 3]),
        (Data(num_nodes=0), [0, 0]),
        (Batch.from_data_list([sample(3), sample(2)]), [0, 3, 5]),
        (Data(x=torch.zeros(5, 1), batch=torch.tensor([0, 0, 2, 2, 3])), [0, 2, 2, 4, 5]),
        (Data(num_nodes=0, batch=torch.empty(0, dtype=torch.int64)), [0]),
        (Data(num_nodes=4, ptr=torch.tensor([0, 1, 4], dtype=torch.int32)), [0, 1, 4]),
        (np.int64(4), [0, 4]),
        ([np.int32(3), 2], [0, 3, 5]),
        (torch.tensor([3, 0, 2], dtype=torch.int32), [0, 3, 3, 5]),
        (torch.empty(0, dtype=torch.int64), [0]),
        ([sample(3), sample(2)], [0, 3, 5]),
    ],
    ids=repr,
)
def test_one_node_set(nodes, expected):
    assert ptrs(nodes) == (expected, expected, False)


@pytest.mark.parametrize(
    ("nodes", "key_ptr", "query_ptr"),
    [
        ((3, 5), [0, 3], [0, 5]),
        (([3, 1], [0, 2]), [0, 3, 4], [0, 0, 2]),
        ((sample(3), 5), [0, 3], [0, 5]),
        ((Batch.from_data_list([sample(3), sample(2)]), [1, 4]), [0, 3, 5], [0, 1, 5]),
    ],
    ids=repr,
)
def test_bipartite(nodes, key_ptr, query_ptr):
    assert ptrs(nodes) == (key_ptr, query_ptr, True)


def test_a_list_of_data_is_a_batch():
    listed = [sample(3), sample(2)]
    batch = Batch.from_data_list(listed)
    assert Edges().on(listed) == Edges().on(batch)
    assert Full().on((listed, torch.tensor([1, 4]))) == Full().on(([3, 2], [1, 4]))
    links = Between({("a", "a"): Edges(), ("b", "a"): Full()})
    assert links.on({"a": listed, "b": torch.tensor([2, 1])}) == links.on({"a": batch, "b": [2, 1]})
    assert links.on([{"a": listed[0], "b": 2}, {"a": listed[1], "b": 1}]) == links.on({"a": batch, "b": [2, 1]})
    hetero = [HeteroData({"a": {"x": data.x}, "b": {"x": torch.zeros(2, 1)}}) for data in listed]
    for data, single in zip(hetero, listed, strict=True):
        data["a", "to", "a"].edge_index = single.edge_index
    assert links.on(hetero) == links.on({"a": batch, "b": [2, 2]})


def test_places_and_limits():
    sets = read_nodes(([2, 0, 3], [1, 2, 2]), "test")
    assert sets.query_set.tolist() == [0, 1, 1, 2, 2]
    assert sets.key_set.tolist() == [0, 0, 2, 2, 2]
    assert sets.local_query.tolist() == [0, 0, 1, 0, 1]
    assert sets.local_key.tolist() == [0, 1, 0, 1, 2]
    assert sets.key_start.tolist() == [0, 2, 2, 2, 2]
    assert sets.set_keys.tolist() == [2, 0, 0, 3, 3]
    assert sets.set_queries.tolist() == [1, 2, 2, 2, 2]


def test_read_twice_is_read_once():
    sets = read_nodes([3, 4], "test")
    assert isinstance(sets, NodeSets)
    assert read_nodes(sets, "again") is sets
    assert Window(1).on(sets) == Window(1).on([3, 4])


def test_other_adjacencies_are_read_too():
    dense = torch.zeros(3, 3)
    dense[1, 0] = dense[2, 1] = 1  # rows are queries
    data = SimpleNamespace(num_nodes=3, edge_index=dense.to_sparse_coo())
    assert Edges().on(data).edge_index.tolist() == [[0, 1], [1, 2]]
    assert Edges().on(data).num_own_edges == 2


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (-1, "nodes must count nodes with integers, 0 or more; got -1. Pass lengths, Grids, or PyG Data"),
        ([2, -3], "nodes must count nodes with integers, 0 or more; got -3"),
        ([2, 1.5], "integers, 0 or more; got 1.5"),
        ([True], "integers, 0 or more; got True"),
        (True, "nodes must be a count, a Grid, a list of these, a PyG Data or Batch, .* tuple of these; got bool"),
        ("five", "got str. Pass x.shape.0. for one set of vectors"),
        (torch.tensor([2.0]), r"hold lengths where it is a tensor: integers \[B\], 0 or more; got torch.float32 \[1\]"),
        (torch.tensor([2, -3]), r"0 or more; got torch.int64 \[2\]. Pass x.shape.0. for one set of vectors"),
        (torch.zeros(4, 2).long(), r"0 or more; got torch.int64 \[4, 2\]"),
        (torch.tensor([True]), r"0 or more; got torch.bool \[1\]"),
        ([sample(2), 3], r"hold one kind of single sets as a list; got \['Data', 'int'\]. A list holds"),
        ([sample(2), HeteroData()], r"single sets as a list; got \['Data', 'HeteroData'\]"),
        ([Batch.from_data_list([sample(2)])], r"hold one kind of single sets as a list; got \['DataBatch'\]"),
        ([SimpleNamespace(num_nodes=3)], "integers, 0 or more; got namespace.* Pass lengths, Grids, or PyG Data: one"),
        (HeteroData(), "nodes must name at least one part, by strings; got no part. For example"),
        ((3, 4, 5), r"be a pair \(key nodes, query nodes\) where it is a tuple; got 3 entries. Pass the lengths"),
        (([3, 4], 5), "hold as many sets of keys as of queries; got 2 and 1. Pair each set"),
        (
            SimpleNamespace(num_nodes=None),
            "nodes must know how many nodes it has; got num_nodes=None. Set data.num_nodes or x",
        ),
        (Data(num_nodes=3, batch=torch.tensor([0, 1])), r"nodes.batch must have shape \[N\] = \[3\]; got \[2\]"),
        (Data(num_nodes=3, batch=torch.tensor([1, 0, 1])), r"nodes.batch must be sorted.*; got \[1, 0, 1\]. Reorder"),
        (Data(num_nodes=3, batch=torch.tensor([-1, 0, 1])), "be sorted and not negative"),
        (
            Data(num_nodes=3, batch=torch.zeros(3)),
            "nodes.batch must be a tensor of integers; got torch.float32. Give",
        ),
        (
            Data(num_nodes=3, batch=[0, 0, 1]),
            "nodes.batch must be a tensor of integers; got list. Give the set",
        ),
        (Data(num_nodes=3, ptr=[0, 3]), "nodes.ptr must be a tensor of integers; got list. Give the offsets"),
        (Data(num_nodes=3, ptr=torch.tensor([0, 2])), r"nodes.ptr must rise from 0 to num_nodes = 3; got \[0, 2\]"),
        (Data(num_nodes=3, ptr=torch.tensor([0, 4, 3])), "rise from 0 to num_nodes = 3"),
        (Data(num_nodes=3, ptr=torch.tensor([1, 3])), "rise from 0 to num_nodes = 3"),
    ],
    ids=repr,
)
def test_nodes_are_refused(nodes, message):
    with pytest.raises(GraphformerError, match=r"^Full\(\): " + ".*" + message):
        Full().on(nodes)


@pytest.mark.parametrize(
    ("edge_index", "message"),
    [
        ([[0, 7], [1, 2]], r"edge_index must hold ids in \[0, 5\); got 7. Correct the ids, or set num_nodes"),
        ([[0, -2], [1, 2]], r"edge_index must hold ids in \[0, 5\); got -2"),
        ([[0, 1], [1, 4]], "edge_index must stay inside each set of the batch; got 1 edges between sets"),
        ([[0.0], [1.0]], "edge_index must have an integer dtype; got torch.float32"),
        ([[0], [1], [2]], r"edge_index must have shape \[2, E\]; got \[3, 1\]"),
    ],
)
def test_edges_are_refused(edge_index, message):
    data = Data(edge_index=torch.tensor(edge_index), num_nodes=5, ptr=torch.tensor([0, 3, 5]))
    with pytest.raises(GraphformerError, match=r"^Edges\(\): " + message):
        Edges().on(data)
    assert Full().count(data) == 13  # who needs no edges does not read them


def test_patterns_import_without_pyg():
    code = (
        "import sys; sys.modules['torch_geometric'] = sys.modules['matplotlib'] = None\n"
        "from graphformer.patterns import Window; print(Window(1).on([2, 3]).num_edges)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "11\n"
