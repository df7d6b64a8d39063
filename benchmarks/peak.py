"""Peak memory of a provider on a case, in a process of its own: ``python -m benchmarks.peak CASE PROVIDER MEASURE``.

Resident memory is read before; /proc/self/clear_refs resets the process's high-water mark; what the mark shows above
after what the measure names, one forward and backward or a building, is what it took beside its inputs.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# Blocks above 64 KiB go back to the system when they are freed, so that nothing freed earlier hides what comes later.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
_TIMEOUT_S = 600


def why_not() -> str:
    """Why peak memory cannot be measured here; empty if it can."""
    if sys.platform != "linux" or not os.access("/proc/self/clear_refs", os.W_OK):
        return "/proc/self/clear_refs is not there to reset the high-water mark"
    return ""


def extra_bytes(case: str, provider: str, measure: str, *, quick: bool, threads: int) -> list[tuple[int, int]]:
    """(edges, extra bytes) of what a measure executes, for each of the case's inputs, from a fresh process.

    Raises:
        RuntimeError: The process failed; the message is its last line.
    """
    words = [sys.executable, "-m", "benchmarks.peak", case, provider, measure, "--threads", str(threads)]
    done = subprocess.run(
        words + ["--quick"] * quick,
        env={**os.environ, **_ALLOCATOR},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(last)
    return [tuple(point) for point in json.loads(done.stdout.strip().splitlines()[-1])]


def slope(points: list[tuple[int, int]]) -> float:
    """Further bytes a further edge, from the first point to the last."""
    (first_edges, first_bytes), (last_edges, last_bytes) = points[0], points[-1]
    return (last_bytes - first_bytes) / (last_edges - first_edges)


def status_bytes(name: str) -> int:
    """A line of /proc/self/status, such as VmRSS, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def extra_of(action: Any) -> int:
    """What the process's memory grows by, at most, while the action runs."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = status_bytes("VmRSS")
    kept = action()
    peak = status_bytes("VmHWM")
    del kept
    return peak - before


def main() -> None:
    """Print [[edges, bytes], ...] for the case's inputs."""
    parser = argparse.ArgumentParser(description="Peak memory of one provider on one case.")
    parser.add_argument("case")
    parser.add_argument("provider")
    parser.add_argument("measure")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    import torch

    from benchmarks.cases import all_cases
    from benchmarks.providers import PROVIDERS

    torch.set_num_threads(args.threads)
    case = next(case for case in all_cases(args.quick) if case.key == args.case)
    provider = PROVIDERS[args.provider]
    inputs, points = case.make(), []
    makes = [lambda: inputs, *getattr(inputs, "more", ())]
    # Threads, tables of operators and the like are paid for on a few nodes before.
    provider.prepare(case, _few(inputs)).action(args.measure)()
    for make in makes:
        made = make()
        run = provider.prepare(case, made)
        edges = made.graph.num_edges if hasattr(made, "graph") else 0  # for a slope, which only graphs are asked for
        points.append((edges, extra_of(run.action(args.measure))))
    print(json.dumps(points))


def _few(inputs: Any) -> Any:
    """The same kind of inputs with four nodes in a ring, or a pattern over its few nodes."""
    import torch

    from benchmarks.case import DropIn, Laying
    from graphformer.graphs import AttentionGraph

    if isinstance(inputs, Laying):
        return dataclasses.replace(inputs, nodes=inputs.few)
    if isinstance(inputs, DropIn):
        return inputs.few
    place = torch.arange(4)
    graph = AttentionGraph.from_edge_index(torch.stack((place, place.roll(1))), num_nodes=4)
    names = {field.name for field in dataclasses.fields(inputs)}
    rows = {name: getattr(inputs, name)[:4] for name in ("x", "query", "key", "value", "grad_out") if name in names}
    return dataclasses.replace(inputs, graph=graph, lengths=(4,), **rows)


if __name__ == "__main__":
    main()
