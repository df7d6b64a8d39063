"""Runs cases: gate, then rounds, then memory."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from benchmarks import gate, measure, peak
from benchmarks.case import BOTH, FORWARD, HELD, PER_EDGE, TIMED, CannotRun, Case, Provider, Run
from benchmarks.providers import OURS, PROVIDERS
from benchmarks.record import Row, today

# A measure of a case ends its rounds when all providers together took this long, after three rounds at least.
_BUDGET_S = {True: 0.7, False: 120.0}


def run_case(
    case: Case,
    providers: Sequence[Provider],
    peaks: measure.Peaks,
    *,
    repeats: int,
    quick: bool,
    threads: int,
    tell: Callable[[str], None] = print,
) -> list[Row]:
    """Gate and measure every provider on a case.

    Args:
        case: What to run.
        providers: Whom to ask, in the order of the table.
        peaks: Of the machine, for the lower bounds.
        repeats: Rounds.
        quick: Whether the case was made in its quick sizes.
        threads: As torch has been told, for the processes that measure memory.
        tell: Takes a line for each result.

    Returns:
        A row for each measure and provider.
    """
    inputs = case.make()
    verdicts: dict[str, str] = {}
    runs: dict[str, Run] = {}
    expected = _expected(case, inputs)
    for provider in providers:
        if all(provider.why_not(case, measure_) for measure_ in case.measures):
            continue
        try:
            runs[provider.name], verdicts[provider.name] = _gated(case, provider, inputs, expected)
        except CannotRun as reason:
            verdicts[provider.name] = f"not run: {reason}"
        except Exception as error:  # noqa: BLE001 - whatever a rival raises is a row of the table, and ends no run
            verdicts[provider.name] = f"failed: {type(error).__name__}: {one_line(error)}"
    del expected
    rows = []
    for measured in case.measures:
        asked = [p for p in providers if p.name in OURS or measured not in case.ours_only]
        able = {p.name: runs[p.name] for p in asked if not verdicts.get(p.name, "-") and not p.why_not(case, measured)}
        samples = _samples(case, measured, able, min(repeats, case.most_repeats), quick, threads)
        bound = measure.bound_seconds(case.work[measured], peaks) if measured in case.work else None
        for provider in asked:
            row = row_of(case, measured, provider, verdicts, samples.get(provider.name))
            row.bound_s = bound
            row.note = runs[provider.name].note if provider.name in runs else ""
            rows.append(row)
            tell(line_of(row))
    del runs, inputs
    gc.collect()
    return rows


def _expected(case: Case, inputs: Any) -> dict[str, Tensor]:
    oracle = PROVIDERS[case.oracle].prepare(case, inputs)
    return gate.numbers(oracle, bool(oracle.leaves) and _wants_gradients(case))


def _wants_gradients(case: Case) -> bool:
    return any(measured != FORWARD for measured in case.measures)


def _gated(case: Case, provider: Provider, inputs: Any, expected: dict[str, Tensor]) -> tuple[Run, str]:
    """The provider, ready, and what the gate has against it."""
    run = provider.prepare(case, inputs)
    if provider.leaves_out:
        return run, ""
    gradients = bool(run.leaves) and _wants_gradients(case) and not provider.why_not(case, BOTH)
    found = gate.numbers(run, gradients)
    wrong = gate.complaint(found, expected)
    return run, f"wrong: {wrong}" if wrong else ""


def _samples(
    case: Case, measured: str, able: dict[str, Run], repeats: int, quick: bool, threads: int
) -> dict[str, list[float] | str]:
    """Seconds or bytes by provider; a text where measuring failed."""
    if measured in TIMED:
        actions = {name: run.action(measured) for name, run in able.items()}
        return {**measure.in_rounds(actions, repeats, _BUDGET_S[quick])}
    if measured == HELD:
        return {name: [float(run.action(HELD)())] for name, run in able.items()}  # type: ignore[arg-type]
    reason = peak.why_not()
    out: dict[str, list[float] | str] = {}
    for name in able:
        if reason:
            out[name] = f"not run: {reason}"
            continue
        try:
            points = peak.extra_bytes(case.key, name, measured, quick=quick, threads=threads)
            out[name] = [peak.slope(points) if measured == PER_EDGE else float(points[0][1])]
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            out[name] = f"failed: {one_line(error)}"
    return out


def row_of(
    case: Case, measured: str, provider: Provider, verdicts: dict[str, str], samples: list[float] | str | None
) -> Row:
    """The row of one measure: what was sampled, or why nothing was."""
    row = Row(case.family, case.name, measured, provider.name, case.sizes, "ran", date=today(), edges=case.edges)
    row.aim = case.aims.get(measured, {}).get(provider.name)
    reason = provider.why_not(case, measured)
    if reason:
        row.status, row.reason = "not run", reason
    elif verdicts.get(provider.name):
        row.status, _, row.reason = verdicts[provider.name].partition(": ")
    elif isinstance(samples, str):
        row.status, _, row.reason = samples.partition(": ")
    else:
        row.samples = samples or []
    return row


def line_of(row: Row) -> str:
    """A row for the terminal."""
    head = f"{row.family}/{row.case} {row.measure}, {row.provider}: "
    if row.status != "ran":
        return head + f"{row.status} ({row.reason})"
    summary = row.summary
    if row.measure not in TIMED:
        per_edge = row.measure == PER_EDGE
        return head + (f"{summary.median:.1f} bytes" if per_edge else f"{summary.median / 2**20:.1f} MiB")
    of_bound = f", {row.bound_s / summary.median:.0%} of the bound" if row.bound_s and row.provider in OURS else ""
    return head + f"{summary.median * 1e3:.2f} ms (minimum {summary.minimum * 1e3:.2f}){of_bound}"


def one_line(error: BaseException) -> str:
    """What an error says, without its breaks and its length."""
    return " ".join(str(error).split())[:200]
