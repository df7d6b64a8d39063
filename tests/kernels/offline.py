"""Kernels compiled for a GPU that is not there: launches compile what they would run, and run nothing."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction


class Device:
    """A driver that knows which architecture to compile for, and nothing else."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def compiling(architecture: int, kernels: tuple[Any, ...]) -> Iterator[list[tuple[str, Any]]]:
    """The kernels that are launched inside the block, by name: compiled for the architecture, not run."""
    found: list[tuple[str, Any]] = []
    run = JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        found.append((self.__name__, run(self, *arguments, grid=grid, warmup=True, **options)))

    for kernel in kernels:
        kernel.device_caches.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton.runtime.driver, "_active", Device(architecture))
        patch.setattr(JITFunction, "run", compile_only)
        yield found
    for kernel in kernels:
        kernel.device_caches.clear()


def stack(kernel: Any, folder: Path) -> int:
    """Bytes that a thread's registers spill to."""
    return _usage(kernel, folder, "STACK")


def registers(kernel: Any, folder: Path) -> int:
    """Registers of a thread."""
    return _usage(kernel, folder, "REG")


def _usage(kernel: Any, folder: Path, name: str) -> int:
    file = folder / "kernel.cubin"
    file.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    listing = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    found = re.search(rf"{name}:(\d+)", listing)
    assert found is not None, listing
    return int(found[1])
