"""The device's clock, memory and peaks. On the CPU, for a dry run, only the clock."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.measure import Peaks, summarize

_FEWEST_ROUNDS = 3
_FLUSH_BYTES = 2**28  # four times the L2 of an H200


def synchronize(device: str) -> None:
    """Wait for the device, and raise what it met."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(action: Callable[[], object], device: str) -> tuple[float, Any]:
    """(wall-clock seconds until the device is done, what the action returned)."""
    synchronize(device)
    start = time.perf_counter()
    out = action()
    synchronize(device)
    return time.perf_counter() - start, out


def in_rounds(
    actions: Mapping[str, Callable[[], object]], repeats: int, budget_s: float, device: str
) -> dict[str, list[float]]:
    """Seconds of each action by CUDA events, taken in turns, once a round each, with the L2 flushed before.

    Each action must have run before. What the host does between the events counts where the device waits for it.

    Args:
        actions: What to time, by name.
        repeats: Rounds.
        budget_s: When the rounds took longer than this, no further one begins, but for the first three.
        device: "cuda", or "cpu" for wall-clock time.
    """
    samples: dict[str, list[float]] = {name: [] for name in actions}
    order, start = list(actions), time.perf_counter()
    flush = torch.empty(_FLUSH_BYTES if device == "cuda" else 0, dtype=torch.int8, device=device)
    for turn in range(repeats if actions else 0):
        if turn >= _FEWEST_ROUNDS and time.perf_counter() - start > budget_s:
            break
        for name in order:
            gc.collect(0)
            flush.zero_()
            samples[name].append(_seconds(actions[name], device))
        order.append(order.pop(0))
    return samples


def _seconds(action: Callable[[], object], device: str) -> float:
    if device == "cpu":
        return seconds_of(action, device)[0]
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    action()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def extra_bytes(action: Callable[[], object]) -> int:
    """What the device's memory grows by, at most, while the action runs."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = action()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    del kept
    return peak - before


def forget() -> None:
    """Give back what the last case left behind, its programs too."""
    torch.compiler.reset()
    empty()


def empty() -> None:
    """Give memory back that nobody holds."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def describe(device: str) -> dict[str, Any]:
    """What the tables say of the machine beside its processor."""
    if device == "cpu":
        return {"device": "dry run (no GPU)"}
    facts = torch.cuda.get_device_properties(0)
    return {
        "device": facts.name,
        "device_memory_gib": round(facts.total_memory / 2**30, 1),
        "multiprocessors": facts.multi_processor_count,
        "l2_mib": round(getattr(facts, "L2_cache_size", 0) / 2**20),
        "capability": f"sm_{facts.major}{facts.minor}",
        "cuda": torch.version.cuda,
    }


def measure_peaks(device: str, is_tiny: bool) -> Peaks:
    """A large bfloat16 matrix product, rows of 512 bytes gathered, and a copy: the best of a few tries each.

    Bytes are those read and those written.
    """
    size, rows, picked, copied = (64, 128, 256, 2**12) if is_tiny else (8192, 2**20, 2**22, 2**30)
    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    table = torch.randn(rows, 256, device=device).bfloat16()
    picks = torch.randint(rows, (picked,), device=device)
    gathered = table.new_empty(picked, 256)
    source = torch.randn(copied, device=device)
    target = torch.empty_like(source)
    actions: dict[str, Callable[[], object]] = {
        "flops": lambda: matrix @ matrix,
        "gathered": lambda: torch.index_select(table, 0, picks, out=gathered),
        "streamed": lambda: target.copy_(source),
    }
    for action in actions.values():
        action()
    best = {name: summarize(taken).minimum for name, taken in in_rounds(actions, 7, 5.0, device).items()}
    return Peaks(
        2.0 * size**3 / best["flops"], 2.0 * gathered.nbytes / best["gathered"], 2.0 * source.nbytes / best["streamed"]
    )
