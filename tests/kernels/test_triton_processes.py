"""Tests of the `triton` backend in processes of their own: with Triton's interpreter, and on a CUDA device."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def loops() -> None:
    """These tests choose the loops themselves, so they run once."""


def run(*words: str, **variables: str) -> int:
    """Run tests with the given environment variables; the number of those that passed, where none failed."""
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    path = os.pathsep.join((str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *words],
        env=os.environ | {"PYTHONPATH": path} | variables,
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) passed", done.stdout)
    return int(found.group(1)) if found else 0


# In NumPy, which the interpreter computes with, a large graph takes minutes.
SMALL = "triton and not peak_memory and not threads"


def test_the_contract_under_the_interpreter() -> None:
    assert run("test_contract.py", "-k", SMALL, TRITON_INTERPRET="1") >= 20


def test_values_and_gradients_under_the_interpreter() -> None:
    assert run("test_attend.py", "-k", SMALL, TRITON_INTERPRET="1") >= 80


def test_each_kernel_under_the_interpreter() -> None:
    assert run("triton", "-m", "interpreted and not slow", TRITON_INTERPRET="1") >= 60


@pytest.mark.gpu
def test_the_suite_on_a_gpu() -> None:
    files = ("test_contract.py", "test_attend.py", "triton")
    assert run(*files, "-k", "triton", GRAPHFORMER_TEST_DEVICE="cuda") >= 100
