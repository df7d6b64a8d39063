"""Gradients that are written out in torch, summed chunk by chunk."""

from __future__ import annotations

import torch
from torch import Tensor

from graphformer.kernels import formula
from graphformer.kernels.problem import Pairs, Tensors


class Gradients:
    """Accumulates the gradients that were asked for, in the compute dtype.

    Args:
        tensors: The problem's.
        needs: One truth value for each field.

    Example:
        >>> node = torch.ones(1, 1, 1)
        >>> grads = Gradients(Tensors(node, node, node), Tensors(True, False, False))
        >>> _ = grads.total.query.add_(2)
        >>> grads.result().query.item(), grads.result().key
        (2.0, None)
    """

    def __init__(self, tensors: Tensors, needs: Tensors) -> None:
        self.tensors = tensors
        dtype = tensors.compute_dtype
        self.total = Tensors(
            *(
                torch.zeros_like(tensor, dtype=dtype, memory_format=torch.contiguous_format)
                if need and tensor is not None
                else None
                for tensor, need in zip(tensors, needs, strict=True)
            )  # type: ignore[arg-type]
        )

    def result(self) -> Tensors:
        """Each in its tensor's dtype; None for what was not asked for."""
        return Tensors(
            *(
                None if total is None or tensor is None else total.to(tensor.dtype)
                for tensor, total in zip(self.tensors, self.total, strict=True)
            )  # type: ignore[arg-type]
        )

    def add_bias(self, pairs: Pairs, grad: Tensor) -> None:
        """`grad` [e, H]: the gradient of the score."""
        if self.total.bias is not None:
            self.total.bias.index_add_(0, pairs.edge_id, grad)
        if self.total.relation_bias is not None and pairs.relation is not None:
            self.total.relation_bias.index_add_(0, pairs.relation, grad)

    def add_side(self, name: str, pairs: Pairs, grad: Tensor, removed: Tensor | None) -> None:
        """`grad` [e, H, D]: the gradient of the pairs' keys or values, of which `name` says; zero where removed."""
        rows, table = getattr(self.total, name), getattr(self.total, f"relation_{name}")
        if rows is not None:
            rows.index_add_(0, pairs.key_index, grad)
        if table is not None and pairs.relation is not None:
            table.index_add_(0, pairs.relation, grad)
        self.add_features(name, pairs, grad, removed, self.tensors.edge_attr, getattr(self.tensors, f"edge_{name}"))

    def add_features(
        self,
        name: str,
        pairs: Pairs,
        grad: Tensor,
        removed: Tensor | None,
        edge_attr: Tensor | None,
        edge_map: Tensor | None,
    ) -> None:
        """`grad` [e, H, D]: the gradient of a @ map, where these features and this map are the other's factor."""
        grad_map = getattr(self.total, f"edge_{name}")
        if grad_map is not None and edge_attr is not None:
            attr = formula.gather(edge_attr, pairs.edge_id, grad.dtype)
            if removed is None:
                grad_map.add_((attr.t() @ grad.flatten(1)).view_as(grad_map))
            else:
                grad_map.add_(torch.einsum("ehf,ehd->fhd", formula.for_heads(attr, grad.shape[1], removed), grad))
        if self.total.edge_attr is not None and edge_map is not None:
            found = grad.flatten(1) @ edge_map.to(grad.dtype).flatten(1).t()
            self.total.edge_attr.index_add_(0, pairs.edge_id, found)
