"""Tiles compiled for real architectures, which needs no device: the launches compile what they would run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")  # before whatever imports it

from offline import Device, stack  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from graphformer.graphs import AttentionGraph  # noqa: E402
from graphformer.graphs.runs import KeyRuns  # noqa: E402
from graphformer.graphs.spans import SHORT, TALL  # noqa: E402
from graphformer.kernels.problem import Options, Rows, Tensors  # noqa: E402
from graphformer.kernels.triton import tile_backward_keys, tile_backward_queries, tile_forward, tiles  # noqa: E402

_KERNELS = (
    tile_forward.forward_tiles,
    tile_backward_queries.backward_queries,
    tile_backward_keys.backward_keys,
)
_FEW = 32  # bytes of a thread's stack that are no matter


@pytest.fixture
def loops() -> str:
    """Once, not once for each of native's loops."""
    return "triton"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """The kernels that were launched, by name: compiled, not run."""
    found: list[tuple[str, Any]] = []
    run = JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        found.append((self.__name__, run(self, *arguments, grid=grid, warmup=True, **options)))

    monkeypatch.setattr(JITFunction, "run", compile_only)
    yield found
    for kernel in _KERNELS:
        kernel.device_caches.clear()


def _compile(
    architecture: int,
    dtype: torch.dtype,
    width: int,
    height: int,
    monkeypatch: pytest.MonkeyPatch,
    normalizer: str = "softmax",
    dropout: float = 0.0,
    **terms: torch.Tensor,
) -> None:
    monkeypatch.setattr(triton.runtime.driver, "_active", Device(architecture))
    for kernel in _KERNELS:
        kernel.device_caches.clear()
    monkeypatch.setattr(tiles, "architecture_of", lambda device: f"sm{architecture}")
    start = torch.zeros(64, dtype=torch.int64)
    graph = AttentionGraph(KeyRuns.from_ranges(start, start + 64, 64), 64)
    runs, by_key = graph.query_side.runs, graph.key_side.runs
    assert runs is not None
    assert by_key is not None
    lists = dict(
        zip(
            ("ptr", "start", "stop"),
            ((runs.ptr, by_key.ptr), (runs.start, by_key.start), (runs.stop, by_key.stop)),
            strict=True,
        )
    )
    rows = Rows(
        graph.query_side.ptr,
        None,
        None,
        torch.zeros(4096, dtype=torch.int32) if "relation_bias" in terms else None,
        **{f"query_run_{name}": pair[0] for name, pair in lists.items()},
        **{f"key_run_{name}": pair[1] for name, pair in lists.items()},
    )
    tensors = Tensors(*(torch.randn(64, 2, width, dtype=dtype) for _ in range(3)), **terms)
    options = Options("dot", 0.0, normalizer, 0.125, dropout, torch.tensor(1))
    out, statistic = tiles.forward(tensors, rows, options, height)
    needs = Tensors(*(tensor is not None for tensor in tensors))  # type: ignore[arg-type]
    tiles.backward(out, out, statistic, tensors, rows, options, needs, height)


@pytest.mark.parametrize(
    ("architecture", "dtype", "width", "height"),
    [(90, torch.float16, 64, TALL), (80, torch.bfloat16, 32, SHORT)],
)
def test_the_main_cuts_spill_no_registers(
    architecture: int,
    dtype: torch.dtype,
    width: int,
    height: int,
    compiled: list[tuple[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _compile(architecture, dtype, width, height, monkeypatch)
    assert [name for name, _ in compiled] == ["forward_tiles", "backward_queries", "backward_keys"]
    for name, kernel in compiled:
        assert stack(kernel, tmp_path) <= _FEW, name
        assert ("wgmma" in kernel.asm["ptx"]) == (architecture == 90), name


@pytest.mark.slow
@pytest.mark.parametrize("height", [SHORT, TALL])
@pytest.mark.parametrize(
    ("architecture", "dtype", "width"),
    [  # products off the tensor cores take a compiler up to a minute, so one width of float32 stands for all
        *((90, torch.float16, width) for width in (16, 64, 128, 256)),
        *((80, torch.bfloat16, width) for width in (32, 64, 128)),
        (80, torch.float32, 64),
    ],
)
def test_every_cut_compiles(
    architecture: int,
    dtype: torch.dtype,
    width: int,
    height: int,
    compiled: list[tuple[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _compile(architecture, dtype, width, height, monkeypatch)
    assert len(compiled) == 3
    for name, kernel in compiled:
        assert kernel.metadata.shared <= (99 if architecture == 80 else 227) * 1024, name


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("normalizer", ["softmax", "relu", "sigmoid"])
def test_every_term_compiles(
    architecture: int, normalizer: str, compiled: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = {"bias": torch.randn(4096, 2), "relation_bias": torch.randn(3, 2)}
    _compile(architecture, torch.float16, 32, SHORT, monkeypatch, normalizer, 0.1, **terms)
    names = [name for name, _ in compiled]
    assert {"forward_tiles", "backward_queries", "backward_keys", "_sum_parts"} == set(names)
