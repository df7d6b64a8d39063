"""The record of a run: what JSON holds, and where it lies."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.case import PER_EDGE
from benchmarks.measure import Summary, ratios, summarize

FORMAT = 1
_PACKAGES = ("torch", "triton", "torch-geometric", "torch-scatter", "dgl", "numpy", "scipy")
_MEASURED_AGAINST = ("auto", "triton", "native")  # ratios are to the first of these that a case asks


@dataclass
class Row:
    """One measure of one provider on one case.

    Attributes:
        family: The case's.
        case: The case's name.
        measure: What was measured.
        provider: Of whom.
        sizes: The case's sizes, in words.
        status: "ran", "wrong" (the gate refused it), "failed", or "not run".
        reason: Why it did not run, or what the gate saw.
        samples: Seconds a round, in the order of the rounds; or one number of bytes.
        bound_s: The least time anyone could take, or None.
        aim: How many times faster or smaller than this provider we want to be; for a provider of ours, the seconds or
            bytes to stay below; or None.
        note: What else the reader should know.
        date: When it was measured.
        edges: Pairs that attend, where edges a second are told.
    """

    family: str
    case: str
    measure: str
    provider: str
    sizes: str
    status: str
    reason: str = ""
    samples: list[float] = field(default_factory=list)
    bound_s: float | None = None
    aim: float | None = None
    note: str = ""
    date: str = ""
    edges: int | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells rows apart."""
        return self.family, self.case, self.measure, self.provider

    @property
    def summary(self) -> Summary:
        """Of the samples."""
        return summarize(self.samples)


@dataclass
class Record:
    """A run: where, of what, and its rows."""

    machine: dict[str, Any]
    run: dict[str, Any]
    rows: list[Row]

    def ratio(self, row: Row) -> Summary | None:
        """How many times faster (or smaller) ours is than this row, round by round.

        None for our own row, where one of the two did not run, and for bytes an edge, of which ours may have none.
        """
        beside = {r.provider: r for r in self.rows if r.key[:3] == row.key[:3]}
        ours = next((name for name in _MEASURED_AGAINST if name in beside), "")
        mine = beside.get(ours)
        if mine is None or row.provider == ours or not (mine.status == row.status == "ran"):
            return None
        if row.measure == PER_EDGE or len(mine.samples) != len(row.samples):  # measured at different times
            return None
        return summarize(ratios(row.samples, mine.samples))


def save(record: Record, path: Path) -> None:
    """Write a record as JSON. Cases that the file holds and the record does not are kept."""
    rows = record.rows
    if path.exists():
        measured = {row.key[:2] for row in rows}
        rows = [row for row in load(path).rows if row.key[:2] not in measured] + rows
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"format": FORMAT, "machine": record.machine, "run": record.run, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(whole, indent=1) + "\n")


def load(path: Path) -> Record:
    """Read a record.

    Raises:
        ValueError: The file is no record of this format.
    """
    whole = json.loads(path.read_text())
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise ValueError(f"{path} must be a result file of format {FORMAT}; measure anew.")
    return Record(whole["machine"], whole["run"], [Row(**row) for row in whole["rows"]])


def place(out: Path, record: Record) -> Path:
    """<out>/<machine>/<commit>.json; a quick run's name says so."""
    machine, run = record.machine, record.run
    words = machine.get("device") or f"{machine['cpu']} {machine['instruction_set']} {threads(run)}"
    words = words.lower().replace("(r)", "").replace("(tm)", "")
    folder = re.sub(r"[^a-z0-9]+", "-", words).strip("-")
    return out / folder / f"{run['commit']}{'-quick' if run['quick'] else ''}.json"


def threads(run: dict[str, Any]) -> str:
    """Like "1 thread" or "2 threads"."""
    return f"{run['threads']} thread" + ("" if run["threads"] == 1 else "s")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, instruction set and versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "instruction_set": _instruction_set(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    }


def describe_run(num_threads: int, repeats: int, quick: bool) -> dict[str, Any]:
    """Commit, date and settings."""
    return {"commit": _commit(), "date": today(), "threads": num_threads, "repeats": repeats, "quick": quick}


def today() -> str:
    """The date and minute in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")


def _instruction_set() -> str:
    """That the C++ library chose, or "not built"."""
    from graphformer import _library
    from graphformer.kernels import native

    return _library.instruction_set() if native.LIBRARY else "not built"


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # no Linux
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _commit() -> str:
    def git(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "..", ":!results", ":!TABLES.md")
        return git("rev-parse", "--short=10", "HEAD") + ("-changed" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
