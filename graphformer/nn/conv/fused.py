"""What PyG's layers with our kernel inside share: when they run it, and how they read edges."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense import Linear
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor, to_edge_index

from graphformer._checks import refuse
from graphformer.graphs import AttentionGraph
from graphformer.nn.conv.cache import cached

_STEPS = ("message", "aggregate", "update", "edge_update", "message_and_aggregate")
_HOOKS = ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")


class Edges(NamedTuple):
    """Edges as a kernel takes them."""

    graph: AttentionGraph
    attr: Tensor | None  # [E, F] by edge id
    bias: Tensor | None = None  # [E], -inf where a pair is removed


class FusedConv(MessagePassing):
    """One of PyG's layers, computed by one call of the kernel.

    A layer derives from this class and from PyG's own, from which it has its constructor, weights, `state_dict` and
    unfused path. Where `why_unfused` gives a reason, PyG's own path runs, with its `[E, H, C]` messages.
    """

    original: ClassVar[type[MessagePassing]]
    backend: str = "auto"
    lin_edge: Any

    def why_unfused(self) -> list[str]:
        """The reasons why the next forward sends PyG's messages; none means that the kernel runs.

        Example:
            >>> from graphformer.nn import GATv2Conv
            >>> GATv2Conv(8, 8).why_unfused(), GATv2Conv(8, 8, aggr="max").why_unfused()
            ([], ["aggr='max' is no sum"])
        """
        reasons = ["an explainer asks for messages"] if self.explain else []
        reasons += [f"hooks on {name} are registered" for name in _HOOKS if self._hooks_on(name)]
        if self.aggr not in ("add", "sum"):
            reasons.append(f"aggr={self.aggr!r} is no sum")
        if self.decomposed_layers != 1:
            reasons.append("decomposed_layers splits the channels")
        kind = type(self)
        for name in _STEPS:
            if getattr(kind, name) is not getattr(self.original, name):
                reasons.append(f"{kind.__name__} has a {name} of its own")
        linear = getattr(self, "lin_edge", None)
        if linear is not None and (type(linear) is not Linear or linear._forward_hooks):
            reasons.append("lin_edge is no plain linear map")
        return reasons

    def _hooks_on(self, name: str) -> bool:
        return bool(getattr(self, f"_{name}_forward_pre_hooks") or getattr(self, f"_{name}_forward_hooks"))

    # ---------------------------------------------------------------- reading edges

    def _read_edges(self, edges: Any, attr: Tensor | None, num_keys: int, num_queries: int) -> Edges:
        """The graph of whatever PyG takes for edges, and the features in its order."""
        if isinstance(edges, AttentionGraph):
            self._refuse_reverse(edges)
            if edges.size != (num_keys, num_queries):
                refuse(
                    type(self).__name__,
                    "edge_index",
                    f"be a graph with (keys, queries) = {(num_keys, num_queries)} like x",
                    edges.size,
                    "Make the graph over the nodes that x holds.",
                )
            return Edges(edges, self._read_attr(attr))
        if not isinstance(edges, Tensor):
            self._refuse_reverse(edges)
            if attr is None and isinstance(edges, SparseTensor):
                attr = edges.storage.value()
            graph = AttentionGraph.from_edge_index(edges)
        else:
            if is_torch_sparse_tensor(edges):
                self._refuse_reverse(edges)
                values = to_edge_index(edges)[1] if attr is None else None
                attr = attr if values is None or values.dim() == 1 else values
            size, flow = (num_keys, num_queries), self.flow
            graph = cached(edges, (size, flow), lambda: _lay_out(edges, size, flow))
        return Edges(graph, self._read_attr(attr))

    def _refuse_reverse(self, edges: Any) -> None:
        if self.flow == "target_to_source":
            refuse(
                type(self).__name__,
                "edge_index",
                'be an edge index [2, E] where flow is "target_to_source"',
                type(edges).__name__,
                "A sparse adjacency or attention graph says itself which side asks: transpose it instead.",
            )

    def _read_attr(self, attr: Tensor | None) -> Tensor | None:
        return attr.view(-1, 1) if attr is not None and attr.dim() == 1 else attr

    def _require_attr(self, attr: Tensor | None) -> Tensor:
        if attr is None:
            remedy = "Pass edge_attr [E, F]; construct the layer without edge_dim to do without."
            refuse(type(self).__name__, "edge_attr", f"be given where edge_dim = {self.edge_dim}", None, remedy)
        return attr

    def _edge_map(self, attr: Tensor) -> Tensor:
        """lin_edge as the kernel takes it. Shape `[F, H, C]`."""
        if isinstance(self.lin_edge.weight, UninitializedParameter):
            self.lin_edge(attr[:0])
        width = self.lin_edge.weight.shape[1]
        if attr.dim() != 2 or attr.shape[1] != width:
            where = type(self).__name__
            refuse(where, "edge_attr", f"have shape [E, {width}]", list(attr.shape), "Its width is edge_dim.")
        return self.lin_edge.weight.t().unflatten(1, (self.heads, self.out_channels))


def _lay_out(edges: Tensor, size: tuple[int, int], flow: str) -> AttentionGraph:
    if is_torch_sparse_tensor(edges):
        return AttentionGraph.from_edge_index(edges)
    return AttentionGraph.from_edge_index(edges.flip(0) if flow == "target_to_source" else edges, size=size)


def own_pairs(edges: Any, attr: Tensor | None) -> tuple[Any, Tensor | None]:
    """An attention graph as PyG's edge index and the features of all its pairs; anything else as it is."""
    if not isinstance(edges, AttentionGraph):
        return edges, attr
    if attr is not None and edges.own_edge is not None:
        attr = torch.cat((attr, attr.new_zeros(1, *attr.shape[1:])))[edges.own_edge]
    return edges.edge_index, attr


def with_weights(edges: Any, alpha: Tensor) -> Any:
    """The weights beside the edges, in the form that PyG's layers give for each kind of adjacency."""
    if isinstance(edges, AttentionGraph):
        return edges.edge_index, alpha
    if isinstance(edges, SparseTensor):
        return edges.set_value(alpha, layout="coo")
    return edges, alpha
