from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from graphformer._errors import InputError
from graphformer.graphs import Features
from graphformer.nn import EdgeEncoder, GraphEncoder, NodeEncoder, edge_vectors
from graphformer.testing import assert_close

COUNTS = (5, 3, 7)


def categories(rows, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(0, count, (rows,), generator=draw) for count in COUNTS], dim=1)


@pytest.mark.parametrize("rows", [0, 1, 40])
def test_categories_are_the_sum_of_their_embeddings(rows):
    encoder, x = NodeEncoder(Features(node_categories=COUNTS), 6).double(), categories(rows)
    out = encoder(Data(x=x))
    expected = sum(table.weight[column] for table, column in zip(encoder.embeddings, x.unbind(1), strict=True))
    assert_close(out, expected)
    pull = torch.randn(rows, 6, dtype=torch.float64)
    found = torch.autograd.grad(out, [table.weight for table in encoder.embeddings], pull)
    wanted = torch.autograd.grad(expected, [table.weight for table in encoder.embeddings], pull)
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other)


def test_a_product_of_counts_beyond_an_integer_is_no_hindrance():
    counts = (2**31, 2**31, 4)
    features = Features(node_categories=(3, 3, 3))
    encoder, x = NodeEncoder(features, 4), torch.randint(0, 3, (9, 3))
    plain = encoder(Data(x=x))
    for table, count in zip(encoder.embeddings, counts, strict=True):
        table.num_embeddings = count  # as if the tables were as large
    assert_close(encoder(Data(x=x)), plain)


def test_numbers_and_categories_add_up():
    features = Features(COUNTS, 2, COUNTS, 4)
    data = Data(x=torch.randn(8, 2), x_category=categories(8), edge_attr=torch.randn(8, 4), edge_category=categories(8))
    nodes, edges = NodeEncoder(features, 6), EdgeEncoder(features, 6)
    apart = NodeEncoder(Features(COUNTS), 6)
    apart.load_state_dict({name: value for name, value in nodes.state_dict().items() if "lin" not in name})
    assert_close(nodes(data), nodes.lin(data.x) + apart(Data(x=data.x_category)))
    assert edges(data).shape == (8, 6)
    vectors = edge_vectors(data, features, torch.float64)
    assert vectors.dtype == torch.float64
    assert vectors.shape == (8, features.edge_width)
    assert_close(vectors[:, sum(COUNTS) :], data.edge_attr.double())
    assert_close(vectors[:, : sum(COUNTS)].sum(1), torch.full((8,), 3.0, dtype=torch.float64))


def test_nodes_that_carry_nothing_are_one_vector():
    out = NodeEncoder(Features(), 3)(Data(num_nodes=4))
    assert out.shape == (4, 3)
    assert torch.equal(out, out[:1].expand(4, 3))


@pytest.mark.parametrize(
    ("features", "data", "message"),
    [
        (Features((4,)), Data(), r"model: x must have shape \[\*, 1\]; got None. Give one column a feature"),
        (Features((4,)), Data(x=torch.zeros(3, 2).long()), r"x must have shape \[\*, 1\]; got \[3, 2\]"),
        (Features((4,)), Data(x=torch.zeros(3, 1)), "x must hold int64 categories; got torch.float32"),
        (Features((4,)), Data(x=torch.tensor([[4]])), r"x must lie in \[0, 4\) in column 0; got 4 to 4"),
        (Features((4,)), Data(x=torch.tensor([[-1]])), r"x must lie in \[0, 4\) in column 0; got -1 to -1"),
        (Features((), 2), Data(x=torch.zeros(3, 1)), r"x must have shape \[\*, 2\]; got \[3, 1\]"),
        (Features((), 1), Data(x=torch.zeros(3, 1).long()), "x must hold floating-point numbers; got torch.int64"),
        (Features((4,), 1), Data(x=torch.zeros(3, 1)), r"x_category must have shape \[\*, 1\]; got None"),
    ],
)
def test_what_does_not_fit_is_refused(features, data, message):
    with pytest.raises(InputError, match=message):
        NodeEncoder(features, 8)(data)


def test_edges_that_carry_nothing_are_one_vector():
    out = EdgeEncoder(Features((4,)), 8)(Data(edge_index=torch.zeros(2, 3).long()))
    assert out.shape == (3, 8)
    assert torch.equal(out, out[:1].expand(3, 8))


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(InputError, match=r"Features: node_categories must hold positive counts; got \[4, 0\]"):
        Features((4, 0))
    with pytest.raises(InputError, match="Features: edge_channels must"):
        Features(edge_channels=-1)


def test_numbers_of_graphs_are_brought_to_the_scale_of_all_that_were_seen():
    encoder = GraphEncoder(4, 6).double()
    numbers = torch.randn(23, 4, dtype=torch.float64) * torch.tensor([1.0, 300.0, 0.0, 1e-2]) + 5.0
    for part in numbers.split([7, 1, 0, 15]):  # a batch may be one graph, or none
        assert encoder(Data(graph_attr=part)).shape == (len(part), 6)
    logs = torch.where(numbers < 0, -(-numbers).clamp(min=0).log1p(), numbers.clamp(min=0).log1p())
    assert_close(encoder.mean, logs.mean(0))
    assert_close(encoder.variance, logs.var(0, correction=0))
    encoder.eval()
    scaled = (logs - logs.mean(0)) / logs.std(0, correction=0).clamp(min=1e-3)
    assert_close(encoder(Data(graph_attr=numbers)), encoder.lin(scaled.clamp(-4, 4)).relu())
    assert int(encoder.seen) == 23  # looking at a test split teaches nothing


def test_numbers_of_graphs_far_from_all_others_count_four_deviations():
    encoder = GraphEncoder(1, 6)
    encoder(Data(graph_attr=torch.tensor([[0.0], [1.0], [2.0]])))
    encoder.eval()
    far, farther = (encoder(Data(graph_attr=torch.tensor([[value]]))) for value in (1e4, 1e6))
    assert torch.equal(far, farther)
    encoder.reset_parameters()
    assert (int(encoder.seen), encoder.mean.item(), encoder.variance.item()) == (0, 0.0, 1.0)


def test_numbers_of_graphs_must_be_there():
    encoder = GraphEncoder(2, 6)
    with pytest.raises(InputError, match=r"model: graph_attr must have shape \[\*, 2\]; got None"):
        encoder(Data())
    with pytest.raises(InputError, match=r"model: graph_attr must have shape \[\*, 2\]; got \[1, 3\]"):
        encoder(Data(graph_attr=torch.zeros(1, 3)))
    with pytest.raises(InputError, match="model: graph_attr must hold floating-point numbers; got torch.int64"):
        encoder(Data(graph_attr=torch.zeros(1, 2).long()))
