"""PyG's GPSConv with attention inside each graph: no padding, any pattern, edges and relations if asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter, functional
from torch_geometric import nn as pyg
from torch_geometric.nn.conv import MessagePassing

from graphformer._checks import refuse, require_choice, require_count
from graphformer._errors import UnsupportedError
from graphformer.graphs import AttentionGraph
from graphformer.kernels.api import BACKENDS
from graphformer.nn.conv.whole_sets import attend_whole_sets, can_attend_whole_sets
from graphformer.nn.multihead_attention import MultiheadAttention, attend_with
from graphformer.nn.node_facts import graph_of
from graphformer.patterns import Edges, Full, Pattern

_WHERE = "GPSConv"


class GPSConv(pyg.GPSConv):
    """`torch_geometric.nn.GPSConv` whose global attention takes each graph as it is: no padding, and any pattern.

    Rampasek et al., "Recipe for a general, powerful, scalable graph transformer" (NeurIPS 2022). Constructor,
    parameters, `state_dict` and forward are PyG's; with the arguments that are PyG's the numbers are too. PyG's own
    forward, in dense batches, runs where attention is none that a kernel has, see :meth:`why_unfused`.

    Args:
        channels: Width C of the nodes.
        conv: The local part, any PyG layer, or None.
        heads: Number of heads H of the global part.
        dropout: Of both parts' results and in the feed-forward part, in training.
        act: As in PyG.
        act_kwargs: As in PyG.
        norm: As in PyG.
        norm_kwargs: As in PyG.
        attn_type: "multihead" or "performer".
        attn_kwargs: For `torch.nn.MultiheadAttention`, such as `dropout` of the weights.
        pattern: Which nodes of a graph attend to which. Default: `Full()`, as in PyG; with `edge_dim`
            `Edges() | Full()`, whose pairs know which of them are edges.
        edge_dim: Width F of edge features that the global part reads too, from forward's `edge_attr`: a pair that is
            an edge adds `edge_attr @ edge_key` to its key and `edge_attr @ edge_value` to its value.
        num_relations: Number of relations R that the pattern's pairs carry, each with a learned bias of the score.
        backend: Which kernel runs, see :func:`graphformer.attend`.

    Raises:
        InputError: An argument of ours is of the wrong kind or range, or comes with attention that no kernel has.

    Example:
        >>> from torch_geometric.nn import GCNConv
        >>> layer = GPSConv(16, GCNConv(16, 16), heads=4)
        >>> edge_index, batch = torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 0, 0, 1, 1])
        >>> layer(torch.randn(5, 16), edge_index, batch).shape
        torch.Size([5, 16])
        >>> from graphformer.patterns import Expander
        >>> GPSConv(16, None, heads=4, pattern=Edges() | Expander(4))
        GPSConv(16, conv=None, heads=4, attn_type=multihead, pattern=Edges() | Expander(degree=4))
    """

    edge_key: Parameter | None
    edge_value: Parameter | None
    relation_bias: Parameter | None

    def __init__(
        self,
        channels: int,
        conv: MessagePassing | None,
        heads: int = 1,
        dropout: float = 0.0,
        act: str = "relu",
        act_kwargs: dict[str, Any] | None = None,
        norm: str | None = "batch_norm",
        norm_kwargs: dict[str, Any] | None = None,
        attn_type: str = "multihead",
        attn_kwargs: dict[str, Any] | None = None,
        *,
        pattern: Pattern | None = None,
        edge_dim: int | None = None,
        num_relations: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(channels, conv, heads, dropout, act, act_kwargs, norm, norm_kwargs, attn_type, attn_kwargs)
        self._take_options(pattern, edge_dim, num_relations, backend)

    def _take_options(
        self,
        pattern: Pattern | None = None,
        edge_dim: int | None = None,
        num_relations: int | None = None,
        backend: str = "auto",
    ) -> None:
        """What PyG's layer does not have; without arguments, what makes an instance of PyG's one of ours."""
        if not (pattern is None or isinstance(pattern, Pattern)):
            remedy = "For example Edges() | Expander(4); a graph that is ready is given to forward."
            refuse(_WHERE, "pattern", "be a pattern or None", type(pattern).__name__, remedy)
        for name, count in (("edge_dim", edge_dim), ("num_relations", num_relations)):
            if count is not None:
                require_count(count, _WHERE, name, "Pass None to do without.")
        require_choice(backend, ("auto", *BACKENDS), _WHERE, "backend")
        self._default = Full() if edge_dim is None else Edges() | Full()
        self.pattern = self._default if pattern is None else pattern
        self.edge_dim = edge_dim
        self.num_relations = num_relations
        self.backend = backend
        shape = (self.heads, self.channels // self.heads)
        self.edge_key = None if edge_dim is None else Parameter(torch.empty(edge_dim, *shape))
        self.edge_value = None if edge_dim is None else Parameter(torch.empty(edge_dim, *shape))
        self.relation_bias = None if num_relations is None else Parameter(torch.empty(num_relations, self.heads))
        self._reset_terms()
        self._is_dense(None)

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        super().reset_parameters()
        self._reset_terms()

    def _reset_terms(self) -> None:
        for weight in (self.edge_key, self.edge_value):
            if weight is not None:
                torch.nn.init.xavier_uniform_(weight.data.flatten(1))  # fans as of the linear map F -> H * D
        if self.relation_bias is not None:
            torch.nn.init.zeros_(self.relation_bias)

    def why_unfused(self) -> list[str]:
        """The reasons why the next forward is PyG's own, in dense batches; none means that the kernel runs.

        Example:
            >>> GPSConv(8, None).why_unfused(), GPSConv(8, None, attn_type="performer").why_unfused()
            ([], ["attn_type='performer' has no pairs"])
        """
        attn = self.attn
        if self.attn_type != "multihead":
            return [f"attn_type={self.attn_type!r} has no pairs"]
        reasons = []
        if type(attn) not in (torch.nn.MultiheadAttention, MultiheadAttention):
            reasons.append(f"attn is {type(attn).__name__}, not torch's")
        if attn._forward_hooks or attn._forward_pre_hooks:
            reasons.append("hooks on attn are registered")
        if getattr(attn, "bias_k", None) is not None or getattr(attn, "add_zero_attn", False):
            reasons.append("attn adds keys that are no nodes")
        if torch.jit.is_tracing():
            reasons.append("torch.jit traces no graph of nodes")
        return reasons

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        batch: Tensor | None = None,
        *,
        graph: AttentionGraph | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Let the nodes hear their neighbours and, by attention, the nodes of their graph.

        Args:
            x: Shape `[N, C]`, floating.
            edge_index: Edges in any form that `conv` takes.
            batch: The graph of each node, ascending. Shape `[N]`, int64; None: one graph.
            graph: Whom a node attends to, in place of the pattern. Made once a batch, it serves every layer; so does
                a pattern's, which is kept beside `batch` (or `edge_index`) and made anew where a tensor that the
                pattern read is another one or was changed. Under torch.compile, give it for any pattern but `Full()`.
            **kwargs: For `conv`; a pattern reads the tensors among them by name, such as `edge_type` and `pos`.

        Returns:
            Shape `[N, C]`.

        Raises:
            InputError: Nodes, edges or relations that do not fit; as the pattern does, and :func:`graphformer.attend`.
        """
        whole_sets = graph is None and self._is_plain and self.backend != "reference" and torch.compiler.is_compiling()
        if self._is_dense(graph) or (whole_sets and not can_attend_whole_sets(x)):
            return super().forward(x, edge_index, batch, **kwargs)
        terms: dict[str, Any] = {}
        if not whole_sets:  # before the local part, which would refuse what it lacks in words of its own
            if graph is None:
                self._refuse_data_in_a_program()
                graph = graph_of(self.pattern, x.shape[0], edge_index, batch, kwargs)
            terms = self._read_terms(graph, kwargs.get("edge_attr"))
        parts = []
        if self.conv is not None:
            parts.append(self._residual(self.conv(x, edge_index, **kwargs), x, self.norm1, batch))
        if graph is None:
            h = attend_whole_sets(self.attn, x, batch)
        else:
            h = attend_with(self.attn, x, x, x, graph, backend=self.backend, **terms)
        parts.append(self._residual(h, x, self.norm2, batch))
        out = sum(parts)
        return self._normalize(self.norm3, out + self.mlp(out), batch)

    def __repr__(self) -> str:
        told = super().__repr__()
        return told if self.pattern == self._default else f"{told[:-1]}, pattern={self.pattern!r})"

    # ---------------------------------------------------------------- parts

    def _residual(self, h: Tensor, x: Tensor, norm: Any, batch: Tensor | None) -> Tensor:
        return self._normalize(norm, functional.dropout(h, self.dropout, self.training) + x, batch)

    def _normalize(self, norm: Any, h: Tensor, batch: Tensor | None) -> Tensor:
        if norm is None:
            return h
        return norm(h, batch=batch) if self.norm_with_batch else norm(h)

    @property
    def _is_plain(self) -> bool:
        """Whether the arguments say nothing that PyG's own forward would not do."""
        return self.pattern == Full() and self.edge_key is None and self.relation_bias is None

    def _is_dense(self, graph: AttentionGraph | None) -> bool:
        """Whether PyG's own forward runs; refuses what that one cannot do."""
        reasons = self.why_unfused()
        if reasons and not (self._is_plain and graph is None):
            remedy = "Leave them out, for PyG's own forward in dense batches, or mend the reason."
            refuse(_WHERE, "pattern, edge_dim, num_relations and graph", "meet attention on pairs", reasons[0], remedy)
        return bool(reasons)

    def _refuse_data_in_a_program(self) -> None:
        if torch.compiler.is_compiling():
            rule, remedy = "be laid outside of what torch.compile compiles", "Pass graph=pattern.on(data) to forward."
            refuse(_WHERE, "pattern", rule, repr(self.pattern), remedy, UnsupportedError)

    def _read_terms(self, graph: AttentionGraph, edge_attr: Tensor | None) -> dict[str, Any]:
        terms: dict[str, Any] = {}
        if self.relation_bias is not None:
            if graph.relation is None or graph.num_relations > self.relation_bias.shape[0]:
                rule = f"carry at most num_relations = {self.num_relations} relations"
                found = "none" if graph.relation is None else graph.num_relations
                refuse(_WHERE, "pattern", rule, found, "Label it with .as_relation(r), or change num_relations.")
            terms["relation_bias"] = self.relation_bias[: graph.num_relations]
        if self.edge_key is not None and self.edge_value is not None:
            if edge_attr is None:
                remedy = "Pass edge_attr= to forward, one row of features an edge."
                refuse(_WHERE, "edge_attr", f"be given where edge_dim = {self.edge_dim}", None, remedy)
            if graph.own_edge is None:
                remedy = "Put the edges first: Edges() | pattern."
                refuse(_WHERE, "pattern", "know which pairs are edges where edge_dim is given", repr(graph), remedy)
            edge_attr = edge_attr.unsqueeze(1) if edge_attr.dim() == 1 else edge_attr
            terms.update(edge_attr=edge_attr, edge_key=self.edge_key, edge_value=self.edge_value)
        return terms
