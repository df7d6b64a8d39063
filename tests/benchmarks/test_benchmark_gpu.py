"""The command for a GPU: its dry run, its graphs, and what becomes of a process that ends."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import gate
from benchmarks.gpu import inputs, loops
from benchmarks.gpu.cases import all_cases, row_work
from benchmarks.gpu.command import Measured
from benchmarks.gpu.worker import Worker, _judge
from benchmarks.providers import PROVIDERS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_dry_run_tries_everything(tmp_path):
    words = [sys.executable, "-m", "benchmarks", "gpu", "--dry-run", "--out", str(tmp_path), "--limit", "600"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = tmp_path.glob("dry-run-no-gpu/*.json")
    whole = json.loads(path.read_text())
    assert whole["machine"]["device"] == "dry run (no GPU)"
    rows = whole["rows"]
    assert {row["case"] for row in rows if row["family"] == "gate"} >= {f"{name}, float32" for name in loops.LOOPS}
    asked = {(case.family, case.name) for case in all_cases("cpu", is_tiny=True)}
    assert {(row["family"], row["case"]) for row in rows} >= asked
    assert {row["status"] for row in rows} == {"ran", "not run"}
    ran = {row["provider"] for row in rows if row["status"] == "ran"}
    assert ran >= {"triton", "auto", "pyg-eager", "pyg-compiled", "flex-attention", "sdpa-padded", "pyg-step"}
    tables = path.with_suffix(".md").read_text()
    assert "## dry run (no GPU)" in tables
    assert "edges/s" in tables


def measured(tmp_path, script, limit=60.0, tunes=False):
    """A run whose measuring process is a script, which is given the settings as `settings` and tells by `tell`."""
    args = argparse.Namespace(out=tmp_path, dry_run=True, limit=limit, repeats=1, tune=tunes, commit=None)
    run = Measured(args, time.time())
    head = "import json, os, sys, time\nsettings = json.loads(sys.argv[1])\n"
    head += "def tell(**event): print(json.dumps(event), flush=True)\n"
    head += "if not settings['done'] and not settings['without']: tell(machine={'device': 'A GPU'})\n"
    path = tmp_path / "script.py"
    path.write_text(head + script)
    run.words = [sys.executable, str(path)]
    return run


def test_a_process_that_dies_is_started_again_without_what_it_was_at(tmp_path):
    script = """
if 'window/a triton' not in settings['without']:
    tell(now=['window/a', 'triton'])
    os._exit(9)
row = dict(family='window', case='a', measure='forward', provider='triton', sizes='', status='failed',
           reason=settings['without']['window/a triton'])
tell(done='window/a', rows=[row])
"""
    run = measured(tmp_path, script)
    run.run(str(tmp_path))
    (row,) = run.record.rows
    assert row.reason == "failed: it ended the process with status 9"
    assert json.loads((tmp_path / "a-gpu").glob("*.json").__next__().read_text())["rows"][0]["status"] == "failed"


def test_an_error_that_the_device_does_not_recover_from_is_told_by_its_own_words(tmp_path):
    script = """
if not settings['without']:
    tell(broken=['window/a', 'flex', 'failed: illegal access'])
    os._exit(3)
tell(done='window/a', rows=[])
"""
    run = measured(tmp_path, script)
    run.run(str(tmp_path))
    assert run.without == {"window/a flex": "failed: illegal access"}
    assert run.done == ["window/a"]


def test_a_case_that_ends_every_process_gets_one_row(tmp_path):
    script = """
if 'window/a' not in settings['done']:
    tell(now=['window/a', 'inputs'])
    os._exit(1)
"""
    run = measured(tmp_path, script)
    run.run(str(tmp_path))
    (row,) = run.record.rows
    assert (row.family, row.case, row.provider, row.status) == ("window", "a", "inputs", "failed")


def test_what_hangs_is_ended_at_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.command._GRACE_S", 0.5)
    script = """
if not settings['without']:
    tell(now=['window/a', 'triton'])
    time.sleep(60)
"""
    run = measured(tmp_path, script, limit=1.0)
    start = time.time()
    run.run(str(tmp_path))
    assert time.time() - start < 20
    assert run.without == {"window/a triton": "not run: the limit came"}


def test_what_falls_silent_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.command._SILENT_S", 1.0)
    script = """
if not settings['without']:
    tell(now=['window/a', 'triton'])
    time.sleep(60)
"""
    run = measured(tmp_path, script)
    run.run(str(tmp_path))
    assert run.without == {"window/a triton": "failed: nothing was heard of it for 1 s"}


def test_a_process_that_never_spoke_is_not_started_again(tmp_path):
    run = measured(tmp_path, "")
    (tmp_path / "script.py").write_text("raise SystemExit(1)")
    run.run(str(tmp_path))
    assert run.path is None


def test_without_a_gpu_the_command_says_what_can_be_done(capsys, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    from benchmarks.__main__ import main

    with pytest.raises(SystemExit):
        main(["gpu", "--out", str(tmp_path)])
    assert "torch finds no GPU here" in capsys.readouterr().err


def test_a_loop_that_is_wrong_is_told(monkeypatch):
    right = PROVIDERS["reference"]
    case = next(case for case in loops.cases("cpu") if case.name.startswith("rows"))

    def prepare(case, made, factor=1.0):
        run = right.prepare(case, made)
        return type(run)(lambda: run.forward() * factor, run.leaves, run.grad_out)

    found = argparse.Namespace(name="triton", why_not=lambda case, measure: "", prepare=prepare)
    monkeypatch.setitem(PROVIDERS, "triton", found)
    assert loops.judge(case).status == "ran"
    found.prepare = lambda case, made: prepare(case, made, 1.001)
    row = loops.judge(case)
    assert (row.status, row.samples) == ("wrong", [])
    found.prepare = lambda case, made: 1 / 0
    assert loops.judge(case).reason == "ZeroDivisionError: division by zero"
    found.why_not = lambda case, measure: "no such device"
    assert (loops.judge(case).status, loops.judge(case).reason) == ("failed", "no such device")


def test_rivals_may_round_and_ours_may_not():
    expected = {"out": torch.randn(200, 8, generator=torch.Generator().manual_seed(0)).half()}
    off = {"out": expected["out"] * 1.02}
    other = {"out": expected["out"].roll(1, 0)}
    assert _judge(PROVIDERS["pyg-eager"], expected, expected) == ("", "")
    assert _judge(PROVIDERS["pyg-eager"], off, expected)[0] == ""
    assert "its out is off by 2.0e-02 of its norm" in _judge(PROVIDERS["pyg-eager"], off, expected)[1]
    assert _judge(PROVIDERS["triton"], off, expected)[0].startswith("wrong: out: off by")
    assert _judge(PROVIDERS["pyg-eager"], other, expected)[0].startswith("wrong: out: off by")
    assert _judge(PROVIDERS["pyg-eager"], {"out": off["out"] * torch.nan}, expected)[0].startswith("wrong")
    small = {"out": expected["out"] * 1e-4}
    assert gate.complaint({"out": small["out"].roll(1, 0)}, small) == ""  # all below the absolute tolerance
    assert _judge(PROVIDERS["triton"], {"out": small["out"].roll(1, 0)}, small)[0].startswith("wrong: out is off by 1")
    assert _judge(PROVIDERS["triton"], {"out": small["out"] * torch.nan}, small)[0].startswith("wrong")
    assert _judge(PROVIDERS["triton"], small, small) == ("", "")


def test_the_graphs_are_those_of_the_published_figures():
    points, edges = inputs.multi_mesh(2, "cpu")
    assert points.shape == (162, 3)
    assert edges.shape == (2, 1260)  # 60 (1 + 4 + 16)
    assert torch.allclose(points.norm(dim=1), torch.ones(162))
    assert torch.equal(torch.bincount(edges[0]), torch.bincount(edges[1]))  # both ways
    grid = inputs.sphere(500, "cpu")
    near = inputs.nearest(grid, points, 3)
    distance = torch.cdist(points.double(), grid.double())
    assert torch.equal(near[0].view(-1, 3), distance.topk(3, 1, largest=False).indices.sort(1).values)
    sizes = inputs.sizes_of_molecules(10_000)
    assert 25 < sum(sizes) / len(sizes) < 26
    mesh = next(case for case in all_cases("cpu", is_tiny=False) if case.name == "mesh-64-float16")
    assert "N=40962, M=40962, E=327660" in mesh.sizes
    encoder = next(case for case in all_cases("cpu", is_tiny=False) if case.name == "encoder-64-float16")
    assert "N=40962, M=542080" in encoder.sizes


def test_the_bound_is_that_of_the_published_table():
    """Bytes an edge at 8 heads: 1,024 forward and 3,136 both ways for 32 channels of two bytes."""
    assert row_work(1, 8, 32)["forward"].streamed_bytes == 1024
    assert row_work(1, 8, 32)["forward+backward"].streamed_bytes == 3136
    assert row_work(1, 8, 64)["forward+backward"].streamed_bytes == 6208


def test_the_environment_of_the_measuring_process_is_cold(tmp_path, monkeypatch):
    script = "tell(done=json.dumps([os.environ.get('TRITON_CACHE_DIR'), os.environ.get('TRITON_INTERPRET')]), rows=[])"
    monkeypatch.setenv("CC", "cc")
    run = measured(tmp_path, script)
    run.run(str(tmp_path / "caches"))
    assert json.loads(run.done[0]) == [str(tmp_path / "caches" / "triton"), "1"]
    assert "TRITON_INTERPRET" not in os.environ


def worker(monkeypatch, providers, channel=None, **settings):
    """A worker on the CPU that asks the given providers about one small case, as if the case had its own size."""
    monkeypatch.setattr("benchmarks.gpu.worker.PROVIDERS", {**PROVIDERS, **providers})
    kept = {"device": "cpu", "is_tiny": False, "repeats": 4, "ends_at": time.time() + 300, "done": [], "without": {}}
    made = Worker({**kept, "tunes": False, "peaks": (1.0, 1.0, 1.0), **settings}, channel or io.StringIO())
    case = next(case for case in all_cases("cpu", is_tiny=True) if case.family == "irregular")
    return made, replace(case, providers=tuple(providers), needs_s=1.0)


def named(name, spoil):
    """The reference, spoilt, under a rival's name."""
    right = PROVIDERS["reference"]
    return replace(right, name=name, prepare=lambda case, made: spoil(right.prepare(case, made)))


def raising(error, after):
    """Raises at a call."""

    def spoil(run):
        forward, calls = run.forward, []

        def counted():
            calls.append(1)
            if len(calls) > after:
                raise error
            return forward()

        run.forward = counted
        return run

    return spoil


def test_a_case_goes_on_without_who_fails(monkeypatch):
    def liar(run):
        forward = run.forward
        run.forward = lambda: forward().roll(1, 0)
        return run

    providers = {
        "right": named("right", lambda run: run),
        "liar": named("liar", liar),
        "late": named("late", raising(ValueError("in a round"), 4)),
        "large": named("large", raising(torch.OutOfMemoryError("Tried to allocate 9 GiB. GPU 0 has less"), 0)),
        "absent": replace(PROVIDERS["reference"], name="absent", why_not=lambda case, measure: "not installed"),
    }
    made, case = worker(monkeypatch, providers)
    rows = {(row.measure, row.provider): row for row in made._run_case(case)}
    assert rows["forward", "right"].status == rows["forward+backward", "right"].status == "ran"
    assert len(rows["forward", "right"].samples) == 4
    assert rows["peak memory", "right"].reason == "the device's memory is asked"
    assert rows["forward", "right"].edges == case.edges
    assert rows["forward", "right"].bound_s > 0
    assert rows["forward", "liar"].status == "wrong"
    assert (rows["forward", "late"].status, rows["forward", "late"].reason) == ("failed", "ValueError: in a round")
    large = rows["forward", "large"]
    assert (large.status, large.reason) == ("not run", "out of memory: Tried to allocate 9 GiB")
    assert rows["forward", "absent"].reason == "not installed"


def test_what_the_limit_leaves_no_time_for_says_so(monkeypatch):
    made, case = worker(monkeypatch, {"right": named("right", lambda run: run)}, ends_at=time.time() + 0.5)
    rows = made._run_case(case)
    assert {row.status for row in rows} == {"not run"}
    assert all(row.reason.startswith("0 s were left of the limit, and it takes 1 s") for row in rows)


def test_a_device_that_does_not_recover_ends_the_process(monkeypatch):
    channel = io.StringIO()
    made, case = worker(monkeypatch, {"bad": named("bad", raising(RuntimeError("illegal access"), 0))}, channel)

    def synchronize(device):
        raise RuntimeError("illegal access")

    def leave(status):
        raise SystemExit(status)

    monkeypatch.setattr("benchmarks.gpu.device.synchronize", lambda device: None)
    monkeypatch.setattr("benchmarks.gpu.worker.gpu.seconds_of", lambda action, device: (1.0, action()))
    monkeypatch.setattr("benchmarks.gpu.worker.gpu.synchronize", synchronize)
    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(SystemExit, match="3"):
        made._run_case(case)
    last = json.loads(channel.getvalue().splitlines()[-1])
    assert last == {"broken": [case.key, "bad", "failed: RuntimeError: illegal access"]}
    again, case = worker(monkeypatch, {"bad": named("bad", lambda run: run)}, without={f"{case.key} bad": "failed: x"})
    assert {(row.status, row.reason) for row in again._run_case(case)} == {("failed", "x")}


@pytest.mark.parametrize("family", ["window", "full"])
def test_the_oracle_in_blocks_is_that_of_pairs(family, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.ours._BLOCK", 7)
    case = next(case for case in all_cases("cpu", is_tiny=True) if case.family == family)
    assert case.oracle == "wide-blocks"
    made = case.make()
    wide = {name: getattr(made, name).double() for name in ("query", "key", "value", "grad_out")}
    made = replace(made, **wide)
    found, expected = (gate.numbers(PROVIDERS[name].prepare(case, made), True) for name in ("wide-blocks", "wide"))
    assert gate.complaint(found, expected) == ""
    assert gate.complaint({**found, "key": found["key"] * 1.0001}, expected) != ""
