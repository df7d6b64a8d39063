"""Percentiles, ratios, rounds, bounds, slopes, verdicts: numbers that can be checked by hand."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compare, measure, peak
from benchmarks.case import Work


def test_percentiles_are_interpolated():
    assert measure.summarize([4.0, 1.0, 3.0, 2.0, 5.0]) == pytest.approx((1.0, 1.4, 3.0, 4.6))
    assert measure.summarize([7.0]) == (7.0, 7.0, 7.0, 7.0)


def test_a_ratio_is_taken_round_by_round(record):
    # The rounds double and double again; each of the peer's is paired with ours of the same round: 2, 2, 1.5.
    ratio = record.ratio(record.rows[1])
    assert ratio.median == pytest.approx(2.0)
    assert ratio.minimum == pytest.approx(1.5)
    assert record.ratio(record.rows[0]) is None
    assert record.ratio(record.rows[4]) is None


def test_rounds_are_interleaved_and_the_first_of_a_round_becomes_its_last():
    calls, now = [], [0.0]

    def action(name, seconds):
        def run():
            calls.append(name)
            now[0] += seconds

        return run

    actions = {"a": action("a", 1.0), "b": action("b", 2.0), "c": action("c", 3.0)}
    samples = measure.in_rounds(actions, 4, clock=lambda: now[0])
    assert samples == {"a": [1.0] * 4, "b": [2.0] * 4, "c": [3.0] * 4}
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab" + "abc"


def test_a_short_action_is_repeated_within_a_sample():
    now = [0.0]

    def run():
        now[0] += 0.001

    samples = measure.in_rounds({"a": run}, 2, clock=lambda: now[0])
    assert samples["a"] == pytest.approx([0.001, 0.001])
    assert now[0] == pytest.approx(0.002 + 2 * 0.005)


def test_the_budget_ends_the_rounds_after_three():
    now = [0.0]

    def run():
        now[0] += 1.0

    assert len(measure.in_rounds({"a": run}, 50, budget_s=0.5, clock=lambda: now[0])["a"]) == 3
    assert len(measure.in_rounds({"a": run}, 50, budget_s=9.5, clock=lambda: now[0])["a"]) == 10
    assert measure.in_rounds({}, 5) == {}


def test_a_bound_is_the_longer_of_arithmetic_and_memory_part_by_part():
    peaks = measure.Peaks(flops=100.0, gathered_bytes=10.0, streamed_bytes=20.0)
    arithmetic, memory = Work(flops=300.0), Work(flops=100.0, gathered_bytes=40.0, streamed_bytes=20.0)
    assert measure.bound_seconds((arithmetic,), peaks) == 3.0
    assert measure.bound_seconds((arithmetic, memory), peaks) == 8.0


def test_the_slope_leaves_the_constant_out():
    assert peak.slope([(100, 5000), (300, 5600)]) == 3.0


def test_the_high_water_mark_sees_what_was_freed():
    if peak.why_not():
        pytest.skip(peak.why_not())
    # As where it is used, in a fresh process: memory that this one has freed and kept would hide what comes later.
    code = (
        "from benchmarks.peak import extra_of; print(extra_of(lambda: len(bytearray(2**26))), extra_of(lambda: None))"
    )
    environment = {**os.environ, **peak._ALLOCATOR}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[2], capture_output=True, check=True
    )
    freed, nothing = map(int, done.stdout.split())
    assert freed == pytest.approx(2**26, rel=0.2)
    assert nothing < 8 * 2**20


def test_a_row_is_slower_only_beyond_noise_and_drift(record):
    base = copy.deepcopy(record)

    def verdicts(factors):
        now = copy.deepcopy(base)
        for row in now.rows:
            row.samples = [sample * factors.get(row.provider, 1.0) for sample in row.samples]
        return {change.row.key[2:]: change for change in compare.changes(now, base)}, compare.report(now, base)

    changes, text = verdicts({})
    assert {c.verdict for c in changes.values()} == {"the same", "was not run, is not run"}
    assert "0 of our rows got slower" in text
    changes, text = verdicts({"native": 5.0})
    assert changes["forward", "native"].verdict == "slower"
    assert changes["forward", "native"].ratio == pytest.approx(5.0)
    assert changes["memory per edge", "native"].verdict == "slower"
    assert "2 of our rows got slower by more than the noise:" in text
    assert "irregular rmat forward native: 5.00 x" in text
    assert verdicts({"native": 1.5})[0]["forward", "native"].verdict == "the same"  # within the spread of 1 to 4
    assert verdicts({"native": 0.1})[0]["forward", "native"].verdict == "faster"
    # The whole machine is five times as slow: no fault of ours, but bytes do not drift.
    changes, _ = verdicts({"native": 5.0, "pyg": 5.0, "pyg-scatter": 5.0})
    assert changes["forward", "native"].verdict == "the same"
    assert changes["memory per edge", "native"].verdict == "slower"


def test_rows_of_other_sizes_are_not_compared(record):
    base = copy.deepcopy(record)
    base.rows[0].sizes = "N=8"
    assert compare.changes(record, base)[0].verdict == "other sizes"
