"""torch's scaled dot-product attention, limited to the pairs of a pattern."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from graphformer._checks import refuse
from graphformer.graphs import AttentionGraph
from graphformer.kernels import attend
from graphformer.nn.dense_batch import bias_of, lay, share
from graphformer.patterns import Causal, Full, Pattern

_WHERE = "scaled_dot_product_attention"


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    pattern: Pattern | AttentionGraph | None = None,
    backend: str = "auto",
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention` with a pattern that says which query sees which key.

    Equal to torch's function with the pattern's dense mask, without that mask: time and memory go with the pairs. All
    arguments but the last two are torch's. Without pattern and backend it is torch's function.

    Args:
        query: Shape `[..., H, N, D]`, with any number of leading dimensions, also none and no H; floating.
        key: Shape `[..., H, M, D]`, dtype of `query`; leading dimensions broadcast.
        value: Shape `[..., H, M, Dv]`, dtype of `query`.
        attn_mask: Boolean, False removes a pair; or floating, added to the score. Any shape that broadcasts to
            `[..., H, N, M]`. It is read at the pattern's pairs only.
        dropout_p: Probability that a weight is dropped, in [0, 1), also in evaluation.
        is_causal: Whether queries see only keys at their own place and before: `pattern & Causal()`.
        scale: Default 1 / sqrt(D).
        enable_gqa: Whether fewer heads of keys and values serve groups of heads of queries.
        pattern: Laid over the N places of each set (over M keys and N queries where these differ). The graphs of the
            last patterns and sizes are kept. Or a graph over M keys and N queries that all sets share.
        backend: Which kernel runs, see :func:`graphformer.attend`; a name without a pattern means `Full()`.

    Returns:
        Shape `[..., H, N, Dv]`, dtype of `query`. A query without keys gets zeros.

    Raises:
        InputError: Shapes or heads that do not fit, `is_causal` beside a mask or a graph, or what is no pattern; or
            as in :func:`graphformer.attend`.

    Example:
        >>> from graphformer.patterns import Window
        >>> query, key, value = torch.randn(3, 2, 4, 10, 8)
        >>> out = scaled_dot_product_attention(query, key, value, pattern=Window(2))
        >>> mask = Window(2).on(10).to_dense()
        >>> dense = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask)
        >>> torch.allclose(out, dense, atol=1e-5)
        True
    """
    if pattern is None and backend == "auto":
        return torch_functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    pattern = Full() if pattern is None else pattern
    if not isinstance(pattern, (Pattern, AttentionGraph)):
        refuse(
            _WHERE, "pattern", "be a pattern or an attention graph", type(pattern).__name__, "For example Window(8)."
        )
    if is_causal:
        if attn_mask is not None or not isinstance(pattern, Pattern):
            remedy = "Put Causal() into the pattern: graph = (pattern & Causal()).on(N)."
            refuse(_WHERE, "is_causal", "come without a mask and without a ready graph", "both", remedy)
        pattern = pattern & Causal()
    key, value = _heads_of(key, value, query, enable_gqa)
    batch = _common_batch(query, key, value)
    num_queries, num_keys = query.shape[-2], key.shape[-2]
    heads = batch[-1] if batch else 1
    num_sets = batch[:-1].numel()
    if isinstance(pattern, Pattern):
        graph = lay(pattern, (num_keys,) * num_sets, (num_queries,) * num_sets, query.device)
    else:
        graph = share(_fitting(pattern, num_keys, num_queries), num_sets)
    bias = None
    if attn_mask is not None:
        keys, queries = graph.edge_index
        bias = bias_of(_as_four(attn_mask, batch, num_queries, num_keys), queries, keys, num_queries, num_keys)
    rows = [
        side.expand(*batch, -1, -1).reshape(num_sets, heads, *side.shape[-2:]).transpose(1, 2).flatten(0, 1)
        for side in (query, key, value)
    ]
    query, key, value = rows
    out = attend(query, key, value, graph, bias=bias, scale=scale, dropout=dropout_p, backend=backend)
    return out.unflatten(0, (num_sets, num_queries)).transpose(1, 2).reshape(*batch, num_queries, value.shape[-1])


def _heads_of(key: Tensor, value: Tensor, query: Tensor, enable_gqa: bool) -> tuple[Tensor, Tensor]:
    """Keys and values with as many heads as the query, which the kernel wants."""
    if not enable_gqa:
        return key, value
    heads = {name: side.shape[-3] if side.dim() > 2 else 1 for name, side in (("key", key), ("value", value))}
    wanted = query.shape[-3] if query.dim() > 2 else 1
    for name, count in heads.items():
        if count == 0 or wanted % count:
            remedy = "Each of them serves a group of the query's heads."
            refuse(_WHERE, name, f"have heads that divide the query's {wanted}", count, remedy)
    key, value = (
        side if count == wanted else side.repeat_interleave(wanted // count, -3)
        for side, count in zip((key, value), heads.values(), strict=True)
    )
    return key, value


def _common_batch(query: Tensor, key: Tensor, value: Tensor) -> torch.Size:
    """All dimensions before the last two, once they broadcast and the last two fit."""
    shapes = f"{list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
    fits = min(query.dim(), key.dim(), value.dim()) >= 2 and key.shape[-2] == value.shape[-2]
    if not fits:
        rule = "have shapes [..., H, N, D], [..., H, M, D] and [..., H, M, Dv]"
        refuse(_WHERE, "query, key and value", rule, shapes, "Split the channels into heads first.")
    try:
        return torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    except RuntimeError:
        remedy = "Fewer heads of keys and values than of queries need enable_gqa=True."
        refuse(_WHERE, "query, key and value", "have leading dimensions that broadcast", shapes, remedy)


def _as_four(mask: Tensor, batch: torch.Size, num_queries: int, num_keys: int) -> Tensor:
    """A mask as `[B, H, N, M]`; dimensions of 1 stay where the leading ones allow."""
    full = (*batch, num_queries, num_keys)
    shape = (1,) * (len(full) - mask.dim()) + tuple(mask.shape)
    broadcasts = len(shape) == len(full) and all(size in (1, whole) for size, whole in zip(shape, full, strict=True))
    if not broadcasts or not (mask.dtype == torch.bool or mask.is_floating_point()):
        remedy = "True keeps a pair; a floating mask is added to the score."
        found = f"{mask.dtype} {list(mask.shape)}"
        refuse(_WHERE, "attn_mask", f"be boolean or floating and broadcast to {list(full)}", found, remedy)
    shape = (1,) * (4 - len(shape)) + shape
    sets, last = shape[:-3], shape[-3:]
    if any(size > 1 for size in sets):
        sets = (1,) * (3 - len(full)) + full[:-3]
        return mask.expand(*sets, *last).reshape(-1, *last)
    return mask.reshape(1, *last)


def _fitting(graph: AttentionGraph, num_keys: int, num_queries: int) -> AttentionGraph:
    if graph.size != (num_keys, num_queries):
        rule = f"have (keys, queries) = {(num_keys, num_queries)} where it is a graph"
        remedy = "Make it over the nodes of one set; all sets share it."
        refuse(_WHERE, "pattern", rule, graph.size, remedy)
    return graph
