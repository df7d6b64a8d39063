"""Laws that attention keeps, as assertions over any function with the face of `attend` or of a PyG layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphformer.graphs import AttentionGraph
from graphformer.kernels import Additive, attend
from graphformer.testing.oracle import attend_row_by_row
from graphformer.testing.tolerance import assert_close


def assert_matches_oracle(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    graph: AttentionGraph,
    *,
    function: Callable[..., Tensor] = attend,
    **arguments: Any,
) -> None:
    """Raise unless `function` and the row-by-row oracle in float64 agree in value and in every gradient.

    Args:
        query: Shape `[N, H, D]`.
        key: Shape `[M, H, D]`.
        value: Shape `[M, H, Dv]`.
        graph: Over N queries and M keys.
        function: With the face of :func:`graphformer.attend` (the default).
        **arguments: Further arguments of `attend`, without dropout; `backend` goes to `function` only.

    Example:
        >>> from graphformer.testing import random_graph
        >>> graph = random_graph(3, 4, num_edges=5)
        >>> assert_matches_oracle(torch.randn(3, 2, 4), torch.randn(4, 2, 4), torch.randn(4, 2, 3), graph)
    """
    dtype = query.dtype
    named = {"query": query, "key": key, "value": value}
    named |= {name: item for name, item in arguments.items() if isinstance(item, Tensor)}
    score = arguments.get("score", "dot")
    if isinstance(score, Additive) and score.weight is not None:
        named["weight"] = score.weight
    settings = {name: item for name, item in arguments.items() if name not in named and name != "score"}

    def run(function: Callable[..., Tensor], cast: torch.dtype | None) -> tuple[Tensor, dict[str, Tensor]]:
        leaves = {name: t.detach().to(cast or t.dtype).requires_grad_() for name, t in named.items()}
        call = dict(leaves)
        weight = call.pop("weight", None)
        chosen = Additive(weight, score.activation, score.negative_slope) if isinstance(score, Additive) else score
        out = function(call.pop("query"), call.pop("key"), call.pop("value"), graph, score=chosen, **call, **settings)
        # A fixed, uneven direction, so that no gradient vanishes by symmetry.
        direction = torch.linspace(-1, 2, max(out.numel(), 1), device=out.device)[: out.numel()].view_as(out)
        if not out.requires_grad:  # a graph without edges: the result is a constant
            return out, {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        grads = torch.autograd.grad(
            (out.double() * direction).sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        return out, dict(zip(leaves, grads, strict=True))

    out, grads = run(function, None)
    settings.pop("backend", None)
    expected, expected_grads = run(attend_row_by_row, torch.float64)
    assert out.dtype == dtype, f"the result has dtype {out.dtype}, the query {dtype}"
    assert_close(out, expected, dtype)
    for name, grad in grads.items():
        try:
            assert_close(grad, expected_grads[name], dtype)
        except AssertionError as error:
            raise AssertionError(f"gradient of {name}: {error}") from None


def assert_permutation_equivariant(
    layer: Callable[[Tensor, Tensor], Tensor], x: Tensor, edge_index: Tensor, *, seed: int = 0
) -> None:
    """Raise unless renumbering the nodes and shuffling the edges renumbers the rows of the result and nothing else.

    Args:
        layer: Called as `layer(x, edge_index)`; returns one row a node.
        x: Shape `[N, C]`.
        edge_index: Shape `[2, E]`, int64.
        seed: Of the permutation.

    Example:
        >>> def degree(x, edge_index):
        ...     return torch.bincount(edge_index[1], minlength=len(x)).float()
        >>> assert_permutation_equivariant(degree, torch.zeros(3, 1), torch.tensor([[0, 1], [2, 2]]))
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(x.shape[0], generator=generator).to(x.device)
    shuffle = torch.randperm(edge_index.shape[1], generator=generator).to(x.device)
    rank = torch.empty_like(order).index_copy_(0, order, torch.arange(x.shape[0], device=x.device))
    assert_close(layer(x[order], rank[edge_index][:, shuffle]), layer(x, edge_index)[order])
