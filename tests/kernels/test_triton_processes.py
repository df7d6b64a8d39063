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


def run(files: list[str], chosen: str, **variables: str) -> int:
    """Run tests with the given environment variables; the number of those that passed, where none failed."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    words += ["-k", chosen, *(str(HERE / file) for file in files)]
    done = subprocess.run(words, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) passed", done.stdout)
    return int(found.group(1)) if found else 0


# In NumPy, which the interpreter computes with, a large graph takes minutes.
SMALL = "triton and not peak_memory and not threads"


def test_the_contract_under_the_interpreter() -> None:
    assert run(["test_contract.py"], SMALL, TRITON_INTERPRET="1") >= 20


def test_values_and_gradients_under_the_interpreter() -> None:
    assert run(["test_attend.py"], SMALL, TRITON_INTERPRET="1") >= 80


def test_each_kernel_under_the_interpreter() -> None:
    assert run(["triton"], "not compiles", TRITON_INTERPRET="1") >= 10


@pytest.mark.gpu
def test_the_whole_suite_on_a_gpu() -> None:
    assert run(["test_contract.py", "test_attend.py", "triton"], "triton", GRAPHFORMER_TEST_DEVICE="cuda") >= 100
