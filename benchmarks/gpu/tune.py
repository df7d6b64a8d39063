"""A search for better cuts of our kernels, on request: a proposal for their tables, which nothing reads by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from torch import Tensor

from benchmarks import gate
from benchmarks.case import BOTH, FORWARD, Case, Run
from benchmarks.gpu.device import in_rounds, seconds_of
from benchmarks.measure import percentile

_ROUNDS = 7
_LEAST_LEFT_S = 10.0
_GAIN = 0.97  # of the best time so far; less is noise


class Knobs(NamedTuple):
    """What can be turned of one of our loops.

    Attributes:
        module: Where its table lies, with `override(**cut by direction)`.
        record: The name of a cut's NamedTuple there.
        start: A cut to begin with, by field.
        choices: What else to try, by field.
        directions: direction -> the measure that it shows in.
    """

    module: str
    record: str
    start: Mapping[str, int]
    choices: Mapping[str, tuple[int, ...]]
    directions: Mapping[str, str]


_ROWS = Knobs(
    "graphformer.kernels.triton.config",
    "Budget",
    {"vector": 512, "tile": 2048, "warps": 4, "stages": 1},
    {"tile": (1024, 4096, 8192), "warps": (1, 2, 8), "stages": (2, 3), "vector": (256, 1024)},
    {"forward": FORWARD, "backward": BOTH},
)
_TILES = Knobs(
    "graphformer.kernels.triton.tile_config",
    "TileConfig",
    {"rows": 64, "step": 64, "warps": 4, "stages": 2},
    {"rows": (16, 32, 128), "step": (16, 32, 128), "warps": (2, 8), "stages": (1, 3, 4)},
    {"forward": FORWARD, "by_query": BOTH, "by_key": BOTH},
)
_SHORT_TILES = _TILES._replace(
    start={"rows": 16, "step": 32, "warps": 1, "stages": 2},
    choices={"step": (16, 64), "warps": (2, 4), "stages": (1, 3), "rows": (32,)},
)
_BY_FAMILY = {"irregular": _ROWS, "anemoi": _ROWS, "window": _TILES, "molecules": _SHORT_TILES}


class Found(NamedTuple):
    """The best cut of a direction for a case, and what it takes beside the table's."""

    case: str
    module: str
    direction: str
    cut: str
    best_s: float
    table_s: float
    tried: int


def search(case: Case, run: Run, left: Callable[[], float]) -> list[Found]:
    """Turn one field after the other, direction after direction, keeping what is faster and right.

    Args:
        case: Of the families that have knobs; of others nothing is found.
        run: Ours, ready.
        left: Tells the seconds left.
    """
    knobs = _BY_FAMILY.get(case.family)
    if knobs is None:
        return []
    module = import_module(knobs.module)
    expected = gate.numbers(run, True)
    kept: dict[str, Any] = {}
    out = []
    for direction, measured in knobs.directions.items():
        with module.override(**kept):
            table_s = best_s = _median(case, run, measured)
        start = getattr(module, knobs.record)(**knobs.start)
        tried = 0
        for field, value in [("", 0), *((field, value) for field, values in knobs.choices.items() for value in values)]:
            if left() < _LEAST_LEFT_S:
                break
            cut = kept.get(direction, start)
            cut = cut._replace(**{field: value}) if field else cut
            tried += 1
            with module.override(**{**kept, direction: cut}):
                took = _seconds(case, run, measured, expected)
            if took < best_s * _GAIN:
                best_s, kept[direction] = took, cut
        out.append(Found(case.key, knobs.module, direction, str(kept.get(direction)), best_s, table_s, tried))
    return out


def _seconds(case: Case, run: Run, measured: str, expected: dict[str, Tensor]) -> float:
    """The median, or infinity where the cut cannot run or is wrong."""
    try:
        seconds_of(run.action(measured), case.device)
        found = gate.numbers(run, True)
        return float("inf") if gate.complaint(found, expected) else _median(case, run, measured)
    except Exception:  # noqa: BLE001 - a cut that takes too much of the device is none
        return float("inf")


def _median(case: Case, run: Run, measured: str) -> float:
    return percentile(in_rounds({"": run.action(measured)}, _ROUNDS, 2.0, case.device)[""], 0.5)


def report(found: list[Found]) -> str:
    """A proposal in Markdown."""
    lines = ["| case | table | direction | cut | ms | ms by the table | tried |", "|---|---|---|---|---:|---:|---:|"]
    for one in found:
        times = f"{one.best_s * 1e3:.3g} | {one.table_s * 1e3:.3g}"
        lines.append(f"| {one.case} | {one.module} | {one.direction} | `{one.cut}` | {times} | {one.tried} |")
    return "\n".join(lines) + "\n"
