"""The one table of tolerances."""

from __future__ import annotations

import torch
from torch import Tensor

# (relative, absolute): what a sum of a few dozen terms of order one loses in each type.
TOLERANCE = {
    torch.float64: (1e-9, 1e-10),
    torch.float32: (2e-5, 1e-5),
    torch.float16: (4e-3, 4e-3),
    torch.bfloat16: (3e-2, 3e-2),
}


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> None:
    """Raise unless two tensors agree within the table; NaN agrees with NaN.

    Args:
        actual: What was computed.
        expected: What it should be; its dtype may be wider.
        dtype: Whose tolerance to use. Default: that of `actual`.

    Example:
        >>> assert_close(torch.tensor([1.0]), torch.tensor([1.1]))
        Traceback (most recent call last):
        ...
        AssertionError: Tensor-likes are not close!
        ...
    """
    relative, absolute = TOLERANCE[dtype or actual.dtype]
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=relative, atol=absolute, equal_nan=True, check_dtype=False
    )
