"""Time in interleaved rounds, the machine's own peaks, and the arithmetic of ratios."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from benchmarks.case import Work

_SHORTEST_SAMPLE_S = 0.005  # shorter actions are repeated within one sample
_FEWEST_ROUNDS = 3
_LONG_S = 0.9  # an action of this length is warm after one run


class Summary(NamedTuple):
    """What is told of a list of samples."""

    minimum: float
    p10: float
    median: float
    p90: float


def percentile(samples: Sequence[float], share: float) -> float:
    """The value below which a share of the samples lies, interpolated between the two nearest."""
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def summarize(samples: Sequence[float]) -> Summary:
    """Minimum, 10th percentile, median, 90th percentile."""
    return Summary(min(samples), *(percentile(samples, share) for share in (0.1, 0.5, 0.9)))


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """theirs / ours, round by round: what both suffer in a round cancels."""
    return [a / b for a, b in zip(theirs, ours, strict=True)]


def in_rounds(
    actions: Mapping[str, Callable[[], object]],
    repeats: int,
    budget_s: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each action, taken in turns; whoever began a round ends the next.

    Each action runs beforehand, untimed, a long one once and others twice; a short one runs several times in a sample,
    of which the mean is taken.

    Args:
        actions: What to time, by name; may be empty.
        repeats: Rounds.
        budget_s: When the samples took longer than this, no further round begins, but for the first three.
        clock: Tells the time in seconds.
    """
    inner = {}
    for name, action in actions.items():
        for _ in range(2):
            start = clock()
            action()
            took = clock() - start
            if took > _LONG_S:
                break
        inner[name] = max(1, round(_SHORTEST_SAMPLE_S / max(took, 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in actions}
    order = list(actions)
    spent = 0.0
    for turn in range(repeats if actions else 0):
        if turn >= _FEWEST_ROUNDS and spent > budget_s:
            break
        for name in order:
            gc.collect(0)
            start = clock()
            for _ in range(inner[name]):
                actions[name]()
            took = clock() - start
            spent += took
            samples[name].append(took / inner[name])
        order.append(order.pop(0))
    return samples


class Peaks(NamedTuple):
    """What the machine reached in this run, with this number of threads."""

    flops: float
    gathered_bytes: float
    streamed_bytes: float


def measure_peaks(quick: bool = False) -> Peaks:
    """A large matrix product, sums of gathered rows of 512 bytes, and a copy: the best of a few tries each.

    Gathered rows are summed by `embedding_bag`, which writes next to nothing: the bytes are those read.
    """
    generator = torch.Generator().manual_seed(0)
    size = 1024 if quick else 2048
    matrix = torch.randn(size, size, generator=generator)
    source = torch.randn(2**22 if quick else 2**26, generator=generator)
    target = torch.empty_like(source)
    table = torch.randn(169_343, 128, generator=generator)
    picks = torch.randint(0, table.shape[0], (200_000 if quick else 1_600_000,), generator=generator)
    bags = torch.arange(0, picks.numel(), 8)

    def gather() -> None:
        torch.nn.functional.embedding_bag(picks, table, bags, mode="sum")

    def best(action: Callable[[], object]) -> float:
        return min(in_rounds({"": action}, 5)[""])

    return Peaks(
        2.0 * size**3 / best(lambda: matrix @ matrix),
        picks.numel() * 512 / best(gather),
        2.0 * source.numel() * 4 / best(lambda: target.copy_(source)),
    )


def bound_seconds(work: Sequence[Work], peaks: Peaks) -> float:
    """The time below which no one gets: of each part, the longer of arithmetic and memory."""
    return sum(
        max(
            part.flops / peaks.flops,
            part.gathered_bytes / peaks.gathered_bytes + part.streamed_bytes / peaks.streamed_bytes,
        )
        for part in work
    )
