"""``graphformer env``: print versions, devices and backends."""

from __future__ import annotations

import os
import platform

from graphformer.cli.parser import new_parser, parse


def run(words: list[str]) -> None:
    """Print one line a fact; the text to put into a report of a defect."""
    parse(new_parser("env", "Print versions, devices and backends, for a report of a defect."), words)
    from graphformer.train.versions import versions

    facts = {**versions(), "system": platform.platform(), "CPU cores": str(os.cpu_count()), **_devices()}
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")


def _devices() -> dict[str, str]:
    import torch

    from graphformer import _library
    from graphformer.kernels import native
    from graphformer.kernels.api import BACKENDS

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "torch threads": str(torch.get_num_threads()),
        "CUDA devices": ", ".join(devices) or "none",
        "backends": ", ".join(name for name in BACKENDS if native.LIBRARY or name != "native"),
        "native": f"compiled, runs with {_library.instruction_set()}" if native.LIBRARY else "not built",
    }
