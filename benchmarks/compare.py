"""What changed against an earlier record."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.case import TIMED
from benchmarks.measure import percentile
from benchmarks.providers import OURS
from benchmarks.record import Record, Row


class Change(NamedTuple):
    """A row, now and then."""

    row: Row
    ratio: float
    verdict: str  # "slower", "faster", "the same", or why the two cannot be compared


def drift(now: Record, base: Record) -> float:
    """How many times slower the machine is than it was, told by the other providers' rows; 1 where there are none."""
    ratios = [
        row.summary.median / then.summary.median
        for row, then in _pairs(now, base)
        if row.provider not in OURS and _comparable(row, then) and row.measure in TIMED
    ]
    return percentile(ratios, 0.5) if ratios else 1.0


def changes(now: Record, base: Record) -> list[Change]:
    """Every row that both records hold, with its verdict.

    Slower is what stays slower when the machine's drift is taken away and the noise, from the 10th to the 90th
    percentile of either run, is granted; bytes have no drift and 5 % of noise.
    """
    whole, out = drift(now, base), []
    for row, then in _pairs(now, base):
        if not _comparable(row, then):
            why = f"was {then.status}, is {row.status}" if row.sizes == then.sizes else "other sizes"
            out.append(Change(row, float("nan"), why))
            continue
        is_memory = row.measure not in TIMED
        here = 1.0 if is_memory else whole
        mine, earlier = row.summary, then.summary
        slack = 1.05 if is_memory else 1.0
        if mine.p10 / here > earlier.p90 * slack:
            verdict = "slower"
        elif mine.p90 / here * slack < earlier.p10:
            verdict = "faster"
        else:
            verdict = "the same"
        out.append(Change(row, mine.median / earlier.median, verdict))
    return out


def report(now: Record, base: Record) -> str:
    """A few lines for the terminal: the ratio of each row, and which rows of ours got slower."""
    found = changes(now, base)
    lines = [f"against {base.run['commit']} of {base.run['date']}; the machine is {drift(now, base):.2f} times as slow"]
    lines += [
        f"  {'/'.join(c.row.key[:2])} {c.row.measure}, {c.row.provider}: {c.ratio:.2f} x, {c.verdict}" for c in found
    ]
    slower = [c for c in found if c.verdict == "slower" and c.row.provider in OURS]
    lines.append(f"{len(slower)} of our rows got slower by more than the noise" + (":" if slower else ""))
    lines += [f"  {' '.join(c.row.key)}: {c.ratio:.2f} x" for c in slower]
    return "\n".join(lines)


def _pairs(now: Record, base: Record) -> list[tuple[Row, Row]]:
    earlier = {row.key: row for row in base.rows}
    return [(row, earlier[row.key]) for row in now.rows if row.key in earlier]


def _comparable(row: Row, then: Row) -> bool:
    return row.status == then.status == "ran" and row.sizes == then.sizes
