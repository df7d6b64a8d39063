"""The GPU kernels' tests that need no GPU, in a process of their own: Triton asks for its interpreter when imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

_FOLDER = Path(__file__).parent / "triton"
_LEAST = 40  # fewer tests would mean that some were lost


@pytest.fixture
def loops() -> str:
    """Once, not once for each of native's loops."""
    return "triton"


def test_the_kernels_pass_their_tests_in_the_interpreter() -> None:
    root = _FOLDER.parents[2]
    path = os.pathsep.join((str(root), *filter(None, [os.environ.get("PYTHONPATH")])))
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            str(_FOLDER),
            "-m",
            "interpreted and not slow",
        ],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", run.stdout.splitlines()[-1])}
    assert counts["passed"] >= _LEAST, run.stdout
    assert not {"failed", "errors", "error", "skipped", "xfailed"} & set(counts), run.stdout
