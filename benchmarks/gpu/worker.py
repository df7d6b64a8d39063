"""The process that measures: ``python -m benchmarks.gpu.worker SETTINGS``, started by :mod:`benchmarks.gpu.command`.

It tells what it does as lines of JSON on its standard output; whatever others print goes to standard error. It ends
with status 3 after an error that the device does not recover from, and is then started again for the rest.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TextIO

import torch
from torch import Tensor

from benchmarks import gate
from benchmarks.case import BOTH, BUILD, FIRST, MEMORY, CannotRun, Case, Provider, Run
from benchmarks.gpu import device as gpu
from benchmarks.gpu import loops, tune
from benchmarks.gpu.cases import all_cases
from benchmarks.measure import Peaks, bound_seconds
from benchmarks.providers import OURS, PROVIDERS
from benchmarks.record import Row
from benchmarks.runner import line_of, one_line, row_of

BROKEN = 3  # the exit status
_VECTORS = ("out", "query", "key", "value", "edge_map")  # a bias's gradient may be nothing but rounding, by any share
_FAR = 0.1  # of the norm: a rival that is off by more computes something else
# Of the norm, for ours: some roundings of numbers, weights and their gradients.
_NEAR = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}
_LEAST_LEFT_S = 12.0  # no provider is begun with less


class Worker:
    """Runs the cases that are left, within what is left of the time."""

    def __init__(self, settings: dict[str, Any], channel: TextIO) -> None:
        self.device: str = settings["device"]
        self.is_tiny: bool = settings["is_tiny"]
        self.repeats: int = settings["repeats"]
        self.ends_at: float = settings["ends_at"]
        self.done: list[str] = settings["done"]
        self.without: dict[str, str] = settings["without"]
        self.tunes: bool = settings["tunes"]
        self.peaks = Peaks(*settings["peaks"]) if settings["peaks"] else None
        self.channel = channel

    def tell(self, **event: Any) -> None:
        """A line for the process that started this one."""
        print(json.dumps(event), file=self.channel, flush=True)

    @property
    def left_s(self) -> float:
        """Seconds until the limit."""
        return self.ends_at - time.time()

    def run(self) -> None:
        """Gate, peaks, cases, and in what time is left a search for better cuts."""
        if self.peaks is None:
            self.tell(machine=gpu.describe(self.device))
        for case in loops.cases(self.device):
            if case.key not in self.done:
                self._told(case, [self._judge_loop(case)])
        if self.tunes:
            self._tune()
            return
        if self.peaks is None and "peaks" not in self.done and self.left_s > 0:
            self.tell(now=["peaks", ""])
            self.peaks = gpu.measure_peaks(self.device, self.is_tiny)
            self.tell(peaks=self.peaks._asdict())
        for case in all_cases(self.device, self.is_tiny):
            if case.key not in self.done:
                self._told(case, self._run_case(case))
                gpu.forget()
        if not self.is_tiny:
            self._tune()

    def _tune(self) -> None:
        for case in all_cases(self.device, self.is_tiny):
            key = f"cuts {case.key}"
            if key in self.done or f"{case.key} triton" in self.without or self.left_s < case.needs_s:
                continue
            self.tell(now=[case.key, "triton"])
            provider, rows, found = PROVIDERS["triton"], list[Row](), list[tune.Found]()
            try:
                found = tune.search(case, provider.prepare(case, case.make()), lambda: self.left_s)
            except Exception as error:  # noqa: BLE001 - it becomes the case's row
                said = self._unless_broken(case, "triton", error)
                rows = [row_of(case, FIRST, provider, {"triton": said}, None)]
            self.tell(done=key, rows=[asdict(row) for row in rows], found=[one._asdict() for one in found])
            told = [f"{one.direction} {one.cut}" for one in found] + [row.reason for row in rows]
            _log(f"{case.key}: {'; '.join(told) or 'has no cuts'}")
            gpu.forget()

    def _judge_loop(self, case: Case) -> Row:
        self.tell(now=[case.key, "triton"])
        known = self.without.get(f"{case.key} triton") or ("" if self.left_s > 0 else "not run: the limit was reached")
        return row_of(case, FIRST, PROVIDERS["triton"], {"triton": known}, None) if known else loops.judge(case)

    def _told(self, case: Case, rows: list[Row]) -> None:
        for row in rows:
            if row.status != "not run":
                _log(line_of(row))
        self.tell(done=case.key, rows=[asdict(row) for row in rows])

    def _run_case(self, case: Case) -> list[Row]:
        providers = [PROVIDERS[name] for name in case.providers]
        if self.left_s < case.needs_s and not self.is_tiny:
            why = f"not run: {self.left_s:.0f} s were left of the limit, and it takes {case.needs_s:.0f} s or more"
            return self._rows(case, providers, {provider.name: why for provider in providers}, {})
        _log(f"{case.key}: {case.sizes}")
        self.tell(now=[case.key, "inputs"])
        known = self.without.get(f"{case.key} inputs")
        try:
            if known:
                raise RuntimeError(known.partition(": ")[2])
            inputs = case.make()
            oracle = PROVIDERS[case.oracle].prepare(case, inputs)
            expected = gate.numbers(oracle, True)
            del oracle
        except Exception as error:  # noqa: BLE001 - it becomes the case's rows
            self._unless_broken(case, "inputs", error)
            why = f"failed: without inputs and oracle: {type(error).__name__}: {one_line(error)}"
            return self._rows(case, providers, {provider.name: why for provider in providers}, {})
        verdicts: dict[str, str] = {}
        runs: dict[str, Run] = {}
        firsts: dict[str, list[float]] = {}
        for provider in providers:
            verdicts[provider.name] = self._prepare(case, provider, inputs, expected, runs, firsts)
        del expected
        samples = {measured: self._samples(case, measured, runs, verdicts, firsts) for measured in case.measures}
        return self._rows(case, providers, verdicts, samples, {name: run.note for name, run in runs.items()})

    def _prepare(
        self,
        case: Case,
        provider: Provider,
        inputs: Any,
        expected: dict[str, Tensor],
        runs: dict[str, Run],
        firsts: dict[str, list[float]],
    ) -> str:
        """Make a provider ready, time its first call and judge it. Gives what stands against it, empty if nothing."""
        name = provider.name
        known = self.without.get(f"{case.key} {name}")
        if known or all(provider.why_not(case, measured) for measured in case.measures):
            return known or ""
        if self.left_s < _LEAST_LEFT_S and not self.is_tiny:
            return f"not run: {self.left_s:.0f} s were left of the limit"
        self.tell(now=[case.key, name])
        _log(f"  {name}")
        try:
            run = provider.prepare(case, inputs)
            took, found = gpu.seconds_of(lambda: gate.numbers(run, not provider.why_not(case, BOTH)), case.device)
            verdict, note = _judge(provider, found, expected)
            run.note = "; ".join(part for part in (run.note, note) if part)
            runs[name], firsts[name] = run, [took]
        except CannotRun as reason:
            return f"not run: {reason}"
        except Exception as error:  # noqa: BLE001 - it becomes the provider's row
            return self._unless_broken(case, name, error)
        return verdict

    def _samples(
        self, case: Case, measured: str, runs: dict[str, Run], verdicts: dict[str, str], firsts: dict[str, list[float]]
    ) -> dict[str, list[float] | str]:
        able = {
            name: run
            for name, run in runs.items()
            if not verdicts[name] and not PROVIDERS[name].why_not(case, measured) and _is_asked(case, measured, name)
        }
        if measured == FIRST or (measured == BOTH and self.is_tiny):  # a dry run runs it once
            return {name: firsts[name] for name in able}
        if measured == MEMORY and self.device == "cpu":
            return dict.fromkeys(able, "not run: the device's memory is asked")
        if measured == MEMORY:
            heaviest = BOTH if BOTH in case.measures else case.measures[0]
            return {name: self._bytes(case, name, run.action(heaviest)) for name, run in able.items()}
        most = 1.0 if measured == BUILD else 4.0
        budget = max(1.0, min(most, self.left_s / 20))
        return self._seconds(case, {name: run.action(measured) for name, run in able.items()}, budget)

    def _bytes(self, case: Case, name: str, action: Callable[[], object]) -> list[float] | str:
        self.tell(now=[case.key, name])
        try:
            return [float(gpu.extra_bytes(action))]
        except Exception as error:  # noqa: BLE001 - it becomes the provider's row
            return self._unless_broken(case, name, error)

    def _seconds(
        self, case: Case, actions: dict[str, Callable[[], object]], budget: float
    ) -> dict[str, list[float] | str]:
        """Seconds of each action in turns; of one that raises, what it raised, and the others' without it."""
        at = ""

        def noted(name: str) -> Callable[[], object]:
            def run() -> object:
                nonlocal at
                at = name
                return actions[name]()

            return run

        told = {name: noted(name) for name in actions}
        try:
            for name, action in [] if self.is_tiny else told.items():  # warm, one by one
                self.tell(now=[case.key, name])
                gpu.seconds_of(action, self.device)
            return {**gpu.in_rounds(told, self.repeats, budget, self.device)}
        except Exception as error:  # noqa: BLE001 - it becomes the provider's row
            failed: list[float] | str = self._unless_broken(case, at, error)
            rest = {name: action for name, action in actions.items() if name != at}
            return {at: failed, **self._seconds(case, rest, budget)}

    def _rows(
        self,
        case: Case,
        providers: list[Provider],
        verdicts: dict[str, str],
        samples: dict[str, dict[str, list[float] | str]],
        notes: dict[str, str] | None = None,
    ) -> list[Row]:
        out = []
        for measured in case.measures:
            is_bound = measured in case.work and self.peaks and not self.is_tiny
            bound = bound_seconds(case.work[measured], self.peaks) if is_bound else None
            for provider in providers:
                if _is_asked(case, measured, provider.name):
                    taken = samples.get(measured, {}).get(provider.name)
                    row = row_of(case, measured, provider, verdicts, taken)
                    row.bound_s, row.note = bound, (notes or {}).get(provider.name, "")
                    row.aim = None if self.is_tiny else row.aim  # aims are of the case's own size
                    out.append(row)
        return out

    def _unless_broken(self, case: Case, name: str, error: Exception) -> str:
        """What the row says of an error. Ends the process where the device does not work any more."""
        if isinstance(error, torch.OutOfMemoryError):
            traceback.clear_frames(error.__traceback__)  # they hold what did not fit
            gpu.empty()
            return f"not run: out of memory: {one_line(error).partition('. GPU')[0]}"
        said = f"failed: {type(error).__name__}: {one_line(error)}"
        try:
            gpu.synchronize(self.device)
        except RuntimeError:
            self.tell(broken=[case.key, name, said])
            os._exit(BROKEN)
        return said


def _is_asked(case: Case, measured: str, name: str) -> bool:
    return name in OURS or measured not in case.ours_only or not PROVIDERS[name].why_not(case, measured)


def _judge(provider: Provider, found: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[str, str]:
    """(what stands against a provider, what the reader should know).

    Ours are held to the table of tolerances, and to a share of the norm. A rival may sum in half precision: it is wrong
    where it computes something else, and otherwise its error is told.
    """
    if provider.leaves_out:
        return "", ""
    wrong = gate.complaint(found, expected)
    name, error = gate.farthest({name: found[name] for name in _VECTORS if name in found}, expected)
    told = f"{name} is off by {error:.1e} of its norm"
    if provider.name in OURS:
        wrong = wrong or ("" if error < _NEAR[expected["out"].dtype] else told)
        return f"wrong: {wrong}" if wrong else "", ""
    if not wrong:
        return "", ""
    is_same = error < _FAR and all(name in expected and expected[name].shape == t.shape for name, t in found.items())
    return ("", f"its {told}") if is_same else (f"wrong: {wrong}", "")


def _log(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def main() -> None:
    """Measure as the settings say."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print shall not be read as ours
    worker = Worker(json.loads(sys.argv[1]), channel)
    if worker.is_tiny:  # an interpreter has use for one
        torch.set_num_threads(1)
    worker.run()


if __name__ == "__main__":
    main()
