"""A run whose process is killed, at moments that nobody chose, ends as one that was left alone."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import sys
from graphformer.train import TrainConfig, resume, run, train
from graphformer.models.config import GraphTransformerConfig
from graphformer.data.logp import load_logp

run.load = lambda *arguments: load_logp(150)
if len(sys.argv) > 2:
    resume(sys.argv[1])
else:
    model = GraphTransformerConfig(channels=16, layers=2, heads=2, walk_steps=2)
    train(TrainConfig(folder=sys.argv[1], epochs=12, batch_size=16, seeds=2, model=model))
"""


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: text for key, text in row.items() if "second" not in key} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_killed_series_ends_as_one_that_was_left_alone(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(script)]
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    subprocess.run([*command, str(alone)], check=True, env=environment, capture_output=True, timeout=300)

    words, kills = [str(killed)], 0
    for pause in (0.3, 1.7, 0.9, 2.6, 600.0):
        process = subprocess.Popen([*command, *words], env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        before = sum(len(rows(path.parent)) for path in killed.rglob("metrics.csv"))
        while process.poll() is None and time.monotonic() < deadline:
            if sum(len(rows(path.parent)) for path in killed.rglob("metrics.csv")) > before:
                break  # it trains: the pause counts from here
            time.sleep(0.05)
        try:
            assert process.wait(timeout=pause) == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        if (killed / "result.json").exists():
            break  # it had done everything, and a finished run is not resumed
        words = [str(killed), "--resume"]
    assert kills >= 2
    results = [json.loads((folder / "result.json").read_text()) for folder in (alone, killed)]
    assert results[0]["test"] == results[1]["test"]
    for seed in ("seed-0", "seed-1"):
        assert rows(killed / seed) == rows(alone / seed)
