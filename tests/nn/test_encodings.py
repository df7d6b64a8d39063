import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphformer import GraphformerError
from graphformer.nn import (
    LaplacianEncoding,
    LaplacianSetEncoding,
    LearnedEncoding,
    RandomWalkEncoding,
    SinusoidalEncoding,
    positions,
)


@given(st.lists(st.integers(0, 5), max_size=6))
@settings(max_examples=30, deadline=None)
def test_positions_count_within_each_set(lengths):
    expected = [position for length in lengths for position in range(length)]
    assert positions(lengths=lengths).tolist() == expected
    batch = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths, dtype=torch.int64))
    assert positions(batch=batch).tolist() == expected


def test_positions_refuses_what_it_cannot_count():
    with pytest.raises(GraphformerError, match="lengths or batch must be given, one of the two; got none"):
        positions()
    with pytest.raises(GraphformerError, match="lengths or batch must be given, one of the two; got both"):
        positions(lengths=[1], batch=torch.tensor([0]))
    with pytest.raises(GraphformerError, match="batch must not fall"):
        positions(batch=torch.tensor([1, 0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lengths": [-1, 2]}, "lengths must not be negative; got -1"),
        ({"lengths": [1.5, 2]}, "lengths must hold integers; got torch.float32"),
        ({"lengths": ["a"]}, r"lengths must hold integers; got \['a'\]"),
        ({"lengths": 3}, r"lengths must have one dimension; got \[\]"),
        ({"batch": torch.tensor([0.0, 1.0])}, "batch must hold integers; got torch.float32"),
        ({"batch": torch.tensor([-1, 0])}, "batch must not be negative; got -1"),
        ({"batch": torch.tensor([[0, 1]])}, r"batch must have one dimension; got \[1, 2\]"),
    ],
    ids=str,
)
def test_positions_refuses_what_is_no_count(arguments, message):
    with pytest.raises(GraphformerError, match=f"^positions: {message}"):
        positions(**arguments)


def test_positions_reads_any_integer_and_nothing():
    assert positions(lengths=torch.tensor([2, 1], dtype=torch.int32)).tolist() == [0, 1, 0]
    assert positions(batch=torch.tensor([1, 1], dtype=torch.uint8)).tolist() == [0, 1]
    assert positions(lengths=[]).shape == (0,)
    assert positions(batch=torch.empty(0, dtype=torch.int64)).dtype == torch.int64


def test_sinusoidal_is_the_papers_formula():
    out = SinusoidalEncoding(6)(torch.tensor([0, 1, 50]))
    for row, p in enumerate((0, 1, 50)):
        for c in range(3):
            angle = p / 10000 ** (2 * c / 6)
            assert float(out[row, 2 * c]) == pytest.approx(math.sin(angle), abs=1e-5)
            assert float(out[row, 2 * c + 1]) == pytest.approx(math.cos(angle), abs=1e-5)


def test_sinusoidal_keeps_the_dtype_of_real_positions():
    assert SinusoidalEncoding(4)(torch.tensor([0.5], dtype=torch.float64)).dtype == torch.float64
    with pytest.raises(GraphformerError, match="channels must be even; got 5"):
        SinusoidalEncoding(5)


def test_learned_looks_up_and_refuses_positions_beyond():
    encoding = LearnedEncoding(4, 3)
    out = encoding(positions(lengths=[2, 4]))
    assert out.shape == (6, 3)
    assert torch.equal(out[0], out[2])
    assert not torch.equal(out[0], out[1])
    with pytest.raises(GraphformerError, match=r"position must lie in \[0, 4\); got 0 to 4"):
        encoding(positions(lengths=[5]))
    with pytest.raises(GraphformerError, match="LearnedEncoding: position must hold integers; got torch.float32"):
        encoding(torch.ones(3))
    assert torch.equal(encoding(torch.tensor([1], dtype=torch.int32)), out[1:2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SinusoidalEncoding("4"), "SinusoidalEncoding: channels must be an integer; got '4'"),
        (lambda: LearnedEncoding(4.0, 3), "LearnedEncoding: num_positions must be an integer; got 4.0"),
        (lambda: LearnedEncoding(4, 0), "LearnedEncoding: channels must be at least 1; got 0"),
        (lambda: LaplacianEncoding(0, 5), "LaplacianEncoding: k must be at least 1; got 0"),
        (lambda: LaplacianEncoding(2, -5), "LaplacianEncoding: channels must be at least 1; got -5"),
        (lambda: RandomWalkEncoding(True, 5), "RandomWalkEncoding: steps must be an integer; got True"),
        (lambda: RandomWalkEncoding(2, 0), "RandomWalkEncoding: channels must be at least 1; got 0"),
        (
            lambda: LaplacianEncoding(2, 5)(torch.zeros(4, 3)),
            r"LaplacianEncoding: eigenvectors must have shape \[N, 2\]; got \[4, 3\]. Make them with 2 columns",
        ),
        (
            lambda: RandomWalkEncoding(2, 5)(torch.zeros(4, 3)),
            r"RandomWalkEncoding: probabilities must have shape \[N, 2\]; got \[4, 3\]",
        ),
        (lambda: RandomWalkEncoding(2, 5)(torch.zeros(2)), r"probabilities must have shape \[N, 2\]; got \[2\]"),
    ],
)
def test_encodings_refuse_widths_that_do_not_fit(make, message):
    with pytest.raises(GraphformerError, match=message):
        make()


@pytest.mark.parametrize("encoding", [LaplacianEncoding(3, 5), RandomWalkEncoding(3, 5)], ids=["laplacian", "walk"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_encodings_answer_in_the_weights_dtype(encoding, dtype):
    assert encoding.to(dtype)(torch.rand(4, 3)).dtype == dtype


def test_laplacian_flips_whole_columns_of_whole_sets_in_training():
    torch.manual_seed(0)
    encoding = LaplacianEncoding(2, 2)
    torch.nn.init.eye_(encoding.lin.weight)
    vectors = torch.rand(7, 2) + 0.1
    batch = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    seen = set()
    for _ in range(60):
        signs = encoding(vectors, batch, 3) / vectors
        assert torch.allclose(signs.abs(), torch.ones(7, 2))
        for graph in range(3):
            own = signs[batch == graph]
            assert torch.allclose(own, own[:1].expand_as(own))
        seen.add(tuple(signs[[0, 3, 5]].round().flatten().tolist()))
    assert len(seen) > 30  # of the 2^6 sign patterns
    encoding.eval()
    assert torch.allclose(encoding(vectors, batch), vectors)


@pytest.mark.parametrize("batch", [None, torch.tensor([0, 0, 2])])
def test_laplacian_works_without_being_told_the_number_of_sets(batch):
    assert LaplacianEncoding(2, 5)(torch.rand(3, 2), batch).shape == (3, 5)


def test_laplacian_keeps_padding_at_zero():
    assert torch.equal(LaplacianEncoding(3, 5)(torch.zeros(2, 3)), torch.zeros(2, 5))


@pytest.mark.parametrize("num_nodes", [0, 1, 2])
def test_tiny_sets_give_finite_encodings(num_nodes):
    batch = torch.zeros(num_nodes, dtype=torch.int64)
    assert LaplacianEncoding(3, 5)(torch.zeros(num_nodes, 3), batch).shape == (num_nodes, 5)
    walk = RandomWalkEncoding(3, 5)(torch.zeros(num_nodes, 3))
    assert walk.shape == (num_nodes, 5)
    assert bool(walk.isfinite().all())


def test_a_set_encoding_sums_over_the_eigenvectors_that_there_are():
    encoding = LaplacianSetEncoding(5)
    encoding.eval()
    vectors, values = torch.randn(4, 3), torch.rand(4, 3)
    values[2:, 1:] = float("nan")
    out = encoding(vectors, values)
    for node, kept in enumerate([3, 3, 1, 1]):
        pairs = torch.stack((vectors[node, :kept], values[node, :kept]), dim=1)
        expected = encoding.lin_out(encoding.lin_in(pairs).relu()).relu().sum(0)
        torch.testing.assert_close(out[node], expected)
    encoding.train()
    batch = torch.tensor([0, 0, 1, 1])
    signs = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])[:, batch].unsqueeze(-1)
    values = torch.rand(4, 1)
    either = [encoding.eval()(sign * vectors[:, :1], values) for sign in signs]
    drawn = [encoding.train()(vectors[:, :1], values, batch) for _ in range(40)]
    near = [[torch.allclose(one, other, atol=1e-6) for other in either] for one in drawn]
    assert all(any(row) for row in near)
    assert all(any(column) for column in zip(*near, strict=True))
    before = encoding.lin_in.weight.clone()
    encoding.reset_parameters()
    assert not torch.equal(before, encoding.lin_in.weight)


def test_a_set_encoding_refuses_eigenvalues_of_other_eigenvectors():
    rule = r"eigenvectors and eigenvalues must have shape \[N, k\]; got \[4, 3\] and \[4, 2\]. Make them with"
    with pytest.raises(GraphformerError, match=f"LaplacianSetEncoding: {rule}"):
        LaplacianSetEncoding(5)(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(GraphformerError, match="LaplacianSetEncoding: channels must be at least 1; got 0"):
        LaplacianSetEncoding(0)
