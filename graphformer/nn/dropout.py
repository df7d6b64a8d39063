"""Dropout whose mask is cheap on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor


class Dropout(torch.nn.Dropout):
    """As `torch.nn.Dropout`, in less than half its time on the CPU, where torch draws its mask number by number.

    There the mask comes from 16 random bits an element, so that p counts in steps of 2^-16, and what is kept is scaled
    by the probability that results. Elsewhere, under torch.compile and in place it is torch's own.

    Example:
        >>> out = Dropout(0.25)(torch.ones(10000))
        >>> bool((0.23 < (out == 0).float().mean()) & ((out == 0).float().mean() < 0.27)), float(out.max())
        (True, 1.3333...)
    """

    def forward(self, input: Tensor) -> Tensor:
        """Zero elements with probability p in training, and scale the others by 1 / (1 - p)."""
        dropped = round(self.p * 2**16)
        ours = input.device.type == "cpu" and not self.inplace and not torch.compiler.is_compiling()
        if not self.training or dropped == 0 or dropped == 2**16 or not ours:
            return super().forward(input)
        words = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: input.numel()].view(input.shape)
        return input * (bits >= dropped - 2**15).to(input.dtype).mul_(2**16 / (2**16 - dropped))
