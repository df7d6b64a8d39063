"""The gate before everything: each loop of our kernels on small graphs against float64."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from benchmarks import gate
from benchmarks.case import FIRST, Attention, Case
from benchmarks.gpu import inputs
from benchmarks.gpu.device import seconds_of
from benchmarks.providers import PROVIDERS
from benchmarks.record import Row
from benchmarks.runner import one_line, row_of
from graphformer import patterns
from graphformer.graphs import AttentionGraph

_HEADS, _WIDTH = 3, 24  # no powers of two, so that all is masked; the cases, whose first call is timed, have others
_HUB = 700  # pairs of one row, above what any loop takes in one piece
_FEW = 32  # pairs that the table of tolerances speaks of
_FLOATS = ("query", "key", "value", "grad_out", "edge_attr", "edge_map")


def _short_rows(device: str) -> AttentionGraph:
    """None to four keys a query, unsorted, with repeated pairs."""
    generator = torch.Generator().manual_seed(0)
    query = torch.arange(41).repeat_interleave(torch.arange(41) % 5)
    key = torch.randint(37, query.shape, generator=generator)
    order = torch.randperm(len(query), generator=generator)
    return _graph(key[order], query[order], (37, 41), device)


def _rows(device: str) -> AttentionGraph:
    """About 60 keys a query, some of them repeated."""
    generator = torch.Generator().manual_seed(1)
    key, query = torch.randint(13, (2, 13 * 60), generator=generator)
    return _graph(key, query, (13, 13), device)


def _hubs(device: str) -> AttentionGraph:
    """One query and one key with most of the pairs, so that both passes meet a long row."""
    generator = torch.Generator().manual_seed(2)
    others = torch.randint(11, (2, _HUB), generator=generator)
    hub = torch.full((_HUB,), 7)
    return _graph(torch.cat((others[0], hub)), torch.cat((hub, others[1])), (11, 11), device)


def _graph(key: torch.Tensor, query: torch.Tensor, size: tuple[int, int], device: str) -> AttentionGraph:
    return AttentionGraph.from_edge_index(torch.stack((key, query)).to(device), size=size)


def _window(device: str) -> AttentionGraph:
    """Runs long enough for tall tiles, over sets of two lengths."""
    return patterns.Window(20).on(torch.tensor([60, 3], device=device))


def _sets(device: str) -> AttentionGraph:
    """Runs so short that tiles are low: full attention in small sets."""
    return patterns.Full().on(torch.tensor([5, 9, 3, 12, 7, 4], device=device))


LOOPS: dict[str, Callable[[str], AttentionGraph]] = {
    "packed rows": _short_rows,
    "rows": _rows,
    "hub split": _hubs,
    "tiles": _window,
    "short tiles": _sets,
}
# What `explain` says where a loop has something to do.
_TOLD = {
    "packed rows": r"[1-9]\d* short rows share programs",
    "rows": r"[1-9]\d* have one each",
    "hub split": r"[1-9]\d* are split",
    "tiles": "tiles of 64 rows",
    "short tiles": "tiles of 16 rows",
}


def cases(device: str) -> Iterator[Case]:
    """A case for each loop in float32 and float16, and one with edge features."""
    for name, make in LOOPS.items():
        for dtype in (torch.float32, torch.float16):
            kind = str(dtype).removeprefix("torch.")
            yield _case(f"{name}, {kind}", make, dtype, 0, device)
    yield _case(f"rows with edge features, {kind}", _rows, dtype, 5, device)


def _case(name: str, make: Callable[[str], AttentionGraph], dtype: torch.dtype, edge_dim: int, device: str) -> Case:
    def build() -> Attention:
        return inputs.attention(lambda: make(device), _HEADS, _WIDTH, dtype, edge_dim=edge_dim)

    return Case("gate", name, build, (FIRST,), ("triton",), f"H={_HEADS}, D={_WIDTH}", device=device)


def judge(case: Case) -> Row:
    """The row of a gate's case: right, with the seconds of its first call; wrong; or failed."""
    provider = PROVIDERS["triton"]
    taken: list[float] | None = None
    reason = provider.why_not(case, FIRST)
    try:
        verdict, taken = ("", None) if reason else _compare(case)
    except Exception as error:  # noqa: BLE001 - it becomes the row
        verdict = f"failed: {type(error).__name__}: {one_line(error)}"
    row = row_of(case, FIRST, provider, {provider.name: verdict}, taken)
    row.status = "failed" if reason else row.status  # kernels that nobody can run are no kernels
    return row


def _compare(case: Case) -> tuple[str, list[float]]:
    """What float64 has against our loop, and how long its first call took."""
    made = case.make()
    wide = {name: tensor.double() for name in _FLOATS if (tensor := getattr(made, name)) is not None}
    expected = gate.numbers(PROVIDERS["reference"].prepare(case, replace(made, **wide)), True)
    expected = {name: tensor.to(made.query.dtype) for name, tensor in expected.items()}
    run = PROVIDERS["triton"].prepare(case, made)
    loop = case.name.partition(",")[0].partition(" with")[0]
    if run.note and not re.search(_TOLD.get(loop, ""), run.note):
        return f"wrong: it takes other loops: {run.note}", []
    took, found = seconds_of(lambda: gate.numbers(run, True), case.device)
    wrong = gate.complaint(found, expected, max(_FEW, int(made.graph.degree.max())))
    return f"wrong: {wrong}" if wrong else "", [took]
