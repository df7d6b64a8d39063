"""The command: starts the measuring process, keeps what it tells, and starts it anew where a case took it along."""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.tune import Found, report
from benchmarks.gpu.worker import BROKEN
from benchmarks.providers import OURS
from benchmarks.record import Record, Row, describe_machine, describe_run, place, save, today
from benchmarks.tables import write_one

ROOT = Path(__file__).parents[2]
_GRACE_S = 12.0  # beyond the limit, before the process is ended
_SILENT_S = 150.0  # without a line: something hangs
_MOST_STARTS = 8


def main(words: list[str]) -> int:
    """Run the command; the exit status is 1 where one of our own rows is wrong or failed."""
    args = _parser().parse_args(words)
    if not args.dry_run and not torch.cuda.is_available():
        _parser().error("torch finds no GPU here. --dry-run tries everything in small on the CPU.")
    started = time.time()
    measured = Measured(args, started)
    with tempfile.TemporaryDirectory() as caches:
        measured.run(caches)
    record = measured.record
    if measured.path is None:
        _log("the measuring process ended before it told anything")
        return 1
    save(record, measured.path)
    if measured.found:
        measured.path.with_name(f"{measured.path.stem}-cuts.md").write_text(report(measured.found))
    write_one(record, measured.path.with_suffix(".md"))
    print(f"written to {measured.path} and {measured.path.with_suffix('.md').name}")
    bad = [row for row in record.rows if row.provider in OURS and row.status in ("wrong", "failed")]
    _log(f"{len(record.rows)} rows in {time.time() - started:.0f} s; of ours {len(bad)} are wrong or failed")
    return int(bool(bad) or not record.rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks gpu", description="Gate and measure the GPU's kernels.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for <machine>/<commit>.json and .md")
    parser.add_argument("--dry-run", action="store_true", help="no GPU: tiny sizes, kernels by Triton's interpreter")
    parser.add_argument(
        "--limit", type=float, default=450.0, metavar="SECONDS", help="default 450; what is left is skipped"
    )
    parser.add_argument(
        "--tune", action="store_true", help="search for better cuts of our kernels, and measure nothing"
    )
    parser.add_argument("--commit", help="of the sources, where git cannot tell")
    parser.add_argument("--repeats", type=int, default=30, help="rounds at most; default 30")
    return parser


class Measured:
    """A run and its record, which is written after every case.

    Args:
        args: Of the command.
        started: When, in seconds since the epoch.
    """

    def __init__(self, args: argparse.Namespace, started: float) -> None:
        self.args, self.ends_at = args, started + args.limit
        run = describe_run(torch.get_num_threads(), 1 if args.dry_run else args.repeats, args.dry_run) | {
            "limit_s": args.limit
        }
        run["commit"] = args.commit or run["commit"]
        self.record = Record(describe_machine(), run, [])
        self.path: Path | None = None
        self.words = [sys.executable, "-m", "benchmarks.gpu.worker"]
        self.done: list[str] = []
        self.without: dict[str, str] = {}
        self.found: list[Found] = []
        self.now: tuple[str, str] = ("", "")

    def run(self, caches: str) -> None:
        """Start the process until nothing is left to do or no time to do it in."""
        for _ in range(_MOST_STARTS):
            status = self._once(caches)
            if status == 0 or self.path is None:
                return
            _log(f"the measuring process ended with status {status} at {' '.join(self.now)}; it goes on without that")
        self._close(*self.now, "failed: the measuring process ended too often")

    def _once(self, caches: str) -> int:
        settings = {
            "device": "cpu" if self.args.dry_run else "cuda",
            "is_tiny": self.args.dry_run,
            "repeats": 1 if self.args.dry_run else self.args.repeats,
            "ends_at": self.ends_at,
            "done": self.done,
            "without": self.without,
            "tunes": self.args.tune,
            "peaks": list(self.record.run["peaks"].values()) if "peaks" in self.record.run else None,
        }
        environment = dict(os.environ)
        if _has_compiler():  # without one, only Triton's own cache may hold the library that it starts kernels with
            # Cold, so that a first call is one.
            environment |= {"TRITON_CACHE_DIR": f"{caches}/triton", "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor"}
        if self.args.dry_run:
            environment["TRITON_INTERPRET"] = "1"
        words = [*self.words, json.dumps(settings)]
        with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
            said = self._listen(process)
        status = process.returncode
        if status not in (0, BROKEN) or said:
            self._blame(said or f"failed: it ended the process with status {status}")
        return status

    def _listen(self, process: subprocess.Popen[str]) -> str:
        """Keep what the process tells until it ends. Gives why it was ended, if it was."""
        lines: queue.Queue[str | None] = queue.Queue()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            return self._take_lines(process, lines)
        except BaseException:
            process.kill()  # what it would tell cannot be kept
            raise
        finally:
            reader.join()  # it ends where the process has

    def _take_lines(self, process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> str:
        ends_at = max(self.ends_at, time.time()) + _GRACE_S  # one that starts late only tells what is not run
        while True:
            left = ends_at - time.time()
            try:
                line = lines.get(timeout=max(0.0, min(left, _SILENT_S)))
            except queue.Empty:
                process.kill()
                hangs = left > _SILENT_S
                return f"failed: nothing was heard of it for {_SILENT_S:.0f} s" if hangs else "not run: the limit came"
            if line is None:
                return ""
            self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        if "machine" in event:
            self.record.machine |= event["machine"]
            self.path = place(self.args.out, self.record)
        elif "peaks" in event:
            self.record.run["peaks"] = event["peaks"]
        elif "now" in event:
            self.now = tuple(event["now"])
        elif "broken" in event:
            case, provider, said = event["broken"]
            self.without[f"{case} {provider}"] = said
        else:
            self.done.append(event["done"])
            self.record.rows += [Row(**row) for row in event["rows"]]
            self.found += [Found(**one) for one in event.get("found", ())]
            if self.path is not None:
                save(self.record, self.path)

    def _blame(self, said: str) -> None:
        """Leave out what the process was at, when it starts again."""
        case, provider = self.now
        if provider and f"{case} {provider}" not in self.without:
            self.without[f"{case} {provider}"] = said
        else:
            self._close(case, provider, said)

    def _close(self, case: str, provider: str, said: str) -> None:
        """One row for a case that cannot be told of in its own."""
        self.done.append(case)
        family, _, name = case.partition("/")
        status, _, reason = said.partition(": ")
        self.record.rows.append(
            Row(family, name or family, "all", provider or "triton", "", status, reason, date=today())
        )


def _has_compiler() -> bool:
    return "CC" in os.environ or any(shutil.which(name) for name in ("clang", "gcc"))


def _log(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
