"""Counter-based random numbers: Philox4x32-10 in plain torch integers.

A draw is a pure function of (seed, counter), so that any backend, any order of work and both passes of a kernel see
the same numbers. Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(seed: Tensor, counter: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four independent 32-bit draws for each counter.

    Args:
        seed: Key. Shape `[]`, int64; its low and high 32 bits are the two key words.
        counter: Four tensors that broadcast together, int64, each in [0, 2^32).

    Returns:
        Four int64 tensors of the broadcast shape with values in [0, 2^32).

    Example:
        >>> zero = torch.zeros((), dtype=torch.int64)
        >>> [hex(int(word)) for word in philox(zero, (zero, zero, zero, zero))]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for _ in range(_ROUNDS):
        # int64 products wrap modulo 2^64: the low word is exact, and so is the high word after the mask.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def uniform_below(seed: int, counter: tuple[Tensor, Tensor, Tensor, Tensor], bound: Tensor) -> Tensor:
    """One draw for each counter, uniform in [0, bound) up to a bias below bound / 2^32.

    Args:
        seed: Key, any 64-bit integer.
        counter: As in :func:`philox`.
        bound: Shape that broadcasts with the counter, int64, in [1, 2^32).

    Returns:
        int64 tensor with values in [0, bound).

    Example:
        >>> i = torch.arange(4)
        >>> zero = torch.zeros_like(i)
        >>> bool((uniform_below(0, (i, zero, zero, zero), torch.tensor(3)) < 3).all())
        True
    """
    word = philox(torch.tensor(seed, dtype=torch.int64, device=bound.device), counter)[0]
    # The high bits of a 32 x 32 bit product; int64 wraps only where the product exceeds 2^63, so shift first.
    return ((word >> 1) * bound) >> 31
