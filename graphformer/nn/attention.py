"""Attention as a PyTorch Geometric layer: linear maps around one call of the kernel."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense import Linear
from torch_geometric.typing import OptTensor

from graphformer._checks import refuse, require, require_choice, require_count, require_probability
from graphformer.graphs import AttentionGraph
from graphformer.kernels import Additive, attend, attention_weights
from graphformer.kernels.api import BACKENDS

_WHERE = "GraphAttention"


class GraphAttention(MessagePassing):
    r"""Multi-head attention along the edges of a graph, in the manners of a PyG layer.

    With q = W_q x_target, k = W_k x_source and v = W_v x_source split over the heads h,

        y[i,h] = sum over edges e = (j -> i) of alpha[e,h] (v[j,h] + u[r(e),h] + a(e) V[h])
        alpha[e,h] = normalizer over the edges into i of score[e,h]
        score[e,h] = q[i,h] . (k[j,h] + s[r(e),h] + a(e) K[h]) / sqrt(D) + t[r(e),h]
        out[i] = W_o concat_h y[i,h] + b_o

    where a(e) is the edge's feature (`edge_dim`) and r(e) its relation (`num_relations`); for `score="additive"` the
    score is w[h] . leaky_relu(q[i,h] + k[j,h] + s[r(e),h] + a(e) K[h]) + t[r(e),h]. A relation shifts the score by t
    and, with `relation_vectors`, the keys and values by s and u, which is less work than a one-hot edge feature. A node
    without in-edges gets the bias b_o. One fused call does the work in O(N + E) memory; the unfused messages of PyG,
    with the same numbers and [E, H, D] memory, are made only while an explainer asks (`explain`) or hooks on messages
    are registered. Dropout has one probability on both paths but other draws: the kernel's counter-based mask, or
    torch's own dropout.

    Args:
        in_channels: Width of the nodes, or (source, target) widths for attention between two sets; -1 takes it from
            the first input.
        out_channels: Width C of the output; a multiple of `heads` unless `head_channels` is given.
        heads: Number of heads H. Default 8, as in Vaswani et al.
        head_channels: Width D of a head. Default: C / heads.
        edge_dim: Width F of the edge features; None: the layer takes none.
        num_relations: Number of relations R that the graph's pairs carry; None: relations are not read.
        relation_vectors: Whether relations also add to keys (s) and values (u).
        score: "dot" (Vaswani et al. 2017) or "additive" (GATv2, Brody et al. 2022).
        normalizer: "softmax", "relu" or "sigmoid", see :func:`graphformer.kernels.attend`.
        dropout: Probability with which a weight is dropped in training, in [0, 1).
        bias: Whether the four linear maps have biases.
        flow: "source_to_target", or "target_to_source" where row 0 of an edge index holds the queries.
        backend: Which kernel runs, see :func:`graphformer.kernels.attend`.

    Raises:
        InputError: heads do not divide out_channels, a name is unknown, or a number is no integer or out of range.

    Example:
        >>> layer = GraphAttention(16, 32, heads=4, edge_dim=3)
        >>> edge_index = torch.tensor([[0, 1, 1], [1, 0, 2]])
        >>> layer(torch.randn(3, 16), edge_index, torch.randn(3, 3)).shape
        torch.Size([3, 32])
        >>> layer
        GraphAttention(16, 32, heads=4)
    """

    lin_key: Linear
    edge_key: Parameter | None
    edge_value: Parameter | None
    relation_bias: Parameter | None
    relation_key: Parameter | None
    relation_value: Parameter | None
    score_weight: Parameter | None

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 8,
        *,
        head_channels: int | None = None,
        edge_dim: int | None = None,
        num_relations: int | None = None,
        relation_vectors: bool = False,
        score: str = "dot",
        normalizer: str = "softmax",
        dropout: float = 0.0,
        bias: bool = True,
        flow: str = "source_to_target",
        backend: str = "auto",
    ) -> None:
        source, target = _read_widths(in_channels)
        _check_options(out_channels, heads, head_channels, edge_dim, num_relations, dropout)
        remedy = "Pass num_relations=, or leave relation_vectors out."
        told = not relation_vectors or num_relations is not None
        require(told, _WHERE, "relation_vectors", "be False where num_relations is None", relation_vectors, remedy)
        require_choice(score, ("dot", "additive"), _WHERE, "score", "Other scores are made with attend.")
        require_choice(normalizer, ("softmax", "relu", "sigmoid"), _WHERE, "normalizer")
        require_choice(flow, ("source_to_target", "target_to_source"), _WHERE, "flow")
        require_choice(backend, ("auto", *BACKENDS), _WHERE, "backend")
        super().__init__(aggr="add", node_dim=0, flow=flow)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.head_channels = out_channels // heads if head_channels is None else head_channels
        self.edge_dim = edge_dim
        self.num_relations = num_relations
        self.score = score
        self.normalizer = normalizer
        self.dropout = dropout
        self.backend = backend

        head_shape = (heads, self.head_channels)
        inner = heads * self.head_channels
        self.lin_key = Linear(source, inner, bias=bias)
        self.lin_query = Linear(target, inner, bias=bias)
        self.lin_value = Linear(source, inner, bias=bias)
        self.lin_out = Linear(inner, out_channels, bias=bias)
        self.edge_key = None if edge_dim is None else Parameter(torch.empty(edge_dim, *head_shape))
        self.edge_value = None if edge_dim is None else Parameter(torch.empty(edge_dim, *head_shape))
        self.relation_bias = None if num_relations is None else Parameter(torch.empty(num_relations, heads))
        vectors = None if num_relations is None or not relation_vectors else (num_relations, *head_shape)
        self.relation_key = None if vectors is None else Parameter(torch.empty(vectors))
        self.relation_value = None if vectors is None else Parameter(torch.empty(vectors))
        self.score_weight = Parameter(torch.empty(head_shape)) if score == "additive" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        super().reset_parameters()
        for linear in (self.lin_key, self.lin_query, self.lin_value, self.lin_out):
            linear.reset_parameters()
        for weight in (self.edge_key, self.edge_value, self.relation_key, self.relation_value):
            if weight is not None:
                torch.nn.init.xavier_uniform_(weight.data.flatten(1))  # fans as of the linear map F -> H * D
        if self.relation_bias is not None:
            torch.nn.init.zeros_(self.relation_bias)
        if self.score_weight is not None:
            torch.nn.init.xavier_uniform_(self.score_weight)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        graph: AttentionGraph | Tensor | Any,
        edge_attr: Tensor | None = None,
        *,
        edge_bias: Tensor | None = None,
        size: tuple[int, int] | None = None,
        return_attention_weights: bool | None = None,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        """Let every query attend to its keys.

        Args:
            x: Nodes, shape `[N, C_in]`, of the weights' dtype (under autocast, any floating one); or (sources
                `[M, C_source]`, targets `[N, C_target]`).
            graph: An :class:`~graphformer.graphs.AttentionGraph` (make it once and pass it to every layer), an edge
                index `[2, E]`, a PyG `EdgeIndex`, or a transposed `torch.sparse` / `SparseTensor` adjacency.
            edge_attr: Edge features `[E, F]` in the order of the edges (for a sparse adjacency row by row), floating;
                for a graph made by a pattern with `Edges`, the node set's own `[num_own_edges, F]`. `[E]` where F is 1.
            edge_bias: Added to the scores, in the order of `graph.edge_index`, floating; -inf removes a pair. Shape
                `[E, H]`, or `[E]` for all heads alike.
            size: (number of sources, number of targets) to check `x` against; by PyG's rule (rows 0, rows 1) of the
                edge index, whatever the flow.
            return_attention_weights: True also returns the edges and their weights.

        Returns:
            `[N, out_channels]`; or, with `return_attention_weights=True`, that and (edge_index `[2, E]`, weights
            before dropout `[E, H]`).

        Raises:
            InputError: A shape or dtype does not fit, or edge features or relations are missing or unexpected.
        """
        source, target = self._read_nodes(x)
        graph = self._read_graph(graph, source.shape[0], target.shape[0], size)
        terms = self._read_terms(graph, edge_attr) | {"bias": edge_bias}
        split = (-1, self.heads, self.head_channels)
        query = self.lin_query(target).view(split)
        key = self.lin_key(source).view(split)
        value = self.lin_value(source).view(split)

        unfused = self.explain is True or self._has_hooks()
        alpha = attention_weights(query, key, graph, **terms) if unfused or return_attention_weights is True else None
        if unfused and alpha is not None:
            out = self._send_messages(value, alpha, graph, terms.get("edge_attr"))
        else:
            dropout = self.dropout if self.training else 0.0
            terms.update(edge_value=self.edge_value, relation_value=self._of(graph, self.relation_value))
            out = attend(query, key, value, graph, **terms, dropout=dropout, backend=self.backend)
        out = self.lin_out(out.flatten(1))
        if return_attention_weights is True and alpha is not None:
            return out, (self._in_flow(graph.edge_index), alpha)
        return out

    def message(self, value_j: Tensor, alpha: Tensor, edge_value: OptTensor) -> Tensor:
        """The unfused message of an edge: its weight times its value. Shape `[E, H, D]`."""
        alpha = torch.nn.functional.dropout(alpha, self.dropout, self.training)
        value = value_j if edge_value is None else value_j + edge_value
        return alpha.unsqueeze(-1).to(value.dtype) * value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"

    # ---------------------------------------------------------------- reading the inputs

    def _read_nodes(self, x: Any) -> tuple[Tensor, Tensor]:
        """The sources and the targets, once they fit the weights."""
        pair = tuple(x) if isinstance(x, (tuple, list)) else (x, x)
        if not (len(pair) == 2 and all(isinstance(side, Tensor) for side in pair)):
            kinds = ", ".join(type(side).__name__ for side in pair)
            got = f"({kinds})" if isinstance(x, (tuple, list)) else type(x).__name__
            refuse(_WHERE, "x", "be a tensor or a pair of tensors", got, "Pass x [N, C], or (x_source, x_target).")
        dtype = self.lin_out.weight.dtype
        for side, linear in zip(pair, (self.lin_key, self.lin_query), strict=True):
            width = linear.in_channels  # -1 until the first input
            if side.dim() != 2 or width not in (-1, side.shape[1]):
                rule = f"have shape [N, {'C' if width == -1 else width}] where in_channels = {self.in_channels}"
                remedy = "Pass x, or (x_source, x_target) for two node sets, as wide as the layer."
                refuse(_WHERE, "x", rule, list(side.shape), remedy)
            cast = torch.is_autocast_enabled(side.device.type) and torch.float64 not in (side.dtype, dtype)
            if not side.is_floating_point() or (side.dtype != dtype and not cast):
                remedy = f"Convert it with .to({dtype}), or the layer with layer.to(x.dtype) where x is floating."
                refuse(_WHERE, "x", f"have the weights' dtype {dtype}", side.dtype, remedy)
        return pair[0], pair[1]

    def _read_graph(
        self, graph: Any, num_sources: int, num_targets: int, size: tuple[int, int] | None
    ) -> AttentionGraph:
        reverse = self.flow == "target_to_source"
        plain = isinstance(graph, Tensor) and graph.layout == torch.strided
        if reverse and not plain:
            refuse(
                _WHERE,
                "graph",
                'be an edge index where flow is "target_to_source"',
                type(graph).__name__,
                "An attention graph or a sparse adjacency says itself which side asks; use source_to_target.",
            )
        found = (num_sources, num_targets)
        if size is not None:
            if not (isinstance(size, (tuple, list)) and len(size) == 2):
                refuse(_WHERE, "size", "be a pair of counts", repr(size), "Pass (number of sources, of targets).")
            wanted = (size[1], size[0]) if reverse else (size[0], size[1])
            if wanted != found:
                refuse(_WHERE, "x", f"have {wanted} (source, target) rows", found, "Correct size or x.")
        if not isinstance(graph, AttentionGraph):
            if reverse:
                graph = graph.flip(0)
            graph = AttentionGraph.from_edge_index(graph, size=found if plain else None)
        if graph.size != found:
            refuse(
                _WHERE,
                "graph",
                f"have (keys, queries) = {found} like x",
                graph.size,
                "Give (x_source, x_target) for two node sets, and make the graph over the nodes that x holds.",
            )
        return graph

    def _read_terms(self, graph: AttentionGraph, edge_attr: Tensor | None) -> dict[str, Any]:
        """What `attend` and `attention_weights` both take beside query and key."""
        terms: dict[str, Any] = {
            "score": "dot" if self.score_weight is None else Additive(self.score_weight),
            "normalizer": self.normalizer,
        }
        if self.relation_bias is not None:
            if not (graph.relation is not None and graph.num_relations <= self.relation_bias.shape[0]):
                refuse(
                    _WHERE,
                    "graph",
                    f"carry at most num_relations = {self.num_relations} relations",
                    "none" if graph.relation is None else graph.num_relations,
                    "Make it with relation=, or change num_relations.",
                )
            terms.update(
                relation_bias=self._of(graph, self.relation_bias), relation_key=self._of(graph, self.relation_key)
            )
        edge_attr = self._read_edge_attr(edge_attr)
        if edge_attr is not None:
            terms.update(edge_attr=edge_attr, edge_key=self.edge_key)
        return terms

    @staticmethod
    def _of(graph: AttentionGraph, table: Tensor | None) -> Tensor | None:
        """The rows of a table that the graph's relations ask for."""
        return None if table is None else table[: graph.num_relations]

    def _read_edge_attr(self, edge_attr: Tensor | None) -> Tensor | None:
        if edge_attr is None:
            if self.edge_dim is not None:
                refuse(
                    _WHERE,
                    "edge_attr",
                    f"be given where edge_dim = {self.edge_dim}",
                    None,
                    "Pass edge_attr=, one row of features per edge; values stored in a sparse adjacency are not read.",
                )
            return None
        if not isinstance(edge_attr, Tensor):
            refuse(_WHERE, "edge_attr", "be a tensor", type(edge_attr).__name__, "Convert it with torch.tensor.")
        if self.edge_dim is None:
            remedy = "Construct the layer with edge_dim=, the width of the features."
            refuse(_WHERE, "edge_attr", "be None where edge_dim is None", list(edge_attr.shape), remedy)
        rows = edge_attr.unsqueeze(-1) if edge_attr.dim() == 1 else edge_attr
        if not (rows.dim() == 2 and rows.shape[1] == self.edge_dim):
            remedy = "Its width is edge_dim."
            refuse(_WHERE, "edge_attr", f"have shape [E, {self.edge_dim}]", list(edge_attr.shape), remedy)
        return rows

    # ---------------------------------------------------------------- the unfused path

    def _has_hooks(self) -> bool:
        return bool(
            self._propagate_forward_pre_hooks
            or self._propagate_forward_hooks
            or self._message_forward_pre_hooks
            or self._message_forward_hooks
            or self._aggregate_forward_pre_hooks
            or self._aggregate_forward_hooks
        )

    def _in_flow(self, edge_index: Tensor) -> Tensor:
        return edge_index.flip(0) if self.flow == "target_to_source" else edge_index

    def _send_messages(self, value: Tensor, alpha: Tensor, graph: AttentionGraph, edge_attr: Tensor | None) -> Tensor:
        edge_value = None if self.relation_value is None else self.relation_value[graph.relation]
        if edge_attr is not None:
            if graph.own_edge is not None:  # -1, no edge of the node set, reads the row of zeros
                edge_attr = torch.nn.functional.pad(edge_attr, (0, 0, 0, 1))[graph.own_edge]
            mapped = torch.einsum("ef,fhd->ehd", edge_attr.to(value.dtype), self.edge_value)
            edge_value = mapped if edge_value is None else edge_value + mapped
        size = graph.size if self.flow == "source_to_target" else graph.size[::-1]
        edge_index = self._in_flow(graph.edge_index)
        # propagate_type: (value: Tensor, alpha: Tensor, edge_value: OptTensor)
        return self.propagate(edge_index, size=size, value=value, alpha=alpha, edge_value=edge_value)


def _read_widths(in_channels: Any) -> tuple[int, int]:
    widths = tuple(in_channels) if isinstance(in_channels, (tuple, list)) else (in_channels, in_channels)
    whole = all(isinstance(width, Integral) and not isinstance(width, bool) for width in widths)
    require(
        len(widths) == 2 and whole and all(width > 0 or width == -1 for width in widths),
        _WHERE,
        "in_channels",
        "be a width or a pair of widths (source, target), each at least 1, or -1",
        repr(in_channels),
        "-1 takes the width from the first input.",
    )
    return widths


def _check_options(
    out_channels: int,
    heads: int,
    head_channels: int | None,
    edge_dim: int | None,
    num_relations: int | None,
    dropout: float,
) -> None:
    require_count(heads, _WHERE, "heads", "Pass a count of heads.")
    require_count(out_channels, _WHERE, "out_channels", "It is the width of all heads together.")
    if head_channels is None:
        require(
            out_channels % heads == 0,
            _WHERE,
            "out_channels",
            f"be a positive multiple of heads = {heads}",
            out_channels,
            "It is the width of all heads together; change one of the two, or give head_channels.",
        )
    else:
        require_count(head_channels, _WHERE, "head_channels", "Pass None for out_channels / heads.")
    for name, count in (("edge_dim", edge_dim), ("num_relations", num_relations)):
        if count is not None:
            require_count(count, _WHERE, name, "Pass None to do without.")
    require_probability(dropout, _WHERE, "dropout")
