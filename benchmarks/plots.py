"""One picture a family: how many times faster than each peer, or what something costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.case import BUILD, BUILD_MEMORY, FORWARD, HELD, MEMORY, ON, ON_MEMORY, PER_EDGE
from benchmarks.providers import OURS, PROVIDERS
from benchmarks.record import Record, Row, threads

_OURS, _BEHIND, _PEER, _AIM = "#1b7f5c", "#b5482f", "#4c6a92", "#c08a00"
_COSTS = (PER_EDGE, BUILD, ON)  # drawn as they are; in their families the next are left to the table
_BESIDE = (ON_MEMORY, BUILD_MEMORY, HELD)
_SHORT = {FORWARD: "forward", MEMORY: "memory"}


class Bar(NamedTuple):
    """One line of a picture; `low` and `high` are the 10th and 90th percentile."""

    label: str
    low: float
    value: float
    high: float
    aim: float | None
    colour: str


def draw_family(record: Record, family: str, path: Path) -> bool:
    """Draw a family to `path`; False where nothing of it ran."""
    rows = [row for row in record.rows if row.family == family and row.status == "ran"]
    are_costs = all(row.measure in (*_COSTS, *_BESIDE) for row in rows)
    costs = [row for row in rows if row.measure in _COSTS]
    bars = _costs(costs) if are_costs else [bar for row in rows if (bar := _ratio(record, row))]
    if not bars:
        return False
    axis = "peer / ours: how many times faster (or smaller) ours is"
    if are_costs:
        axis = "bytes an edge" if costs[0].measure == PER_EDGE else "milliseconds"
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "graphformer", "svg.fonttype": "none", "font.size": 9}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 1.0 + 0.3 * len(bars)), layout="constrained")
        axes = figure.subplots()
        _draw(axes, bars, None if are_costs else 1.0)
        axes.set_xlabel(axis)
        title = f"{family} ({threads(record.run)}, commit {record.run['commit']})"
        axes.set_title(title, loc="left", fontsize=9)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return True


def _ratio(record: Record, row: Row) -> Bar | None:
    ratio = record.ratio(row)
    if ratio is None:
        return None
    label = f"{row.case}, {_SHORT.get(row.measure, row.measure)}: {row.provider}"
    colour = _OURS if ratio.median >= 1 else _BEHIND
    if row.provider in PROVIDERS and PROVIDERS[row.provider].leaves_out:  # a bound is no rival
        colour = _PEER
    return Bar(label, ratio.p10, ratio.median, ratio.p90, row.aim, colour)


def _costs(rows: list[Row]) -> list[Bar]:
    bars, tell_measure = [], len({row.measure for row in rows}) > 1
    for row in rows:
        scale = 1.0 if row.measure == PER_EDGE else 1e3
        _, low, middle, high = (value * scale for value in row.summary)
        label = f"{row.case}, {row.measure}: {row.provider}" if tell_measure else f"{row.case}: {row.provider}"
        is_ours = row.provider in OURS
        aim = row.aim * scale if is_ours and row.aim is not None else None
        bars.append(Bar(label, low, middle, high, aim, _OURS if is_ours else _PEER))
    return bars


def _draw(axes: Any, bars: list[Bar], level: float | None) -> None:
    """Horizontal bars on a logarithmic axis, from `level` (or the left edge) to each value."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    ends = [end for bar in bars for end in (bar.low, bar.high, bar.aim, level) if end is not None and end > 0]
    left, right = min(ends) / 1.25, max(ends) * 1.25
    axes.set(xscale="log", xlim=(left, right), ylim=(len(bars) - 0.4, -0.6))
    start = level or left
    for place, bar in enumerate(bars):
        axes.barh(place, max(bar.value, left) - start, left=start, color=bar.colour, height=0.62)
        axes.plot([max(bar.low, left), max(bar.high, left)], [place, place], color="black", linewidth=1.1)
        text = f"{bar.value:.2f}" if bar.value < 10 else f"{bar.value:.1f}" if bar.value < 100 else f"{bar.value:.0f}"
        axes.text(1.01, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
        if bar.aim is not None:
            axes.plot([bar.aim] * 2, [place - 0.42, place + 0.42], color=_AIM, linewidth=2.4)
    if level is not None:
        axes.axvline(level, color="black", linewidth=0.8)
    if any(bar.aim is not None for bar in bars):
        axes.plot([], [], color=_AIM, linewidth=2.4, label="aim")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, borderpad=0.1)
    decades = LogLocator(subs=(1.0, 2.0, 5.0) if right / left < 300 else (1.0,))
    axes.xaxis.set_major_locator(decades if right / left > 3 else MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
