"""Sums of the pairs' numbers by relation, in an order that follows from the pairs alone."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from graphformer.kernels.triton.config import on

_MOST_PROGRAMS, _STEP = 4096, 128


def sum_by_relation(numbers: Tensor, relation: Tensor, num_relations: int) -> Tensor:
    """The sum over the pairs of each relation. Shape `[R, H]`, float32.

    A relation's pairs, sorted, are cut into equal parts, which are summed by one program each and then added in order.

    Args:
        numbers: Shape `[H, E]`, contiguous.
        relation: Of each pair. Shape `[E]`, integer, in [0, R).
        num_relations: R.
    """
    heads, num_pairs = numbers.shape
    kinds, order = relation.sort(stable=True)
    bounds = torch.arange(num_relations + 1, device=relation.device, dtype=kinds.dtype)
    ptr = torch.searchsorted(kinds, bounds)
    parts = max(1, min(_MOST_PROGRAMS // max(1, num_relations), triton.cdiv(num_pairs, _STEP)))
    sums = torch.empty(parts, num_relations, heads, dtype=torch.float32, device=numbers.device)
    if sums.numel() > 0:
        with on(numbers.device):
            _sum_parts[(parts * num_relations,)](
                numbers, order, ptr, sums, num_pairs, num_relations, parts, heads, triton.next_power_of_2(heads), _STEP,
                enable_fp_fusion=True,
            )  # fmt: skip
    return sums.sum(0)


@triton.jit(do_not_specialize=["num_pairs", "num_relations", "parts"])
def _sum_parts(
    numbers, order, ptr, sums, num_pairs, num_relations, parts,
    HEADS: tl.constexpr, PADDED: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    part, kind = tl.program_id(0) // num_relations, tl.program_id(0) % num_relations
    first, last = tl.load(ptr + kind), tl.load(ptr + kind + 1)
    share = tl.cdiv(last - first, parts)
    first += part * share
    last = tl.minimum(first + share, last)
    head = tl.arange(0, PADDED)
    total = tl.zeros((PADDED, STEP), tl.float32)
    for start in range(first, last, STEP):
        position = start + tl.arange(0, STEP)
        pair = tl.load(order + position, mask=position < last, other=0)
        place = numbers + head.to(tl.int64)[:, None] * num_pairs + pair[None, :]
        total += tl.load(place, mask=(head < HEADS)[:, None] & (position < last)[None, :], other=0.0)
    place = sums + tl.program_id(0).to(tl.int64) * HEADS + head
    tl.store(place, tl.sum(total, 1), mask=head < HEADS)
