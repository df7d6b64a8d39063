"""Patterns as PyG transforms: on one sample, in batches, in worker processes."""

import pickle

import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose

from graphformer import GraphformerError, attend
from graphformer.graphs import AttentionGraph
from graphformer.patterns import Between, Causal, Edges, Global, Grid, Random, Window, join_parts, split_parts

PATTERN = Edges().as_relation(0) + (Window(1) | Global(1) | Random(2)).as_relation(1)


def sample(num_nodes):
    edge_index = torch.randint(0, num_nodes, (2, num_nodes + 2), generator=torch.Generator().manual_seed(num_nodes))
    return Data(x=torch.full((num_nodes, 2), float(num_nodes)), edge_index=edge_index)


def test_a_transform_leaves_the_sample_as_it_was():
    data = sample(5)
    out = Compose([PATTERN])(data)
    assert out.attention_graph == PATTERN.on(data)
    assert "attention_graph" not in data
    assert out.x is data.x


def test_transform_then_batch_is_batch_then_transform():
    samples = [sample(5), sample(3), sample(7)]
    batch = Batch.from_data_list(samples)
    assert Batch.from_data_list([PATTERN(data) for data in samples]).attention_graph == PATTERN(batch).attention_graph


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_unites_the_graphs(num_workers):
    samples = [PATTERN(sample(size)) for size in (5, 3, 7, 4, 6)]
    batches = list(DataLoader(samples, batch_size=2, num_workers=num_workers))
    assert len(batches) == 3
    for batch, members in zip(batches, (samples[:2], samples[2:4], samples[4:]), strict=True):
        assert isinstance(batch.attention_graph, AttentionGraph)
        assert batch.attention_graph == PATTERN.on(Batch.from_data_list([Data.from_dict(m.to_dict()) for m in members]))
        assert batch.attention_graph == AttentionGraph.union([member.attention_graph for member in members])


# ---------------------------------------------------------------- named parts

MIXED = Between({("text", "text"): Causal(), ("image", "text"): Edges(), ("image", "image"): Window(1)})


def mixed(num_text, num_image):
    draw = torch.Generator().manual_seed(10 * num_text + num_image)
    data = HeteroData(number=num_text)
    data["text"].x = torch.randn(num_text, 4, generator=draw)
    data["image"].x = torch.randn(num_image, 4, generator=draw)
    for kind, high in ((("text", "next", "text"), num_text), (("image", "of", "text"), min(num_text, num_image))):
        data[kind].edge_index = torch.randint(high, (2, 6), generator=draw)
        data[kind].edge_attr = torch.randn(6, 2, generator=draw)
    return data


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_unites_the_graphs_of_hetero_data(num_workers):
    plain = [mixed(3, 4), mixed(2, 5), mixed(5, 1)]
    samples = [MIXED(data) for data in plain]
    assert "attention_graph" not in plain[0]
    assert samples[0]["text"].x is plain[0]["text"].x
    batches = list(DataLoader(samples, batch_size=2, num_workers=num_workers))
    assert [batch.attention_graph for batch in batches] == [
        AttentionGraph.union([MIXED.on(data) for data in plain[:2]]),
        MIXED.on(plain[2]),
    ]
    assert batches[0].attention_graph == MIXED.on(batches[0]) == MIXED(Batch.from_data_list(plain[:2])).attention_graph
    assert batches[0].number.tolist() == [3, 2]
    assert pickle.loads(pickle.dumps(batches[0])).attention_graph == batches[0].attention_graph
    assert batches[0].to("cpu").get_example(1).attention_graph == samples[1].attention_graph


def test_parts_are_joined_in_the_order_of_the_graph():
    samples = [mixed(3, 4), mixed(2, 5)]
    batch = Batch.from_data_list(samples)
    joint = join_parts(batch.x_dict, batch)
    assert torch.equal(joint, torch.cat([data[name].x for data in samples for name in ("text", "image")]))
    assert all(torch.equal(part, batch[name].x) for name, part in split_parts(joint, batch).items())
    alone = [attend(*[join_parts(data.x_dict, data)[:, None]] * 3, MIXED.on(data)) for data in samples]
    torch.testing.assert_close(attend(*[joint[:, None]] * 3, MIXED.on(batch)), torch.cat(alone))
    lengths = {"text": [3, 0], "image": [Grid(1, 2), 4]}
    assert join_parts({"image": torch.arange(6), "text": torch.arange(10, 13)}, lengths).tolist() == [
        *(10, 11, 12, 0, 1),
        *(2, 3, 4, 5),
    ]


def test_features_of_edges_are_joined_in_the_order_of_own_edges():
    batch = Batch.from_data_list([mixed(3, 4), mixed(2, 5)])
    graph = MIXED.on(batch)
    joint = join_parts(batch.edge_attr_dict, batch)
    key, query = graph.edge_index[:, graph.own_edge >= 0]
    image, text = (split_parts(torch.arange(14), batch)[name] for name in ("image", "text"))
    kind = batch["image", "of", "text"]
    ends = torch.stack((image[kind.edge_index[0]], text[kind.edge_index[1]]), dim=1)
    expected = torch.cat((ends, kind.edge_attr), dim=1)
    found = torch.cat((torch.stack((key, query), dim=1), joint[graph.own_edge[graph.own_edge >= 0]]), dim=1)
    assert sorted(found.tolist()) == sorted(expected.tolist())


def test_joining_and_splitting_keep_gradients():
    nodes = {"a": [2, 1], "b": [1, 3]}
    parts = {"a": torch.randn(3, 2, requires_grad=True), "b": torch.randn(4, 2, requires_grad=True)}
    back = split_parts(join_parts(parts, nodes), nodes)
    (back["b"] * torch.arange(4)[:, None]).sum().backward()
    assert parts["b"].grad[:, 0].tolist() == [0, 1, 2, 3]
    assert parts["a"].grad.abs().sum() == 0


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: join_parts({"a": X}, 2),
            "join_parts: nodes must be a dict of named parts; got nodes without parts. For",
        ),
        (
            lambda: join_parts({"a": X}, ({"a": 2}, {"a": 2})),
            r"be a dict of named parts; got a \(keys, queries\) tuple",
        ),
        (lambda: join_parts(X, {"a": 2}), r"parts must hold a tensor for each of \['a'\]; got Tensor. Pass a dict"),
        (lambda: join_parts({"b": X}, {"a": 2}), r"a tensor for each of \['a'\]; got \['b'\]. A part without nodes"),
        (lambda: join_parts({"a": X}, {"a": 3}), r"parts\['a'\] must have 3 rows; got \[2, 3\]. Give one"),
        (lambda: join_parts({"a": 3}, {"a": 3}), r"parts\['a'\] must have 3 rows; got int"),
        (
            lambda: join_parts({"a": X, "b": X[:, :2]}, {"a": 2, "b": 2}),
            r"parts\['b'\] must have rows \[3\] of torch.float32 on cpu, as the first part has; got \[2\] of",
        ),
        (lambda: join_parts({"a": X, "b": X.long()}, {"a": 2, "b": 2}), "as the first part has; got .* of torch.int64"),
        (
            lambda: split_parts(X, {"a": 3}),
            r"split_parts: x must have shape \[N, ...\] with N = 3; got \[2, 3\]. Pass a",
        ),
        (lambda: split_parts(X, 2), "split_parts: nodes must be a dict of named parts; got nodes without parts"),
    ],
)
def test_what_does_not_fit_the_parts_is_refused(make, message):
    with pytest.raises(GraphformerError, match=message):
        make()
