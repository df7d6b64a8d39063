"""What PyG's layers with our kernel inside share: when they run it, and how they read edges."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter
from torch_geometric.nn.aggr import SumAggregation
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense import Linear

from graphformer._checks import refuse
from graphformer._errors import IdError
from graphformer._transforms import plain
from graphformer.graphs import AttentionGraph
from graphformer.graphs.convert import read_adjacency
from graphformer.nn.conv.adjacency import is_loose, is_sparse, known_size, own_pairs, stored_features, stored_pairs
from graphformer.nn.conv.cache import cached
from graphformer.nn.scripting import plain_twin

_STEPS = ("message", "aggregate", "update", "edge_update", "message_and_aggregate")
_DRIVERS = ("propagate", "edge_updater")  # for each class PyG writes these anew
_HOOKS = [
    (step, f"_{step}_forward_pre_hooks", f"_{step}_forward_hooks")
    for step in ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
]
_MODULE_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


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
    dropout: float
    lin_edge: Any

    # Where PyG's layer was made first, its class has a propagate written for it, which does not know explain; what a
    # class inherits is what it goes back to when it is explained.
    propagate = getattr(MessagePassing, "_orig_propagate", MessagePassing.propagate)
    edge_updater = getattr(MessagePassing, "_orig_edge_updater", MessagePassing.edge_updater)

    def why_unfused(self) -> list[str]:
        """The reasons why the next forward sends PyG's messages; none means that the kernel runs.

        Example:
            >>> from graphformer.nn import GATv2Conv
            >>> GATv2Conv(8, 8).why_unfused(), GATv2Conv(8, 8, aggr="max").why_unfused()
            ([], ["aggr='max' is no sum"])
        """
        reasons = ["an explainer asks for messages"] if self.explain else []
        if torch.jit.is_tracing():
            reasons.append("torch.jit traces no graph of edges")
        for step, before, after in _HOOKS:
            if getattr(self, before) or getattr(self, after):
                reasons.append(f"hooks on {step} are registered")
        linear, aggregation = self.lin_edge, self.aggr_module
        if type(aggregation) is not SumAggregation:
            reasons.append(f"aggr={self.aggr!r} is no sum")
        if self.decomposed_layers != 1:
            reasons.append("decomposed_layers splits the channels")
        if self.dropout >= 1:
            reasons.append("dropout leaves no weight")
        own = [name for name in _STEPS if _place(getattr(self, name)) != _place(getattr(self.original, name))]
        own += [name for name in _DRIVERS if not self._is_written_by_pyg(name)]
        reasons += [f"{type(self).__name__} has a {name} of its own" for name in own]
        if linear is not None and (type(linear) is not Linear or linear.bias is not None):
            reasons.append("lin_edge is no plain linear map")
        if _has_hooks(linear):
            reasons.append("lin_edge has hooks")
        if _has_hooks(aggregation):
            reasons.append("aggr_module has hooks")
        return reasons

    def _is_written_by_pyg(self, name: str) -> bool:
        module = getattr(self, name).__module__
        for kind in type(self).__mro__:
            if module == f"{kind.__module__}_{kind.__name__}_{name}":
                return True
        return module == MessagePassing.__module__

    def __prepare_scriptable__(self) -> MessagePassing:
        return plain_twin(self, self.original)

    # ---------------------------------------------------------------- reading nodes and edges

    def _read_pair(self, x: Any) -> tuple[Tensor, Tensor]:
        """The sources and the targets."""
        pair = tuple(x) if isinstance(x, (tuple, list)) else (x, x)
        if len(pair) != 2 or not all(isinstance(side, Tensor) for side in pair):
            got = ", ".join(type(side).__name__ for side in pair) if isinstance(x, (tuple, list)) else type(x).__name__
            remedy = "Pass x [N, C], or (x_source, x_target)."
            refuse(type(self).__name__, "x", "be a tensor or a pair of tensors", got, remedy)
        return pair[0], pair[1]

    def _check_edges(self, edges: Any, num_keys: int, num_queries: int) -> Any:
        """The edges as they came, once they have a form that is known here and the size of x."""
        edges, pairs = plain(edges, type(self).__name__, "edge_index"), None
        if isinstance(edges, AttentionGraph) or is_sparse(edges):
            self._refuse_reverse(edges)
        else:
            pairs, _ = read_adjacency(edges, type(self).__name__)
        known = known_size(edges)
        size = (num_keys, num_queries) if self.flow == "source_to_target" else (num_queries, num_keys)
        if known is not None and known != size:
            rule = f"have (sources, targets) = {size} like x"
            remedy = "Make it over the nodes that x holds; rows of a sparse matrix are targets."
            refuse(type(self).__name__, "edge_index", rule, known, remedy)
        if is_loose(edges) and edges.requires_grad:
            rule = "be coalesced where its values have gradients"
            refuse(type(self).__name__, "edge_index", rule, "an uncoalesced matrix", "Call .coalesce() on it.")
        if pairs is not None and edges.is_floating_point():
            return pairs  # an empty list is float by torch's default
        return edges

    def _refuse_reverse(self, edges: Any) -> None:
        if self.flow == "target_to_source":
            refuse(
                type(self).__name__,
                "edge_index",
                'be an edge index [2, E] where flow is "target_to_source"',
                type(edges).__name__,
                'Flow direction "target_to_source" is invalid for a sparse matrix or an attention graph, which say '
                "themselves which side asks: transpose them instead.",
            )

    def _to_pyg(self, x: Any, edges: Any, attr: Tensor | None) -> tuple[Any, Tensor | None]:
        """Edges and features for PyG's own path."""
        if isinstance(edges, AttentionGraph):
            source, target = x if isinstance(x, (tuple, list)) else (x, x)
            self._check_edges(edges, source.shape[0], edges.num_queries if target is None else target.shape[0])
        return self._own_pairs(edges, attr)

    def _own_pairs(self, edges: Any, attr: Tensor | None) -> tuple[Any, Tensor | None]:
        if isinstance(edges, AttentionGraph):
            self._check_own_features(edges, attr)
        return own_pairs(edges, attr)

    def _check_own_features(self, graph: AttentionGraph, attr: Tensor | None) -> None:
        count = graph.num_edges if graph.own_edge is None else graph.num_own_edges
        self._check_features(attr, count)

    def _check_features(self, attr: Tensor | None, count: int) -> None:
        if attr is not None and attr.shape[0] != count:
            remedy = "Pass one row for each edge, in the order of the edges."
            refuse(type(self).__name__, "edge_attr", f"have E = {count} rows", list(attr.shape), remedy)

    def _read_edges(self, edges: Any, attr: Tensor | None, num_keys: int, num_queries: int) -> Edges:
        """The graph of checked edges, and the features in its order."""
        if isinstance(edges, AttentionGraph):
            self._check_own_features(edges, attr)
            return Edges(edges, _as_rows(attr))
        if attr is None:
            attr = stored_features(edges)
        size, flow = (num_keys, num_queries), self.flow
        try:
            graph = cached(edges, (size, flow), lambda: _lay_out(edges, size, flow))
        except IdError:
            self._refuse_ids(edges, size)
        self._check_features(attr, graph.num_edges)
        return Edges(graph, _as_rows(attr))

    def _refuse_ids(self, edges: Any, size: tuple[int, int]) -> NoReturn:
        counts = size if self.flow == "source_to_target" else (size[1], size[0])
        wrong = [ids[(ids < 0) | (ids >= count)] for ids, count in zip(_pairs(edges), counts, strict=True)]
        row = 0 if wrong[0].numel() else 1
        rule = f"hold ids in [0, {counts[row]}) in row {row}, like the rows of x"
        remedy = "Make all ids valid indices of nodes."
        refuse(type(self).__name__, "edge_index", rule, int(wrong[row][0]), remedy, IdError)

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


def _place(function: Any) -> tuple[str, str]:
    """Where a function is written; to torch.compile, a class's function and that behind its method are never one."""
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", "")


def _has_hooks(module: Any) -> bool:
    if module is None:
        return False
    state = module.__dict__
    hooks = [len(state[name]) for name in _MODULE_HOOKS if state[name]]
    return bool(hooks) and sum(hooks) > ("_hook" in state)  # PyG's hook on a map that has no width yet


def _as_rows(attr: Tensor | None) -> Tensor | None:
    return attr.view(-1, 1) if attr is not None and attr.dim() == 1 else attr


def _pairs(edges: Any) -> Tensor:
    return stored_pairs(edges) if is_sparse(edges) else edges


def _lay_out(edges: Any, size: tuple[int, int], flow: str) -> AttentionGraph:
    pairs = _pairs(edges)
    return AttentionGraph.from_edge_index(pairs.flip(0) if flow == "target_to_source" else pairs, size=size)
