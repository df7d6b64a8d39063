"""The loops over listed pairs: which of them runs, and what each gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import graphformer as gf
from graphformer._philox import philox
from graphformer.graphs import tasks as work_lists
from graphformer.kernels import Additive
from graphformer.testing import assert_close, random_graph

pytestmark = pytest.mark.interpreted

H, D, V, F, R = 2, 3, 5, 2, 3
SHORT, LONGEST = 4, 20  # small, so that small graphs have rows of every length
TERMS = {
    "plain": (),
    "biases": ("bias", "relation_bias"),
    "relations": ("relation_bias", "relation_key", "relation_value"),
    "features": ("edge_attr", "edge_key", "edge_value"),
    "all": ("bias", "relation_bias", "relation_key", "relation_value", "edge_attr", "edge_key", "edge_value"),
}


@pytest.fixture(autouse=True)
def _small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_lists, "SHORT", SHORT)
    monkeypatch.setattr(work_lists, "LONGEST", LONGEST)


def hub(num_nodes: int = 12) -> gf.AttentionGraph:
    """A query and a key of more than LONGEST pairs each, some of middle length, some short, some without any."""
    generator = torch.Generator().manual_seed(0)

    def draw(size: int) -> Tensor:
        return torch.randint(0, num_nodes - 1, (size,), generator=generator)

    query = torch.cat((torch.zeros(LONGEST + 9), torch.ones(SHORT + 3), draw(LONGEST + 10).float())).long()
    key = torch.cat((draw(LONGEST + 9), draw(SHORT + 3), torch.full((LONGEST + 10,), 3)))
    relation = torch.randint(0, R - 1, query.shape, generator=generator)  # the last has no pairs
    return gf.AttentionGraph.from_edge_index(
        torch.stack((key, query)), num_nodes=num_nodes, relation=relation, num_relations=R
    )


def problem(graph: gf.AttentionGraph, names: tuple[str, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    shapes = {
        "query": (graph.num_queries, H, D), "key": (graph.num_keys, H, D), "value": (graph.num_keys, H, V),
        "bias": (graph.num_edges, H), "relation_bias": (R, H), "relation_key": (R, H, D), "relation_value": (R, H, V),
        "edge_attr": (graph.num_edges, F), "edge_key": (F, H, D), "edge_value": (F, H, V),
    }  # fmt: skip
    return {name: torch.randn(shapes[name], dtype=dtype) for name in ("query", "key", "value", *names)}


def results(backend: str, graph: gf.AttentionGraph, tensors: dict[str, Tensor], **options: object) -> list[Tensor]:
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    nodes = [leaves.pop(name) for name in ("query", "key", "value")]
    out = gf.attend(*nodes, graph, backend=backend, **leaves, **options)
    direction = torch.linspace(-1, 1, max(out.numel(), 1))[: out.numel()].view_as(out).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, [*nodes, *leaves.values()], direction)]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, bool]]:
    """What is launched: the kernel's name, the rows of a program and whether they are pieces."""
    from graphformer.kernels.triton import row_launch

    seen: list[tuple[str, int, bool]] = []
    run = row_launch._Call.run

    def note(self, kernel, blocks, config, more):
        seen.append((kernel.__name__, config.rows, bool(more.get("IS_PIECE"))))
        run(self, kernel, blocks, config, more)

    monkeypatch.setattr(row_launch._Call, "run", note)
    return seen


def test_rows_of_every_length_have_their_kernel(launched: list[tuple[str, int, bool]]) -> None:
    graph = hub()
    pieces, long, short, splits = (entries.shape[0] for entries in graph.query_side.tasks)
    assert (pieces > 1, long > 0, short > 0, splits) == (True, True, True, 1)
    results("triton", graph, problem(graph, (), torch.float64))
    for kernel in ("forward_rows", "backward_queries", "backward_keys"):
        kinds = {(rows > 1, piece) for name, rows, piece in launched if name == kernel}
        assert kinds == {(False, False), (True, False), (False, True)}, kernel
    assert {name for name, _, _ in launched} >= {"join_pieces", "sum_pieces"}


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_split_rows(terms: str, dtype: torch.dtype) -> None:
    graph = hub()
    tensors = problem(graph, TERMS[terms], dtype)
    for ours, expected in zip(*(results(b, graph, tensors) for b in ("triton", "reference")), strict=True):
        assert_close(ours, expected, dtype)


@pytest.mark.parametrize("options", [{"normalizer": "relu"}, {"normalizer": "sigmoid"}, {"score": "additive"}])
def test_split_rows_otherwise(options: dict[str, str]) -> None:
    graph = hub()
    tensors = problem(graph, TERMS["biases"], torch.float64)
    for ours, expected in zip(*(results(b, graph, tensors, **options) for b in ("triton", "reference")), strict=True):
        assert_close(ours, expected)


@pytest.mark.parametrize("heads", [3, 8])
def test_dropout_is_everywhere_the_same(heads: int) -> None:
    """The mask of the reference, in every pass, whether or not a block of heads shares its draws."""
    graph = random_graph(6, num_edges=50, num_relations=R)
    tensors = {name: torch.randn(6, heads, D, dtype=torch.float64) for name in ("query", "key", "value")}
    tensors |= {"relation_value": torch.randn(R, heads, D, dtype=torch.float64)}
    seed = torch.tensor(2**40 + 7)
    options = {"dropout": 0.4, "seed": seed}
    for ours, expected in zip(*(results(b, graph, tensors, **options) for b in ("triton", "reference")), strict=True):
        assert_close(ours, expected)


def test_triton_draws_as_philox_does() -> None:
    import triton
    import triton.language as tl

    @triton.jit
    def draw(seed, low, high, group, out, SIZE: tl.constexpr):
        index = tl.arange(0, SIZE)
        counter = tl.load(low + index).to(tl.uint32), tl.load(high + index).to(tl.uint32)
        none = tl.zeros((SIZE,), tl.uint32)
        words = tl.philox(tl.load(seed), counter[0], counter[1], tl.load(group + index).to(tl.uint32), none)
        tl.store(out + index, words[0].to(tl.int64))
        tl.store(out + SIZE + index, words[3].to(tl.int64))

    seed, size = torch.tensor(-(2**45) - 3), 16
    low, high, group = torch.randint(0, 2**32, (size,)), torch.randint(0, 2**31, (size,)), torch.arange(size)
    out = torch.empty(2, size, dtype=torch.int64)
    draw[(1,)](seed, low, high, group, out, SIZE=size)
    words = philox(seed, (low, high, group, torch.zeros_like(group)))
    assert torch.equal(out, torch.stack((words[0], words[3])))


def test_packed_views_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = random_graph(5, num_edges=20)
    packed = torch.randn(5, 3, H, D, dtype=torch.float64)
    query, key, value = packed.unbind(1)
    monkeypatch.setattr(Tensor, "contiguous", lambda tensor: pytest.fail("copied") if tensor.dim() == 3 else tensor)
    out = gf.attend(query, key, value, graph, backend="triton")
    monkeypatch.undo()
    assert_close(out, gf.attend(query, key, value, graph, backend="reference"))


def test_equal_bits_again() -> None:
    graph = hub()
    tensors = problem(graph, TERMS["all"], torch.float32)
    first, second = (results("triton", graph, tensors, dropout=0.2, seed=1) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_explain_says_how_rows_go() -> None:
    graph = hub()
    nodes = problem(graph, (), torch.float32)
    told = gf.explain(*nodes.values(), graph)
    assert "split into 2 pieces" in told


@pytest.mark.parametrize(
    ("options", "dtype"), [({}, torch.bfloat16), ({"score": Additive(activation="tanh")}, torch.float32)]
)
def test_features_of_removed_pairs_may_be_anything(options: dict[str, object], dtype: torch.dtype) -> None:
    """In every sum zero times NaN is NaN: of delta found pair by pair, and of what moves an additive score."""
    graph = hub()
    tensors = problem(graph, ("bias", *TERMS["features"]), dtype)
    removed = torch.arange(graph.num_edges) % 3 == 0
    tensors["bias"][removed] = -torch.inf
    tensors["edge_attr"][removed] = torch.nan
    for ours, expected in zip(*(results(b, graph, tensors, **options) for b in ("triton", "reference")), strict=True):
        assert_close(ours, expected, dtype)


def test_no_features_leave_the_weight_its_gradient() -> None:
    graph = random_graph(5, num_edges=20)
    tensors = problem(graph, (), torch.float64)
    tensors |= {"edge_attr": torch.randn(20, 0).double(), "edge_key": torch.randn(0, H, D).double()}
    grads = []
    for backend in ("triton", "reference"):
        weight = torch.linspace(-1, 1, H * D, dtype=torch.float64).view(H, D).requires_grad_()
        edge_key = tensors["edge_key"].clone().requires_grad_()
        given = tensors | {"edge_key": edge_key}
        out = gf.attend(
            *(given.pop(name) for name in ("query", "key", "value")),
            graph,
            score=Additive(weight),
            backend=backend,
            **given,
        )
        grads.append(torch.autograd.grad(out.square().sum(), (weight, edge_key)))
    for ours, expected in zip(*grads, strict=True):
        assert_close(ours, expected)


def test_biases_of_another_precision() -> None:
    graph = hub()
    tensors = problem(graph, TERMS["biases"], torch.float16)
    tensors |= {name: tensors[name].double() for name in TERMS["biases"]}
    for ours, expected in zip(*(results(b, graph, tensors) for b in ("triton", "reference")), strict=True):
        assert ours.dtype == expected.dtype
        assert_close(ours, expected, torch.float16)


def test_a_program_compiles_in_one_piece() -> None:
    graph = hub()
    nodes = [tensor.requires_grad_() for tensor in problem(graph, (), torch.float32).values()]

    def attend(*nodes: Tensor) -> Tensor:
        return gf.attend(*nodes, graph, backend="triton")

    expected = attend(*nodes)
    out = torch.compile(attend, fullgraph=True, backend="aot_eager")(*nodes)
    assert_close(out, expected)
    grads = (torch.autograd.grad(result.square().sum(), nodes) for result in (out, expected))
    for ours, theirs in zip(*grads, strict=True):
        assert_close(ours, theirs)
