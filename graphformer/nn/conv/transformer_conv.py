"""TransformerConv: dot-product attention over edges with a skip connection."""

from __future__ import annotations

from typing import Any

import torch
import torch_geometric.nn.conv
from torch import Tensor

from graphformer.graphs import AttentionGraph
from graphformer.kernels import attend, attention_weights
from graphformer.nn.conv.adjacency import stored_features, with_weights
from graphformer.nn.conv.fused import FusedConv


class TransformerConv(FusedConv, torch_geometric.nn.conv.TransformerConv):
    r"""PyG's :class:`~torch_geometric.nn.conv.TransformerConv`, computed by one call of the kernel.

    With q = W_3 x_target, k = W_4 x_source, v = W_2 x_source and e = W_6 edge_attr, split over the heads h,

        out[i,h] = sum over edges (j -> i) of alpha[e,h] (v[j,h] + e[h]),   joined or averaged over h, plus W_1 x_i
        alpha[e,h] = softmax over the edges into i of  q[i,h] . (k[j,h] + e[h]) / sqrt(C)

    Masked Label Prediction: Unified Message Passing Model (Shi et al., IJCAI 2021). The constructor, the weights and
    their names are PyG's, so that each loads the other's checkpoint; output, gradients and attention weights are PyG's
    up to rounding. No `[E, H, C]` tensor is made: memory is O(N H C + E). PyG's own messages are sent only where
    :meth:`why_unfused` gives a reason: an explainer, hooks on messages, an `aggr` other than the sum, a subclass with
    steps of its own. Dropout has the same distribution and other draws. Differentiable twice.

    Args:
        in_channels: Width of the nodes, or (source, target) widths; -1 takes it from the first input.
        out_channels: Width C of one head.
        heads: Number of heads H. Default 1.
        concat: Whether heads are joined to `[N, H C]` (default) or averaged to `[N, C]`.
        beta: Whether a learned gate mixes skip connection and attention. Default False.
        dropout: Probability with which a weight is dropped in training. Default 0.
        edge_dim: Width F of the edge features. Default None: none.
        bias: Whether the linear maps have biases. Default True.
        root_weight: Whether the skip connection is there. Default True.
        **kwargs: Of PyG's `MessagePassing`: `flow` and `aggr`

    Example:
        >>> layer = TransformerConv(16, 8, heads=2)
        >>> edge_index = torch.tensor([[0, 1, 1], [1, 0, 2]])
        >>> layer(torch.randn(3, 16), edge_index).shape
        torch.Size([3, 16])
        >>> layer
        TransformerConv(16, 8, heads=2)
    """

    original = torch_geometric.nn.conv.TransformerConv

    # propagate_type: (query: Tensor, key: Tensor, value: Tensor, edge_attr: OptTensor)
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: AttentionGraph | Tensor | Any,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Let every node attend to its in-neighbours.

        Args:
            x: Nodes `[N, C_in]`, or (sources `[M, C_source]`, targets `[N, C_target]`).
            edge_index: `[2, E]`, a PyG `EdgeIndex`, a transposed `torch.sparse` or `SparseTensor` adjacency, or an
                :class:`~graphformer.AttentionGraph`. Layers that get one tensor share its graph.
            edge_attr: Edge features `[E, F]`; `[E]` where F is 1.
            return_attention_weights: True or False also returns the weights before dropout, None does not.

        Returns:
            `[N, H C]`, or `[N, C]` with `concat=False`; where asked for, that and (edge_index, weights `[E, H]`), or
            a `SparseTensor` of weights where one was given.

        Raises:
            InputError: Edges or features do not fit; edge features are missing.
        """
        # Without lin_edge PyG adds edge features to the values as they are, which only its messages can do.
        bare = self.lin_edge is None and (edge_attr is not None or stored_features(edge_index) is not None)
        if self.why_unfused() or bare:
            plain, edge_attr = self._to_pyg(x, edge_index, edge_attr)
            return super().forward(x, plain, edge_attr, return_attention_weights)
        source, target = self._read_pair(x)
        split = (-1, self.heads, self.out_channels)
        query = self.lin_query(target).view(split)
        key = self.lin_key(source).view(split)
        value = self.lin_value(source).view(split)

        edges = self._check_edges(edge_index, key.shape[0], query.shape[0])
        graph, attr, _ = self._read_edges(edges, edge_attr, key.shape[0], query.shape[0])
        terms: dict[str, Any] = {}
        if self.lin_edge is not None:
            attr = self._require_attr(attr)
            terms = {"edge_attr": attr, "edge_key": self._edge_map(attr)}
        dropout = self.dropout if self.training else 0.0
        more = {"edge_value": terms["edge_key"]} if terms else {}
        out = attend(query, key, value, graph, **terms, **more, dropout=dropout, backend=self.backend)
        out = self._join(out, target)
        if isinstance(return_attention_weights, bool):
            return out, with_weights(edge_index, attention_weights(query, key, graph, **terms), inside=False)
        return out

    def _join(self, out: Tensor, target: Tensor) -> Tensor:
        """Heads together, and the skip connection."""
        out = out.flatten(1) if self.concat else out.mean(dim=1)
        if not self.root_weight:
            return out
        skip = self.lin_skip(target)
        if self.lin_beta is None:
            return out + skip
        beta = self.lin_beta(torch.cat((out, skip, out - skip), dim=-1)).sigmoid()
        return beta * skip + (1 - beta) * out
