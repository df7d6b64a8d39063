"""Tests of the GPU kernels, marked `interpreted`: in Triton's interpreter, which a process decides on before it imports
Triton, or on a GPU. tests/kernels/test_triton_processes.py starts such processes.
"""

from __future__ import annotations

import pytest
from backends import BACKENDS, IS_INTERPRETED


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if BACKENDS == ["triton"]:
        return
    left_out = [item for item in items if item.get_closest_marker("interpreted")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def loops() -> str:
    """Instead of the fixture of this name for `native`: these tests choose their loops themselves."""
    return "triton"


@pytest.fixture(autouse=True)
def _bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter keeps bfloat16 as integers, and would multiply these."""
    if not IS_INTERPRETED:
        return
    import triton.language as tl
    from triton.runtime import interpreter

    create_dot = interpreter.InterpreterBuilder.create_dot

    def widened(handle: object) -> object:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        data = interpreter._convert_float(handle.data, tl.bfloat16, tl.float32, None)
        return interpreter.TensorHandle(data.view("float32"), tl.float32)

    def dot(self: object, a: object, b: object, *rest: object) -> object:
        return create_dot(self, widened(a), widened(b), *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)
