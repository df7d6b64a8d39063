"""Attention written once more, one query and one head at a time, as a student would: slow and hard to get wrong."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from graphformer.graphs import AttentionGraph
from graphformer.kernels import Additive


def attend_row_by_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    graph: AttentionGraph,
    *,
    score: Any = "dot",
    normalizer: str = "softmax",
    bias: Tensor | None = None,
    relation_bias: Tensor | None = None,
    relation_key: Tensor | None = None,
    relation_value: Tensor | None = None,
    edge_attr: Tensor | None = None,
    edge_key: Tensor | None = None,
    edge_value: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """What :func:`graphformer.attend` must return, without dropout; the arguments are the same.

    Shares no code with any backend. Pairs whose bias is -inf are left out of the row before anything is computed.

    Example:
        >>> graph = AttentionGraph.from_dense(torch.tensor([[True, True]]))
        >>> value = torch.tensor([[[2.0]], [[4.0]]])
        >>> attend_row_by_row(torch.zeros(1, 1, 1), torch.zeros(2, 1, 1), value, graph)
        tensor([[[3.]]])
    """
    num_heads, width = query.shape[1:]
    scale = 1 / math.sqrt(width) if scale is None else scale
    sources, targets = graph.edge_index.tolist()
    relations = graph.relation.tolist() if graph.relation is not None else None
    if edge_attr is not None and graph.own_edge is not None:
        zeros = edge_attr.new_zeros(edge_attr.shape[1])
        features = [zeros if own < 0 else edge_attr[own] for own in graph.own_edge.tolist()]
    else:
        features = [] if edge_attr is None else list(edge_attr)
    zero = query.new_zeros(value.shape[2])
    rows = []
    for i in range(graph.num_queries):
        edges = [e for e, target in enumerate(targets) if target == i]
        for h in range(num_heads):
            scores, values = [], []
            for e in edges:
                extra, k, v = query.new_zeros(()), key[sources[e], h], value[sources[e], h]
                if bias is not None:
                    extra = extra + (bias[e] if bias.dim() == 1 else bias[e, h])
                if relations is not None and relation_bias is not None:
                    extra = extra + relation_bias[relations[e], h]
                if extra == -math.inf:
                    continue
                if relations is not None and relation_key is not None:
                    k = k + relation_key[relations[e], h]
                if relations is not None and relation_value is not None:
                    v = v + relation_value[relations[e], h]
                if features and edge_key is not None:
                    k = k + features[e] @ edge_key[:, h]
                if features and edge_value is not None:
                    v = v + features[e] @ edge_value[:, h]
                scores.append(_score(score, query[i, h], k, h, scale) + extra)
                values.append(v)
            if not scores:
                rows.append(zero)
                continue
            alpha = _normalize(torch.stack(scores), normalizer)
            rows.append(sum((a * v for a, v in zip(alpha, values, strict=True)), zero))
    if not rows:
        return value.new_zeros(graph.num_queries, num_heads, value.shape[2])
    return torch.stack(rows).view(graph.num_queries, num_heads, value.shape[2])


def _score(score: Any, q: Tensor, k: Tensor, head: int, scale: float) -> Tensor:
    if score == "dot":
        return torch.dot(q, k) * scale
    if not isinstance(score, Additive):
        return score(q[None, None], k[None, None])[0, 0]
    total = q + k
    hidden = (
        torch.tanh(total) if score.activation == "tanh" else torch.where(total > 0, total, score.negative_slope * total)
    )
    return hidden.sum() if score.weight is None else torch.dot(score.weight[head], hidden)


def _normalize(scores: Tensor, normalizer: str) -> Tensor:
    if normalizer == "softmax":
        return torch.softmax(scores, 0)
    if normalizer == "relu":
        return torch.relu(scores) / len(scores)
    return torch.sigmoid(scores - math.log(len(scores)))
