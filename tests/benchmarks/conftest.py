from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

# The benchmarks are no part of the installed package; at the end, so that the package under test stays what it is.
sys.path.append(str(Path(__file__).parents[2]))


@pytest.fixture
def record():
    """Two providers on two cases: one ratio of 2 within noise, one row that did not run, one count of bytes."""
    from benchmarks.record import Record, Row

    def row(case, measure, provider, samples, **more):
        return Row("irregular", case, measure, provider, "N=7", "ran", samples=samples, date="2026-01-02 03:04", **more)

    rows = [
        row("rmat", "forward", "native", [0.010, 0.020, 0.040], bound_s=0.005),
        row("rmat", "forward", "pyg", [0.020, 0.040, 0.060], aim=2.0),
        row("rmat", "forward", "pyg-scatter", [0.030, 0.060, 0.120], aim=10.0),
        row("slope", "memory per edge", "native", [12.0], aim=64.0),
        Row("irregular", "rmat", "forward", "dgl", "N=7", "not run", "DGL is not there"),
    ]
    machine = {
        "cpu": "A(R) Chip",
        "cores": 2,
        "memory_gib": 3,
        "instruction_set": "avx2",
        "system": "Linux",
        "versions": {"torch": "2.0"},
    }
    run = {"commit": "abc", "date": "2026-01-02 03:04", "threads": 2, "repeats": 3, "quick": False}
    return Record(machine, run, rows)


@pytest.fixture(autouse=True)
def _same_threads():
    """The command sets torch's number of threads; the tests that follow shall not notice."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
