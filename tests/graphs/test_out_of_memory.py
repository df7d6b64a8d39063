"""Out of memory inside the compiled library: an error that names the sizes, never the end of the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from graphformer._library import LIBRARY

pytestmark = pytest.mark.skipif(LIBRARY is None or sys.platform != "linux", reason="limits what the library may take")

_PROGRAM = """
import resource
import torch
from graphformer import AttentionGraph, attend
from graphformer._errors import OutOfMemoryError
from graphformer.graphs import tiles
from graphformer.graphs.layout import Layout, make_layout, transpose_layout
from graphformer.graphs.runs import KeyRuns

torch.set_num_threads(2)
count = 2**23
{before}
def run():
    {call}
with open("/proc/self/statm") as file:
    held = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + {mebibytes} * 2**20, -1))
try:
    run()
except OutOfMemoryError as error:
    assert isinstance(error, MemoryError)
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
run()
print("done")
"""
_PAIRS = "zero, key = torch.zeros(count).long(), torch.arange(count).flip(0)\n"
_PAIRS += "make_layout(zero[:99], key[-99:], 1, count)"
_SORTED = "AttentionGraph: memory must suffice to sort 8,388,608 pairs of 1 and 8,388,608 nodes; got too little."
# What a thread has of 32 or 64 rows is far larger than these two.
_NODES = """
tiles.LEAST_FILL = {fill}
graph = AttentionGraph.from_dense(torch.ones(2, 2).bool()).prepare()
x = torch.randn(2, 1, 2**18).bfloat16().requires_grad_()
out = attend(x, x, x, graph).sum()
torch.autograd.grad(out, x, retain_graph=True)
"""
_ATTENDED = "attend: memory must suffice to hold what goes with 2 queries, 2 keys and 4 edges; got too little."


@pytest.mark.parametrize(
    ("before", "call", "mebibytes", "message"),
    [
        # 64 MiB of result and 96 of pairs; and the same again inside the parallel region, as they share a bucket
        (_PAIRS, "make_layout(zero, key, 1, count)", 110, _SORTED),
        (_PAIRS, "make_layout(zero, key, 1, count)", 205, _SORTED),
        (
            "layout = Layout(torch.tensor([0, count]), torch.arange(count).int(), None)\n"
            "transpose_layout(Layout(torch.tensor([0, 1]), torch.zeros(1).int(), None), 1)  # loads what it calls",
            "transpose_layout(layout, count)",
            140,
            _SORTED,
        ),
        (
            _PAIRS,
            "KeyRuns.from_runs(zero, 2 * key, 2 * key + 1, 1, 2 * count)",
            360,
            "KeyRuns: memory must suffice to order 16,777,218 ends of runs in 1 rows; got too little",
        ),
        (_NODES.format(fill=2.0), "attend(x, x, x, graph)", 25, _ATTENDED),
        (_NODES.format(fill=1e-9), "attend(x, x, x, graph)", 25, _ATTENDED),
        (_NODES.format(fill=2.0), "torch.autograd.grad(out, x, retain_graph=True)", 25, _ATTENDED),
        (_NODES.format(fill=1e-9), "torch.autograd.grad(out, x, retain_graph=True)", 25, _ATTENDED),
    ],
)
def test_the_library_raises_and_goes_on(before: str, call: str, mebibytes: int, message: str) -> None:
    program = _PROGRAM.format(before=before, call=call, mebibytes=mebibytes)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert message in done.stdout
    assert done.stdout.endswith("done\n")
