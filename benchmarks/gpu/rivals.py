"""Who else computes these cases on a GPU. Each says itself what it needs."""

from __future__ import annotations

import math
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.case import BOTH, BUILD, Attention, Case, Provider, Run, leaves_of

_ABOUT = {
    "pyg-eager": "what PyG's TransformerConv computes between its maps, edge by edge; sums by scatter",
    "pyg-compiled": "the same through torch.compile",
    "flex-attention": "torch.compile(flex_attention) with a compiled block mask",
    "varlen": "torch.nn.attention.varlen: FlashAttention for ragged sequences, with its own window",
    "sdpa-padded": "to_dense_batch of queries, keys and values at once, SDPA with the mask, and back",
    "sdpa-full": "SDPA over all pairs, whatever the pattern: what the pattern saves",
    "natten": "natten.na1d: as many keys for every query, so that its windows shift at the ends",
    "anemoi": "anemoi-models' Triton graph transformer, with the map of the edge features before it",
    "anemoi-kernel": "the same without the map: it is given [E, H, D], and returns the gradient of that",
}
_HALF = (torch.float16, torch.bfloat16)


def compiler(device: str) -> str:
    """Of torch.compile: Triton's on a GPU; on the CPU one that needs no C++, for a dry run."""
    return "inductor" if device == "cuda" else "aot_eager"


def _run(forward: Any, leaves: list[Tensor], inputs: Attention, **more: Any) -> Run:
    names = ("query", "key", "value", "edge_map")
    return Run(forward, dict(zip(names, leaves, strict=False)), inputs.grad_out, **more)


# ---------------------------------------------------------------- graphs


def _leaves(inputs: Attention) -> list[Tensor]:
    maps = () if inputs.edge_map is None else (inputs.edge_map,)
    return leaves_of(inputs.query, inputs.key, inputs.value, *maps)


def _edges(edge_attr: Tensor, edge_map: Tensor) -> Tensor:
    return (edge_attr @ edge_map.flatten(1)).unflatten(1, edge_map.shape[1:])


def _pyg(name: str, case: Case, inputs: Attention) -> Run:
    from torch_geometric.utils import scatter, softmax

    leaves, edge_attr = _leaves(inputs), inputs.edge_attr
    source, target = (row.contiguous() for row in inputs.graph.edge_index)

    def attention(query: Tensor, key: Tensor, value: Tensor, edge_map: Tensor | None = None) -> Tensor:
        keys, values = key.index_select(0, source), value.index_select(0, source)
        if edge_attr is not None and edge_map is not None:
            edge = _edges(edge_attr, edge_map)
            keys, values = keys + edge, values + edge
        score = (query.index_select(0, target) * keys).sum(-1) / math.sqrt(query.shape[-1])
        alpha = softmax(score, target, num_nodes=query.shape[0])
        return scatter(values * alpha.unsqueeze(-1), target, 0, query.shape[0], "sum")

    if name == "pyg-compiled":
        attention = torch.compile(attention, dynamic=False, backend=compiler(case.device))
    return _run(partial(attention, *leaves), leaves, inputs)


def _anemoi(name: str, case: Case, inputs: Attention) -> Run:
    from anemoi.models.triton.gt import GraphTransformerFunction

    graph = inputs.graph
    source, target = graph.edge_index
    by_key = torch.argsort(source, stable=True)
    key_ptr = torch.zeros(graph.num_keys + 1, dtype=torch.int64, device=source.device)
    torch.cumsum(torch.bincount(source, minlength=graph.num_keys), 0, out=key_ptr[1:])
    lists = (source.contiguous(), graph.by_query.ptr), (key_ptr, by_key, target.contiguous())
    *nodes, edge_map = _leaves(inputs)
    assert inputs.edge_attr is not None
    if name == "anemoi":
        attr = inputs.edge_attr
        return _run(
            lambda: GraphTransformerFunction.apply(*nodes, _edges(attr, edge_map), *lists), [*nodes, edge_map], inputs
        )
    (edge,) = leaves_of(_edges(inputs.edge_attr, inputs.edge_map))
    return _run(lambda: GraphTransformerFunction.apply(*nodes, edge, *lists), [*nodes, edge], inputs)


# ---------------------------------------------------------------- sequences


def _flex(name: str, case: Case, inputs: Attention) -> Run:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    length, radius, device = inputs.query.shape[0], inputs.radius or 0, case.device

    def near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key).abs() <= radius

    make_mask = torch.compile(create_block_mask, dynamic=False, backend=compiler(device))
    build = partial(make_mask, near, None, None, length, length, device=device)
    compiled = torch.compile(flex_attention, dynamic=False, backend=compiler(device))
    leaves, common = _side_by_side(inputs)
    if device == "cpu":  # where it has no backward, and takes no leaf
        leaves = [leaf.detach() for leaf in leaves]
    mask = build()

    def forward() -> Tensor:
        return compiled(*leaves, block_mask=mask)

    run = _run(forward, leaves, inputs, common=common, actions={BUILD: build})
    run.grad_out = inputs.grad_out.transpose(0, 1).unsqueeze(0).contiguous()
    return run


def _side_by_side(inputs: Attention) -> tuple[list[Tensor], Any]:
    """One sequence as leaves `[1, H, N, D]`, and the way back."""
    tensors = (inputs.query, inputs.key, inputs.value)
    leaves = leaves_of(*(tensor.transpose(0, 1).unsqueeze(0).contiguous() for tensor in tensors))
    return leaves, lambda named: {key: tensor[0].transpose(0, 1) for key, tensor in named.items()}


def _sdpa_full(name: str, case: Case, inputs: Attention) -> Run:
    leaves, common = _side_by_side(inputs)
    run = _run(partial(scaled_dot_product_attention, *leaves), leaves, inputs, common=common)
    run.grad_out = inputs.grad_out.transpose(0, 1).unsqueeze(0).contiguous()
    return run


def _natten(name: str, case: Case, inputs: Attention) -> Run:
    from natten import na1d

    leaves = leaves_of(*(tensor.unsqueeze(0) for tensor in (inputs.query, inputs.key, inputs.value)))
    run = _run(partial(na1d, *leaves, kernel_size=2 * (inputs.radius or 0) + 1), leaves, inputs)
    run.grad_out = inputs.grad_out.unsqueeze(0)
    return run


def _varlen(name: str, case: Case, inputs: Attention) -> Run:
    from torch.nn.attention.varlen import varlen_attn

    leaves = leaves_of(inputs.query, inputs.key, inputs.value)
    ptr = torch.tensor((0, *inputs.lengths), device=case.device).cumsum(0).int()
    longest = max(inputs.lengths)
    window = {} if inputs.radius is None else {"window_size": (inputs.radius, inputs.radius)}
    return _run(lambda: varlen_attn(*leaves, ptr, ptr, longest, longest, **window), leaves, inputs)


def _padded(name: str, case: Case, inputs: Attention) -> Run:
    from torch_geometric.utils import to_dense_batch

    leaves = leaves_of(torch.stack((inputs.query, inputs.key, inputs.value), 1))
    sizes = torch.tensor(inputs.lengths, device=case.device)
    batch = torch.repeat_interleave(torch.arange(len(sizes), device=case.device), sizes)
    shape = {"batch_size": len(sizes), "max_num_nodes": max(inputs.lengths)}  # told, so that the host need not wait

    def forward() -> Tensor:
        dense, mask = to_dense_batch(leaves[0], batch, **shape)
        query, key, value = dense.permute(2, 0, 3, 1, 4)
        out = scaled_dot_product_attention(query, key, value, mask[:, None, None])
        return out.transpose(1, 2)[mask]

    def common(named: dict[str, Tensor]) -> dict[str, Tensor]:
        parts = named.pop("query").unbind(1) if "query" in named else ()
        return {**named, **dict(zip(("query", "key", "value"), parts, strict=False))}

    return _run(forward, leaves, inputs, common=common)


def _why_not(name: str, case: Case, measure: str) -> str:
    needs = {"anemoi": "anemoi.models", "anemoi-kernel": "anemoi.models", "natten": "natten"}.get(name)
    if needs and not _is_installed(needs):
        return f"{needs.replace('.', '-')} is not installed"
    if case.device != "cuda" and (needs or name == "varlen"):
        return "it needs a GPU"
    if name == "varlen" and not _is_installed("torch.nn.attention.varlen"):
        return "this torch has no torch.nn.attention.varlen"
    if case.device == "cpu" and name == "flex-attention" and measure == BOTH:
        return "FlexAttention has no backward on the CPU"
    if measure == BUILD and name != "flex-attention":
        return "its lists are not timed"
    return ""


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False


_PREPARE = {
    "pyg-eager": _pyg,
    "pyg-compiled": _pyg,
    "flex-attention": _flex,
    "varlen": _varlen,
    "sdpa-padded": _padded,
    "sdpa-full": _sdpa_full,
    "natten": _natten,
    "anemoi": _anemoi,
    "anemoi-kernel": _anemoi,
}
_OTHERWISE = ("sdpa-full", "natten", "anemoi-kernel")  # who computes something else, for a bound or a neighbour
PROVIDERS = tuple(
    Provider(name, about, partial(_why_not, name), partial(_PREPARE[name], name), leaves_out=name in _OTHERWISE)
    for name, about in _ABOUT.items()
)
