"""Patterns in space against all distances, ties, ragged batches, bipartite sets, and what they refuse."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from pattern_cases import edge_matrix, predicate
from torch_geometric.data import Batch, Data

from graphformer import GraphformerError
from graphformer.patterns import Full, Nearest, Within, parse


def cloud(num_nodes, dimensions=3, seed=0, step=None):
    pos = torch.randn(num_nodes, dimensions, generator=torch.Generator().manual_seed(seed))
    return Data(pos=pos if step is None else (pos / step).round().long(), num_nodes=num_nodes)


def brute_within(query, key, distance):
    rows = [[math.dist(a, b) <= distance for b in key.tolist()] for a in query.tolist()]
    return torch.tensor(rows).view(len(query), len(key)).bool()


def brute_nearest(query, key, k, same):
    out = torch.zeros(len(query), len(key), dtype=torch.bool)
    for i, a in enumerate(query.tolist()):
        ranked = sorted((-1.0 if same and i == j else math.dist(a, b), j) for j, b in enumerate(key.tolist()))
        out[i, [j for _, j in ranked[:k]]] = True
    return out


CLOUDS = [cloud(60), cloud(57, 2, step=0.5), cloud(40, 1, step=1.0), cloud(1), cloud(0)]


@pytest.mark.parametrize("data", CLOUDS, ids=["real", "grid with ties", "line with ties", "one", "none"])
@pytest.mark.parametrize("distance", [0, 0.7, 1, 2**0.5, 3**0.5, 100])
def test_within_is_all_distances(data, distance):
    expected = brute_within(data.pos, data.pos, distance)
    assert torch.equal(edge_matrix(Within(distance), data) == 1, expected)
    assert torch.equal(predicate(Within(distance), data), expected)


@pytest.mark.parametrize("data", CLOUDS, ids=["real", "grid with ties", "line with ties", "one", "none"])
@pytest.mark.parametrize("k", [0, 1, 2, 7, 59, 1000])
def test_nearest_is_the_first_of_all_distances(data, k):
    expected = brute_nearest(data.pos, data.pos, k, same=True)
    assert torch.equal(edge_matrix(Nearest(k), data) == 1, expected)
    assert torch.equal(predicate(Nearest(k), data), expected)


@pytest.mark.parametrize("pattern", [Within(1), Within(0), Nearest(3), Nearest(40)], ids=repr)
def test_bipartite(pattern):
    nodes = cloud(31, 2, seed=1, step=0.5), cloud(17, 2, seed=2, step=0.5)
    key, query = (data.pos for data in nodes)
    if isinstance(pattern, Within):
        expected = brute_within(query, key, pattern.distance)
    else:
        expected = brute_nearest(query, key, pattern.k, same=False)
    assert torch.equal(edge_matrix(pattern, nodes) == 1, expected)
    assert torch.equal(predicate(pattern, nodes), expected)


@pytest.mark.parametrize("pattern", [Within(1), Nearest(3), Nearest(12)], ids=repr)
def test_sets_do_not_see_each_other_though_they_lie_on_top_of_each_other(pattern):
    samples = [cloud(size, 2, seed=size, step=0.5) for size in (9, 1, 14, 5)]
    expected = torch.block_diag(*(edge_matrix(pattern, sample) for sample in samples))
    assert torch.equal(edge_matrix(pattern, Batch.from_data_list(samples)), expected)


def test_a_node_sees_itself_first_even_among_coincident_nodes():
    data = Data(pos=torch.zeros(5, 3), num_nodes=5)
    assert torch.equal(edge_matrix(Nearest(1), data), torch.eye(5, dtype=torch.int64))
    assert edge_matrix(Nearest(2), data).tolist()[3] == [1, 0, 0, 1, 0]  # then the lower id
    assert Within(0).on(data) == Full().on(5)


@pytest.mark.parametrize("distance", [0.0, 1e-300, 0.1])
def test_a_distance_of_exactly_that_much_is_within(distance):
    data = Data(pos=torch.tensor([[0.0], [distance]], dtype=torch.float64), num_nodes=2)
    assert Within(distance).count(data) == 4


@pytest.mark.parametrize("distance", [1e300, 1e308, 10**300])
def test_a_distance_beyond_all_numbers_sees_all(distance):
    data = Batch.from_data_list([Data(pos=torch.rand(size, 2), num_nodes=size) for size in (3, 0, 4)])
    assert Within(distance).on(data) == Full().on([3, 0, 4])
    assert Within(distance).on(Data(pos=torch.rand(0, 2), num_nodes=0)).num_edges == 0


@pytest.mark.parametrize("distance", [1, np.float32(1), np.int64(1), Fraction(2, 2)])
def test_a_distance_is_held_as_a_plain_float(distance):
    assert type(Within(distance).distance) is float
    assert parse(repr(Within(distance))) == Within(distance) == Within(1.0)


def test_a_diagonal_of_the_grid_is_within_its_length():
    data = Data(pos=torch.cartesian_prod(*[torch.arange(4)] * 3), num_nodes=64)
    for squared in (1, 2, 3, 5, 6):
        apart = ((data.pos[:, None] - data.pos) ** 2).sum(-1)
        assert torch.equal(predicate(Within(math.sqrt(squared)), data), apart <= squared)
        assert Within(math.sqrt(squared)).count(data) == int((apart <= squared).sum())


def test_candidates_in_chunks(monkeypatch):
    data = cloud(50, 2, step=0.5)
    whole = Nearest(4).on(data), predicate(Nearest(4), data)
    monkeypatch.setattr("graphformer.patterns.space._CHUNK", 60)
    assert Nearest(4).on(data) == whole[0]
    assert torch.equal(predicate(Nearest(4), data), whole[1])


def test_large_sets_need_no_square():
    data = Data(pos=torch.rand(65_536, 2, generator=torch.Generator().manual_seed(0)), num_nodes=65_536)
    assert Nearest(5).count(data) == 5 * 65_536
    assert 65_536 < Within(0.004).count(data) < 6 * 65_536


def pos(value, **other):
    return Data(pos=value, num_nodes=3, **other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Within(-1), "Within: distance must be a finite number, 0 or more; got -1"),
        (lambda: Within(math.nan), "got nan"),
        (lambda: Within(10**400), "be a finite number, 0 or more; got 1000"),
        (lambda: Within(True), "got True"),
        (lambda: Within("2"), "got '2'"),
        (lambda: Nearest(-1), "Nearest: k must be an integer, 0 or more"),
        (
            lambda: Within(1).on(pos(torch.tensor([[0.0], [1e30], [1e30]]).double().pow(7))),
            r"nodes.pos must span less than 1e\+140; got 1.0\d*e\+210. Take a larger unit",
        ),
        (lambda: Within(1).on(3), r"Within\(distance=1.0\): nodes must hold pos; got none. Pass a PyG Data or Batch"),
        (lambda: Nearest(2).on([3, 4]), r"Nearest\(k=2\): nodes must hold pos; got none"),
        (lambda: Nearest(2).on((pos(torch.zeros(3, 2)), 3)), "nodes must hold pos; got none"),
        (lambda: Nearest(2).on(pos(torch.zeros(3))), r"nodes.pos must have shape \[N, D\] = \[3, D\]; got \[3\]"),
        (lambda: Nearest(2).on(pos(torch.zeros(4, 2))), r"= \[3, D\]; got \[4, 2\]"),
        (lambda: Nearest(2).on(pos(torch.zeros(3, 0))), r"= \[3, D\]; got \[3, 0\]"),
        (
            lambda: Nearest(2).on(pos(torch.zeros(3, 2).bool())),
            "nodes.pos must hold integers or floating-point",
        ),
        (lambda: Nearest(2).on(pos(torch.full((3, 2), math.nan))), "nodes.pos must be finite; got NaN or infinity"),
        (
            lambda: Within(2).on((pos(torch.zeros(3, 2)), pos(torch.zeros(3, 3)))),
            "nodes.pos must have one number of dimensions; got 2 and 3",
        ),
    ],
    ids=str,
)
def test_refusals(make, message):
    with pytest.raises(GraphformerError, match=message):
        make()
