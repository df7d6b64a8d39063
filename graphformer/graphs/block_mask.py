"""Attention graphs as FlexAttention's block masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphformer._checks import require, require_count
from graphformer.graphs.bins import count_bins, pairs_of
from graphformer.graphs.describe import num_duplicates
from graphformer.graphs.runs import KeyRuns

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    from graphformer.graphs.attention_graph import AttentionGraph

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
_WHERE = "AttentionGraph.to_block_mask"


def to_block_mask(graph: AttentionGraph, block_size: int = 128) -> BlockMask:
    """The graph as a mask of `torch.nn.attention.flex_attention`, for all batches and heads.

    Blocks without a pair are skipped, blocks full of pairs are not masked, and in the others each place is looked up in
    a bitmap. Relations and own edges are not part of a mask.

    Args:
        graph: The graph; no pair may repeat, since a mask holds each once.
        block_size: Queries and keys a side of a block, 1 or more. Default 128, as FlexAttention's own; its compiled
            kernels may want a multiple of their tiles.

    Returns:
        A `BlockMask` of shape `[1, 1, N, M]` on the graph's device. Beside the block lists, FlexAttention's own
        (N M / block_size^2) integers, it takes one bit a place of the partial blocks; nothing takes N M.

    Raises:
        InputError: A graph without queries or keys, or with repeated pairs; a block size that is no count.

    Example:
        >>> from graphformer.patterns import Causal
        >>> mask = Causal().on(512).to_block_mask()
        >>> mask.shape, mask.kv_num_blocks.tolist(), mask.full_kv_num_blocks.tolist()
        ((1, 1, 512, 512), [[[1, 1, 1, 1]]], [[[0, 1, 2, 3]]])
    """
    from torch.nn.attention.flex_attention import BlockMask

    require_count(block_size, _WHERE, "block_size")
    remedy = "FlexAttention has no mask of nothing; skip the call."
    require(min(graph.size) > 0, _WHERE, "graph", "have queries and keys", graph, remedy)
    copies = num_duplicates(graph)
    remedy = "`p | q` holds a pair once where `p + q` holds both copies."
    require(copies == 0, _WHERE, "graph", "hold each pair once", f"{copies} that repeat another", remedy)
    pairs = pairs_of(graph)
    runs = pairs if isinstance(pairs, KeyRuns) else KeyRuns.from_pairs(*pairs, graph.num_queries, graph.num_keys)
    edges = (_borders(count, block_size, graph.device) for count in (graph.num_queries, graph.num_keys))
    counted = count_bins(runs, *edges)
    is_full = counted == block_size**2
    is_partial = (counted > 0) & ~is_full
    look_up = _bitmap_look_up(runs, is_partial, is_full, block_size)
    sizes = (graph.num_queries, graph.num_keys)
    partial, full = _list_blocks(is_partial), _list_blocks(is_full)
    return BlockMask.from_kv_blocks(*partial, *full, BLOCK_SIZE=block_size, mask_mod=look_up, seq_lengths=sizes)


def _borders(count: int, block_size: int, device: torch.device) -> Tensor:
    """Where each block begins, and at the end the number of nodes."""
    return torch.arange(-(-count // block_size) + 1, device=device).mul_(block_size).clamp_(max=count)


def _list_blocks(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of each row are chosen, and the columns with those first; with axes for batch and head."""
    order = torch.argsort(chosen.byte(), dim=1, descending=True, stable=True)
    return chosen.sum(1, dtype=torch.int32)[None, None], order.int()[None, None]


def _bitmap_look_up(runs: KeyRuns, is_partial: Tensor, is_full: Tensor, block_size: int) -> MaskMod:
    """FlexAttention's `mask_mod` of the pairs: looks into bitmaps of the partial blocks, 8 keys a byte."""
    num_bytes = -(-block_size // 8)
    # Bitmap 0 is that of all empty blocks, bitmap 1 that of all full ones, the partial blocks' follow.
    slot = is_full.long()
    num_bitmaps = 2 + int(is_partial.sum())
    slot[is_partial] = torch.arange(2, num_bitmaps, device=slot.device)
    bits = torch.zeros(num_bitmaps, block_size, num_bytes, dtype=torch.uint8, device=slot.device)
    one = torch.ones((), dtype=torch.uint8, device=slot.device)
    for query, key in runs.intersection(_inside(is_partial, block_size, runs)).pieces():
        bitmap, place = slot[query // block_size, key // block_size], key % block_size
        byte = (bitmap * block_size + query % block_size) * num_bytes + place // 8
        bits.view(-1).index_add_(0, byte, one << (place % 8).byte())  # each bit comes once
    bits[1] = 255

    def look_up(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        place, inner = key % block_size, query % block_size
        byte = bits[slot[query // block_size, key // block_size], inner, place // 8].int()
        return (byte >> (place % 8).int()) & 1 == 1

    return look_up


def _inside(blocks: Tensor, block_size: int, runs: KeyRuns) -> KeyRuns:
    """All places of the chosen blocks, a matrix of bools, among those of the runs."""
    row, column = blocks.nonzero().unbind(1)
    chosen = KeyRuns.from_pairs(row, column, *blocks.shape)
    start, stop = chosen.start * block_size, (chosen.stop * block_size).clamp(max=runs.num_keys)
    block = torch.arange(runs.num_queries, device=blocks.device) // block_size
    return KeyRuns(chosen.ptr, start, stop, runs.num_keys).rows(block)
