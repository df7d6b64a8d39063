"""torch's scaled_dot_product_attention, and the formula written out over dense scores."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.case import Attention, Case, Provider, Run, leaves_of

_ABOUT = {
    "sdpa": "scaled_dot_product_attention; boolean mask, or dense float bias, made before",
    "sdpa-batch": "to_dense_batch of queries, keys and values, scaled_dot_product_attention with key mask, back",
    "dense": "softmax of the dense scores, head by head, in float64: for the gate",
}


def _prepare(name: str, case: Case, inputs: Attention) -> Run:
    return _padded(inputs) if name == "sdpa-batch" else _sets_alike(name, inputs)


def _sets_alike(name: str, inputs: Attention) -> Run:
    """Sets of one length and one pattern, as a batch `[B, H, L, D]`."""
    sets, length = len(inputs.lengths), inputs.lengths[0]

    def lay(tensor: Tensor) -> Tensor:
        return tensor.unflatten(0, (sets, length)).transpose(1, 2).contiguous()

    leaves = leaves_of(*(lay(tensor) for tensor in (inputs.query, inputs.key, inputs.value)))
    mask = _mask(inputs, length)

    def common(named: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: tensor.transpose(1, 2).flatten(0, 1) for key, tensor in named.items()}

    query, key, value = leaves
    forward = partial(_formula if name == "dense" else _sdpa, query, key, value, mask)
    named = dict(zip(("query", "key", "value"), leaves, strict=True))
    return Run(forward, named, lay(inputs.grad_out), common)


def _sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    return scaled_dot_product_attention(query, key, value, attn_mask=mask)


def _mask(inputs: Attention, length: int) -> Tensor | None:
    """None, boolean `[L, L]`, or the bias `[1, H, L, L]` of the first set, which stands for all."""
    if inputs.is_full and inputs.relation_bias is None:
        return None
    key, query = inputs.graph.edge_index
    here = query < length
    if inputs.relation_bias is None:
        mask = torch.zeros(length, length, dtype=torch.bool)
        mask[query[here], key[here]] = True
        return mask
    relation = inputs.graph.relation
    assert relation is not None
    bias = torch.full((1, inputs.query.shape[1], length, length), -math.inf)
    bias[0, :, query[here], key[here]] = inputs.relation_bias[relation[here].long()].T
    return bias


def _formula(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    heads = []
    for head, (q, k, v) in enumerate(zip(*(t.double().unbind(1) for t in (query, key, value)), strict=True)):
        score = q @ k.mT / math.sqrt(q.shape[-1])
        if mask is not None:
            score = score.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else score + mask[:, head]
        heads.append(torch.softmax(score, -1) @ v)
    return torch.stack(heads, 1).to(query.dtype)


def _padded(inputs: Attention) -> Run:
    leaves = leaves_of(inputs.query, inputs.key, inputs.value)
    sizes = torch.tensor(inputs.lengths)
    batch = torch.repeat_interleave(torch.arange(len(sizes)), sizes)

    def forward() -> Tensor:
        from torch_geometric.utils import to_dense_batch

        (query, mask), (key, _), (value, _) = (to_dense_batch(tensor, batch) for tensor in leaves)
        out = _sdpa(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), mask[:, None, None])
        return out.transpose(1, 2)[mask]

    return Run(forward, dict(zip(("query", "key", "value"), leaves, strict=True)), inputs.grad_out)


PROVIDERS = tuple(
    Provider(name, about, lambda case, measure: "", partial(_prepare, name)) for name, about in _ABOUT.items()
)
