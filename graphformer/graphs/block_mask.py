"""Attention graphs as FlexAttention's block masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphformer._checks import require, require_count
from graphformer.graphs.describe import num_duplicates

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
    pairs = _count_blocks(graph, block_size)
    is_full = pairs == block_size**2
    is_partial = (pairs > 0) & ~is_full
    look_up = _bitmap_look_up(graph, is_partial, is_full, block_size)
    sizes = (graph.num_queries, graph.num_keys)
    partial, full = _list_blocks(is_partial), _list_blocks(is_full)
    return BlockMask.from_kv_blocks(*partial, *full, BLOCK_SIZE=block_size, mask_mod=look_up, seq_lengths=sizes)


def _blocks_of(graph: AttentionGraph, block_size: int) -> tuple[Tensor, Tensor, int, int]:
    """Of each pair, its block of queries and of keys; and how many of each there are."""
    key, query = graph.edge_index
    rows, columns = (-(-count // block_size) for count in (graph.num_queries, graph.num_keys))
    return query // block_size, key // block_size, rows, columns


def _count_blocks(graph: AttentionGraph, block_size: int) -> Tensor:
    """Number of pairs in each block."""
    row, column, rows, columns = _blocks_of(graph, block_size)
    return torch.bincount(row * columns + column, minlength=rows * columns).view(rows, columns)


def _list_blocks(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of each row are chosen, and the columns with those first; with axes for batch and head."""
    order = torch.argsort(chosen.byte(), dim=1, descending=True, stable=True)
    return chosen.sum(1, dtype=torch.int32)[None, None], order.int()[None, None]


def _bitmap_look_up(graph: AttentionGraph, is_partial: Tensor, is_full: Tensor, block_size: int) -> MaskMod:
    """FlexAttention's `mask_mod` of the graph: looks into bitmaps of the partial blocks, 8 keys a byte."""
    num_bytes = -(-block_size // 8)
    # Bitmap 0 is that of all empty blocks, bitmap 1 that of all full ones, the partial blocks' follow.
    slot = is_full.long()
    num_bitmaps = 2 + int(is_partial.sum())
    slot[is_partial] = torch.arange(2, num_bitmaps, device=slot.device)
    bits = torch.zeros(num_bitmaps, block_size, num_bytes, dtype=torch.uint8, device=slot.device)
    row, column, _, _ = _blocks_of(graph, block_size)
    of_pair = slot[row, column]
    inside = of_pair > 1
    key, query = graph.edge_index[:, inside] % block_size
    bit = torch.ones((), dtype=torch.uint8, device=slot.device) << (key % 8).byte()
    bits.index_put_((of_pair[inside], query, key // 8), bit, accumulate=True)
    bits[1] = 255

    def look_up(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        place, inner = key % block_size, query % block_size
        byte = bits[slot[query // block_size, key // block_size], inner, place // 8].int()
        return (byte >> (place % 8).int()) & 1 == 1

    return look_up
