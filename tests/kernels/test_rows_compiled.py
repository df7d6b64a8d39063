"""Rows compiled for real architectures, which needs no device: the launches compile what they would run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")  # before whatever imports it

from offline import compiling, stack  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

import graphformer as gf  # noqa: E402
from graphformer.graphs import tasks as work_lists  # noqa: E402
from graphformer.kernels import triton as backend  # noqa: E402
from graphformer.kernels.problem import Case, Options, Rows, Tensors  # noqa: E402
from graphformer.kernels.triton import row_backward, row_forward, row_launch, row_sums  # noqa: E402
from graphformer.kernels.triton.config import Budget, override  # noqa: E402

_KERNELS = (
    *(row_forward.forward_rows, row_forward.join_pieces),
    *(row_backward.backward_queries, row_backward.sum_pieces),
    *(row_sums.backward_keys, row_sums.backward_shared),
)
_R, _F = 3, 4
# A cut that compiles soon: with every term, the table's takes a compiler minutes.
_SMALL = Budget(16, 64, 1, 1)
_FEW = 32  # bytes of a thread's stack that are no matter
_BIASES, _VECTORS = ("bias", "relation_bias"), ("relation_key", "relation_value")
_FEATURES = ("edge_attr", "edge_key", "edge_value")
TERMS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "biases": _BIASES,
    "relations": ("relation_bias", *_VECTORS),
    "features": _FEATURES,
    "all": (*_BIASES, *_VECTORS, *_FEATURES),
}


@pytest.fixture
def loops() -> str:
    """Once, not once for each of native's loops."""
    return "triton"


def _graph(*lengths: int) -> gf.AttentionGraph:
    """One query and one key of each number of pairs."""
    node = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    relation = torch.arange(node.shape[0]) % (_R - 1)
    return gf.AttentionGraph.from_edge_index(
        torch.stack((node, node)), num_nodes=len(lengths), relation=relation, num_relations=_R
    )


_SPLIT, _LONG, _SHORT = work_lists.LONGEST + 1, work_lists.SHORT + 1, 2


def _problem(
    graph: gf.AttentionGraph, dtype: torch.dtype, heads: int, width: int, names: tuple[str, ...]
) -> tuple[Tensors, Rows]:
    sizes = {
        "weight": (heads, width), "bias": (graph.num_edges, heads), "relation_bias": (_R, heads),
        "relation_key": (_R, heads, width), "relation_value": (_R, heads, width),
        "edge_attr": (graph.num_edges, _F), "edge_key": (_F, heads, width), "edge_value": (_F, heads, width),
    }  # fmt: skip
    query, key, value = (torch.randn(graph.num_keys, heads, width, dtype=dtype) for _ in range(3))
    terms = {name: torch.randn(sizes[name], dtype=dtype) for name in names}
    counts = graph.num_queries, graph.num_keys, graph.num_edges, heads, width
    case = Case("dot", "softmax", dtype, torch.device("cuda"), *counts, names, 0.0, width, _R, _F)
    return Tensors(query, key, value, **terms), backend.rows(graph, case, by_key=True)


def _compile(
    architecture: int,
    dtype: torch.dtype,
    heads: int,
    width: int,
    names: tuple[str, ...] = (),
    score: str = "dot",
    normalizer: str = "softmax",
    dropout: float = 0.0,
    lengths: tuple[int, ...] = (_SPLIT, _LONG, _SHORT, 0),
) -> list[tuple[str, Any]]:
    """All kernels of a forward and a backward pass over a graph, one entry for each launch."""
    with pytest.MonkeyPatch.context() as patch, compiling(architecture, _KERNELS) as found:
        patch.setattr(row_launch, "architecture_of", lambda device: f"sm{architecture}")
        options = Options(score, 0.2, normalizer, 0.3, dropout, torch.tensor(1) if dropout else None)
        names = names if score == "dot" else ("weight", *names)
        _launch(*_problem(_graph(*lengths), dtype, heads, width, names), options)
    return found


def _launch(tensors: Tensors, rows: Rows, options: Options) -> None:
    out, statistic = row_launch.forward(tensors, rows, options)
    needs = Tensors(*(tensor is not None for tensor in tensors))  # type: ignore[arg-type]
    row_launch.backward(out, out, statistic, tensors, rows, options, needs)


def _loops(kernel: Any) -> str:
    """The instructions between a label and a later jump back to it."""
    lines, place, inside = kernel.asm["ptx"].splitlines(), {}, []
    for number, line in enumerate(lines):
        if label := re.match(r"\s*(\$L\w+):", line):
            place[label[1]] = number
        jump = re.search(r"\bbra(?:\.uni)?\s+(\$L\w+)", line)
        if jump and jump[1] in place:
            inside += lines[place[jump[1]] : number]
    return "\n".join(inside)


@pytest.mark.parametrize("architecture", [pytest.param(80, marks=pytest.mark.slow), 90])
def test_the_main_cuts_spill_nothing_and_their_steps_wait_for_nobody(architecture: int, tmp_path: Path) -> None:
    compiled = _compile(architecture, torch.float16, 8, 32, lengths=(_SPLIT, _SHORT))
    names = [name for name, _ in compiled]
    assert names.count("forward_rows") == names.count("backward_queries") == names.count("backward_keys") == 2
    assert {"join_pieces", "sum_pieces"} <= set(names)
    for name, kernel in compiled:
        assert stack(kernel, tmp_path) <= _FEW, name
        loop = _loops(kernel)
        assert "ld.global" in loop, name
        assert "bar.sync" not in loop, name
        assert ".f64" not in loop, name
        if name in ("forward_rows", "backward_queries", "backward_keys"):
            assert "ld.global.v4.b32" in loop, name  # whole vectors


def test_all_terms_of_an_additive_score_compile_together() -> None:
    """With edge features it has loops of its own, in which Triton wants every name to keep its type."""
    with override(forward=_SMALL, backward=_SMALL):
        compiled = _compile(90, torch.float32, 2, 4, TERMS["all"], "tanh", dropout=0.1, lengths=(_SHORT,))
    assert {"backward_queries", "backward_keys", "backward_shared"} <= {name for name, _ in compiled}


def test_a_stream_of_graphs_compiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a count of 1, nor one that 16 divides, nor views that begin elsewhere make further programs."""
    programs: dict[int, set[tuple[str, str]]] = {}

    def note(self: Any, key: Any, *_: Any) -> None:
        programs[num_nodes].add((self.__name__, str(key)))

    monkeypatch.setattr(JITFunction, "_do_compile", note)
    monkeypatch.setattr(row_launch, "architecture_of", lambda device: "sm90")
    options = Options("leaky_relu", 0.2, "softmax", 1.0, 0.1, torch.tensor(1))
    for num_nodes in (1, 2, 16, 17):
        programs[num_nodes] = set()
        graph = _graph(_SPLIT, _SPLIT, *[_LONG, _SHORT] * num_nodes)
        with compiling(90, _KERNELS):
            _launch(*_problem(graph, torch.float16, 2, 16, ("weight", *TERMS["all"])), options)
    assert {name for name, _ in programs[1]} == {kernel.__name__ for kernel in _KERNELS}
    assert programs[1] == programs[2] == programs[16] == programs[17]


@pytest.mark.slow
@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize(
    ("score", "architecture", "dtype"), [("dot", 90, torch.float16), ("leaky_relu", 80, torch.bfloat16)]
)
def test_every_term_compiles(score: str, architecture: int, dtype: torch.dtype, terms: str) -> None:
    with override(forward=_SMALL, backward=_SMALL):
        assert _compile(architecture, dtype, 2, 4, TERMS[terms], score, dropout=0.1, lengths=(_SHORT,))


@pytest.mark.slow
@pytest.mark.parametrize("normalizer", ["relu", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_every_normalizer_compiles(normalizer: str, dtype: torch.dtype) -> None:
    with override(forward=_SMALL, backward=_SMALL):
        assert _compile(90, dtype, 3, 5, TERMS["all"], "dot", normalizer, 0.1, lengths=(_SHORT,))


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "width"), [(1, 1), (3, 20), (16, 64)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_sizes_compile_with_few_spills(heads: int, width: int, dtype: torch.dtype, tmp_path: Path) -> None:
    """Widths that are no power of two are loaded number by number, each with its mask, which takes registers."""
    most = _FEW if width & (width - 1) == 0 else 2 * _FEW
    for name, kernel in _compile(90, dtype, heads, width):
        assert stack(kernel, tmp_path) <= most, name
