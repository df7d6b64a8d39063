"""Full attention inside each set of a batch, as torch.compile takes it: no shape depends on the sets."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from graphformer.graphs.layout import offsets
from graphformer.kernels import native
from graphformer.kernels.ops import attend_op
from graphformer.kernels.problem import Rows, Tensors
from graphformer.nn.multihead_attention import project


def can_attend_whole_sets(x: Tensor) -> bool:
    """Whether the backend that walks runs is there for these nodes.

    Example:
        >>> can_attend_whole_sets(torch.zeros(1, device="meta"))
        False
    """
    return native.LIBRARY is not None and x.device.type == "cpu"


def attend_whole_sets(attn: torch.nn.MultiheadAttention, x: Tensor, batch: Tensor | None) -> Tensor:
    """`attend_with(attn, x, x, x, Full().on(...))` without the graph, whose number of pairs is known to data only.

    Args:
        attn: Whose weights, heads and dropout are taken.
        x: Shape `[N, C]`, on the CPU.
        batch: The set of each node, ascending. Shape `[N]`, int64; None: one set.

    Returns:
        Shape `[N, C]`.

    Example:
        >>> attn, x = torch.nn.MultiheadAttention(8, 2), torch.randn(5, 8)
        >>> out = attend_whole_sets(attn, x, torch.tensor([0, 0, 0, 1, 1]))
        >>> torch.allclose(out[:3], attn(x[:3], x[:3], x[:3])[0], atol=1e-6)
        True
    """
    query, key, value = project(attn, x, x, x)
    batch = torch.zeros(x.shape[0], dtype=torch.int64) if batch is None else batch
    start, stop = torch.searchsorted(batch, batch), torch.searchsorted(batch, batch, right=True)
    run_ptr = torch.arange(x.shape[0] + 1)
    ptr = offsets(stop - start)
    rows = Rows(ptr, None, None, None, ptr)
    rows = rows._replace(query_run_ptr=run_ptr, query_run_start=start, query_run_stop=stop)
    rows = rows._replace(key_run_ptr=run_ptr, key_run_start=start, key_run_stop=stop)
    dropout = attn.dropout if attn.training else 0.0
    seed = torch.randint(2**63 - 1, ()) if dropout else None
    scale = 1 / math.sqrt(attn.head_dim)
    tensors = Tensors(query, key, value)
    out = attend_op(*tensors, *rows, seed, "dot", 0.0, "softmax", scale, dropout, "native")[0]
    return functional.linear(out.flatten(1), attn.out_proj.weight, attn.out_proj.bias)
