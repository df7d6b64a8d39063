"""Which cases the GPU's tiles serve, and how they are cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

pytest.importorskip("triton")  # before whatever imports it

from graphformer.graphs.spans import SHORT, TALL, Spans  # noqa: E402
from graphformer.kernels.problem import Case  # noqa: E402
from graphformer.kernels.triton import tiles  # noqa: E402
from graphformer.kernels.triton.config import on  # noqa: E402
from graphformer.kernels.triton.tile_config import MOST_WIDTH, padded, tile_config  # noqa: E402

FULL, LOOSE, TWO = Spans(1, 0.9, 0.9), Spans(1, 0.2, 0.1), Spans(2, 0.9, 0.8)
CASE = Case(
    score="dot",
    normalizer="softmax",
    dtype=torch.float16,
    device=torch.device("cuda"),
    num_queries=64,
    num_keys=64,
    num_edges=4096,
    heads=2,
    width=32,
    terms=(),
    dropout=0.0,
    value_width=32,
)


@pytest.fixture
def loops() -> str:
    """Once, not once for each of native's loops."""
    return "triton"


@pytest.mark.parametrize(
    ("change", "by_query", "by_key", "serves"),
    [
        ({}, FULL, FULL, True),
        ({"terms": ("bias", "relation_bias"), "dropout": 0.1}, FULL, TWO, True),
        ({"normalizer": "relu", "dtype": torch.float32}, FULL, FULL, True),
        ({}, TWO, TWO, True),
        ({}, FULL, LOOSE, False),
        ({}, None, FULL, False),
        ({}, FULL, None, False),
        ({"terms": ("bias",)}, TWO, FULL, False),
        ({"dropout": 0.1}, TWO, FULL, False),
        ({"terms": ("relation_key",)}, FULL, FULL, False),
        ({"score": "tanh"}, FULL, FULL, False),
        ({"dtype": torch.float64}, FULL, FULL, False),
        ({"value_width": 257}, FULL, FULL, False),
        ({"width": 200}, FULL, FULL, True),
        ({"width": 200, "dtype": torch.float32}, FULL, FULL, False),
        ({"num_keys": 2**31 - 1}, FULL, FULL, False),
    ],
)
def test_what_tiles_serve(change: dict[str, object], by_query: Spans, by_key: Spans, serves: bool) -> None:
    assert tiles.serves(CASE._replace(**change), by_query, by_key) is serves  # type: ignore[arg-type]


def test_short_runs_take_short_tiles() -> None:
    molecules, window = Spans(1, 0.6, 0.3), Spans(1, 0.99, 0.95)
    assert tiles.height_of(molecules, molecules) == SHORT
    assert tiles.height_of(window, window) == TALL
    assert tiles.height_of(window, molecules) == SHORT


@pytest.mark.parametrize("architecture", ["sm80", "sm90"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("height", [SHORT, TALL])
def test_every_case_has_a_cut(architecture: str, dtype: torch.dtype, height: int) -> None:
    for direction in ("forward", "by_query", "by_key"):
        for width in (1, 16, 17, 64, 100, MOST_WIDTH[dtype.itemsize]):
            cut = tile_config(direction, height, padded(width), dtype, architecture)
            assert cut.rows >= 16
            assert cut.step >= 16


def test_products_of_float32_are_exact_unless_asked_otherwise() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert tiles._precision() == "ieee"
        torch.set_float32_matmul_precision("high")
        assert tiles._precision() == "tf32"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("asked", "given"), [("none", "ieee"), ("ieee", "ieee"), ("tf32", "tf32")])
def test_products_of_float32_are_as_precise_as_torch_is_told(asked: str, given: str) -> None:
    """By torch's newer setting, beside which its older one may not even be read."""
    settings = torch.backends.cuda.matmul
    if not hasattr(settings, "fp32_precision"):
        pytest.skip("this torch has the older setting only")
    before = settings.fp32_precision
    settings.fp32_precision = asked
    try:
        assert tiles._precision() == given
    finally:
        settings.fp32_precision = before


def test_kernels_are_launched_on_the_device_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[torch.device] = []

    @contextmanager
    def device(where: torch.device) -> Iterator[None]:
        entered.append(where)
        yield

    monkeypatch.setattr(torch.cuda, "device", device)
    for name in ("cpu", "cuda:1"):
        with on(torch.device(name)):
            pass
    assert entered == [torch.device("cuda:1")]
