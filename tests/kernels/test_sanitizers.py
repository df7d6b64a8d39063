"""The kernel's own test program under AddressSanitizer and UndefinedBehaviorSanitizer: both loops, without Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def loops() -> None:
    """The program runs both loops by itself."""


@pytest.mark.slow
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if shutil.which("cmake") is None or compiler is None:
        pytest.skip("needs cmake and a C++ compiler")
    options = ("CHECK=ON", "OPTIMIZE=-O1")  # at -O3 the sanitizers take minutes to compile
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=all -g1"
    for command in (
        ("cmake", "-S", SOURCE, "-B", tmp_path, *(f"-DGRAPHFORMER_{option}" for option in options))
        + ("-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_CXX_COMPILER={compiler}", f"-DCMAKE_CXX_FLAGS={flags}"),
        ("cmake", "--build", tmp_path, "--target", "check_kernel", "--parallel"),
        (tmp_path / "check_kernel", "3"),
    ):
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # more threads than processors
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-4000:]
