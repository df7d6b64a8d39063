"""torch's multi-head attention over attention graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from graphformer._checks import refuse
from graphformer.graphs import AttentionGraph
from graphformer.kernels import attend


def attend_with(
    attn: torch.nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    graph: AttentionGraph,
    *,
    dropout: float | None = None,
    **terms: Any,
) -> Tensor:
    """Attention along a graph with the weights of torch's module: project, attend, project.

    Args:
        attn: Whose weights, heads and dropout are taken; packed and separate projections, with biases or without.
        query: Nodes that ask, shape `[N, C]`, C = `attn.embed_dim`, floating.
        key: Nodes that are asked, shape `[M, attn.kdim]`.
        value: What they tell, shape `[M, attn.vdim]`.
        graph: Over N queries and M keys.
        dropout: Probability that a weight is dropped, in [0, 1). Default: `attn.dropout` in training, else 0.
        **terms: What :func:`graphformer.attend` adds to scores, keys and values (`bias`, `relation_bias`,
            `edge_attr`, ...), and `seed` and `backend`.

    Returns:
        Shape `[N, C]`. A query without keys gets the bias of the last map.

    Raises:
        InputError: A side is no matrix of its width, the module adds keys that are no nodes (`add_bias_kv`,
            `add_zero_attn`), or as :func:`graphformer.attend`.

    Example:
        >>> attn = torch.nn.MultiheadAttention(8, 2)
        >>> x, graph = torch.randn(3, 8), AttentionGraph.from_dense(torch.ones(3, 3).bool())
        >>> torch.allclose(attend_with(attn, x, x, x, graph), attn(x, x, x)[0], atol=1e-6)
        True
    """
    if attn.bias_k is not None or attn.add_zero_attn:
        refuse(
            "attend_with",
            "attn",
            "attend to nodes alone",
            f"add_bias_kv={attn.bias_k is not None}, add_zero_attn={attn.add_zero_attn}",
            "Add the keys as nodes of their own, for example with VirtualNode.",
        )
    query, key, value = project(attn, query, key, value)
    if dropout is None:
        dropout = attn.dropout if attn.training else 0.0
    out = attend(query, key, value, graph, dropout=dropout, **terms)
    return functional.linear(out.flatten(1), attn.out_proj.weight, attn.out_proj.bias)


def project(attn: torch.nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Queries, keys and values of all heads: `[N, C]`, `[M, kdim]`, `[M, vdim]` -> `[N, H, D]`, `[M, H, D]` twice."""
    # Three products, also where the weight is packed: thirds of one product would be strided, and copied by the kernel.
    weights = (
        (attn.q_proj_weight, attn.k_proj_weight, attn.v_proj_weight)
        if attn.in_proj_weight is None
        else attn.in_proj_weight.chunk(3)
    )
    biases = (None, None, None) if attn.in_proj_bias is None else attn.in_proj_bias.chunk(3)
    heads = []
    for name, side, weight, bias in zip(("query", "key", "value"), (query, key, value), weights, biases, strict=True):
        if side.dim() != 2 or side.shape[1] != weight.shape[1]:
            remedy = "Flatten the batch into node rows; the widths are attn's embed_dim, kdim and vdim."
            refuse("attend_with", name, f"have shape [N, {weight.shape[1]}]", list(side.shape), remedy)
        heads.append(functional.linear(side, weight, bias).unflatten(1, (attn.num_heads, attn.head_dim)))
    return heads
