"""Every kernel test runs twice: all windows row by row, and all windows by tiles of the `native` backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from backends import BACKENDS, DEVICE

from graphformer.graphs import tiles

_LEAST_FILL = {"rows": 2.0, "tiles": 1e-9}


@pytest.fixture(params=list(_LEAST_FILL) if "native" in BACKENDS else ["rows"], autouse=True)
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which loops of `native` serve the graphs that the test makes."""
    monkeypatch.setattr(tiles, "LEAST_FILL", _LEAST_FILL[request.param])
    return request.param


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    with DEVICE:
        yield
