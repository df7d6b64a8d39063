"""One picture a family: how many times faster than each peer, or what something costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.case import FORWARD, MEMORY, PER_EDGE
from benchmarks.providers import OURS
from benchmarks.record import Record, Row

_COLOURS = {"faster": "#1b7f5c", "slower": "#b5482f", "plain": "#4c6a92"}


def draw_family(record: Record, family: str, path: Path) -> bool:
    """Draw a family to `path` (SVG); False where nothing of it ran."""
    rows = [row for row in record.rows if row.family == family and row.status == "ran"]
    bars = [bar for row in rows if (bar := _ratio_bar(record, row))]
    title, aim_word = "times faster (or smaller) than the peer; 1 is level", "aim"
    if not bars:
        unit = "bytes an edge" if all(row.measure == PER_EDGE for row in rows) else "milliseconds"
        bars, title = [_cost_bar(row) for row in rows], unit
    if not bars:
        return False
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "graphformer", "svg.fonttype": "none", "font.size": 9}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 0.9 + 0.34 * len(bars)), layout="constrained")
        axes = figure.subplots()
        _draw(axes, bars, ratios="times" in title, aim_word=aim_word)
        axes.set_xlabel(title)
        axes.set_title(f"{family}: {record.machine['cpu']}, {record.run['threads']} threads", loc="left", fontsize=10)
        figure.savefig(path, format="svg", metadata={"Date": None})
    return True


def _ratio_bar(record: Record, row: Row) -> dict[str, Any] | None:
    ratio = record.ratio(row)
    if ratio is None:
        return None
    measure = {FORWARD: "forward", MEMORY: "memory"}.get(row.measure, row.measure)
    label = f"{row.case}, {measure} / {row.provider}"
    colour = _COLOURS["faster" if ratio.median >= 1 else "slower"]
    return {
        "label": label,
        "value": ratio.median,
        "low": ratio.p10,
        "high": ratio.p90,
        "aim": row.aim,
        "colour": colour,
    }


def _cost_bar(row: Row) -> dict[str, Any]:
    scale = 1.0 if row.measure == PER_EDGE else 1e3
    low, middle, high = (value * scale for value in (row.summary.p10, row.summary.median, row.summary.p90))
    colour = _COLOURS["faster" if row.provider in OURS else "plain"]
    return {
        "label": f"{row.case} / {row.provider}",
        "value": middle,
        "low": low,
        "high": high,
        "aim": row.aim,
        "colour": colour,
    }


def _draw(axes: Any, bars: list[dict[str, Any]], *, ratios: bool, aim_word: str) -> None:
    bars = bars[::-1]
    places = range(len(bars))
    start = 1.0 if ratios else 0.0
    axes.set_xscale("log")
    low = min([bar["low"] for bar in bars] + [1.0] * ratios)
    high = max([max(bar["high"], bar["aim"] or 0.0) for bar in bars] + [1.0] * ratios)
    axes.set_xlim(low / 1.6, high * 2.2)
    left = start or low / 1.6
    axes.barh(
        places, [bar["value"] - left for bar in bars], left=left, color=[bar["colour"] for bar in bars], height=0.62
    )
    for place, bar in zip(places, bars, strict=True):
        axes.plot([bar["low"], bar["high"]], [place, place], color="black", linewidth=1.1)
        text = f"{bar['value']:.1f}" if bar["value"] < 100 else f"{bar['value']:.0f}"
        axes.text(max(bar["high"], bar["aim"] or 0.0, left) * 1.06, place, text, va="center", fontsize=8)
        if bar["aim"] is not None:
            axes.plot([bar["aim"]] * 2, [place - 0.42, place + 0.42], color="#c08a00", linewidth=2.2)
    if ratios:
        axes.axvline(1.0, color="black", linewidth=0.8)
    if any(bar["aim"] is not None for bar in bars):
        axes.plot([], [], color="#c08a00", linewidth=2.2, label=aim_word)
        axes.legend(loc="lower right", frameon=False)
    axes.set_yticks(list(places), [bar["label"] for bar in bars])
    axes.grid(axis="x", which="major", alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
