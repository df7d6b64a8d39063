"""Masks from a formula: the dense one, FlexAttention's of blocks, and the gate's own answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.case import CannotRun, Case, Laying, Provider, Run, laying_run, pair_counts
from benchmarks.providers.flex import compiler_missing
from graphformer.graphs.describe import num_bytes
from graphformer.patterns import Grid

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

_MOST_DENSE = 2**31  # bytes
_MOST_ASKED = 2**34  # pairs
_BLOCK = 128
_ABOUT = {
    "dense-mask": "a boolean mask by torch operations; of ragged sets one for each set, padded to the longest",
    "flex-mask": "torch.compile(create_block_mask), which asks the formula about every pair and keeps blocks",
    "by-formula": "allows, asked about all pairs of a few nodes, and a count made in another way: for the gate",
}


def _why_not(name: str, case: Case, measure: str) -> str:
    return compiler_missing() if name == "flex-mask" else ""


def _by_formula(case: Case, inputs: Laying) -> Run:
    def common(named: dict[str, Tensor]) -> dict[str, Tensor]:
        num_keys, num_queries = inputs.pattern.on(inputs.few).size
        places = torch.arange(num_queries)[:, None], torch.arange(num_keys)
        allowed = inputs.pattern.allows(*places, inputs.few).long()
        return {**named, "pairs": torch.stack((allowed, allowed))}

    return Run(lambda: torch.tensor([inputs.count()] * 2), common=common)


def _dense(case: Case, inputs: Laying) -> Run:
    ragged = isinstance(inputs.nodes, list)
    make = partial(_padded, inputs.nodes) if ragged else partial(_square, inputs, inputs.nodes)
    if not ragged and inputs.nodes**2 > _MOST_DENSE:
        raise CannotRun(f"a mask of N^2 bytes takes {inputs.nodes**2 / 2**30:.3g} GiB")

    def pairs() -> Tensor:
        if not ragged:
            return _square(inputs, inputs.few).long()
        mask = _padded(inputs.few)
        real = mask.diagonal(dim1=1, dim2=2)  # a node that is there sees itself
        place = real.flatten().cumsum(0).sub(1).view_as(real)
        which, query, key = mask.nonzero().unbind(1)
        return pair_counts(place[which, query], place[which, key], sum(inputs.few), sum(inputs.few))

    return laying_run(make, lambda mask: int(mask.sum()), lambda mask: mask.numel(), pairs)


def _square(inputs: Laying, num_nodes: int) -> Tensor:
    assert inputs.formula is not None
    place, zero = torch.arange(num_nodes), torch.tensor(0)
    return inputs.formula(zero, zero, place[:, None], place).expand(num_nodes, num_nodes).contiguous()


def _padded(lengths: list[int]) -> Tensor:
    """Which pairs of each set are there. Shape `[B, L, L]`."""
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return real[:, :, None] & real[:, None, :]


def _flex(case: Case, inputs: Laying) -> Run:
    from torch.nn.attention.flex_attention import create_block_mask

    formula = inputs.formula
    assert formula is not None
    num_nodes, few = (nodes.num_nodes if isinstance(nodes, Grid) else nodes for nodes in (inputs.nodes, inputs.few))
    if num_nodes**2 > _MOST_ASKED:
        raise CannotRun(f"it asks the formula about N^2 = {num_nodes**2:.0e} pairs")
    torch.compiler.reset()  # each formula is a program of its own, and dynamo gives up on a function of too many
    compiled = torch.compile(create_block_mask, dynamic=False)

    def make() -> BlockMask:
        return compiled(formula, None, None, num_nodes, num_nodes, device="cpu")

    def few_pairs() -> Tensor:
        query, key = _all_pairs(create_block_mask(formula, None, None, few, few, device="cpu"), few)
        return pair_counts(query, key, few, few)

    start = time.perf_counter()
    make()
    note = f"compiled in {time.perf_counter() - start:.1f} s, not counted"
    return laying_run(make, partial(_count, num_nodes=num_nodes), _bytes_of, few_pairs, note)


def _blocks(num_blocks: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """(row, column) of the blocks that a BlockMask lists."""
    listed = torch.arange(indices.shape[-1]) < num_blocks[0, 0, :, None]
    row, turn = listed.nonzero().unbind(1)
    return row, indices[0, 0][row, turn].long()


def _pairs_of(
    blocks: tuple[Tensor, Tensor], num_nodes: int, formula: Callable[..., Tensor] | None
) -> tuple[Tensor, Tensor]:
    """(query, key) of the pairs in blocks: all of them, or those that the formula allows."""
    step = torch.arange(_BLOCK)
    found = [torch.zeros(2, 0, dtype=torch.int64)]
    for rows, columns in zip(*(ids.split(1024) for ids in blocks), strict=True):
        query = (rows[:, None, None] * _BLOCK + step[:, None]).expand(-1, _BLOCK, _BLOCK)
        key = (columns[:, None, None] * _BLOCK + step).expand(-1, _BLOCK, _BLOCK)
        kept = (query < num_nodes) & (key < num_nodes)
        if formula is not None:
            kept &= formula(torch.tensor(0), torch.tensor(0), query, key)
        found.append(torch.stack((query[kept], key[kept])))
    query, key = torch.cat(found, 1)
    return query, key


def _full(mask: BlockMask) -> tuple[Tensor, Tensor]:
    assert mask.full_kv_num_blocks is not None
    assert mask.full_kv_indices is not None
    return _blocks(mask.full_kv_num_blocks, mask.full_kv_indices)


def _partial(mask: BlockMask) -> tuple[Tensor, Tensor]:
    return _blocks(mask.kv_num_blocks, mask.kv_indices)


def _all_pairs(mask: BlockMask, num_nodes: int) -> tuple[Tensor, Tensor]:
    full, part = _pairs_of(_full(mask), num_nodes, None), _pairs_of(_partial(mask), num_nodes, mask.mask_mod)
    return torch.cat((full[0], part[0])), torch.cat((full[1], part[1]))


def _count(mask: BlockMask, num_nodes: int) -> int:
    return _full(mask)[0].numel() * _BLOCK**2 + _pairs_of(_partial(mask), num_nodes, mask.mask_mod)[0].numel()


def _bytes_of(mask: BlockMask) -> int:
    return num_bytes(part for part in mask.as_tuple() if isinstance(part, Tensor))


_PREPARE = {"dense-mask": _dense, "flex-mask": _flex, "by-formula": _by_formula}
PROVIDERS = tuple(Provider(name, about, partial(_why_not, name), _PREPARE[name]) for name, about in _ABOUT.items())
