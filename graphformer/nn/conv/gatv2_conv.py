"""GATv2Conv: additive attention over edges."""

from __future__ import annotations

from typing import Any

import torch_geometric.nn.conv
from torch import Tensor

from graphformer._checks import refuse
from graphformer.graphs import AttentionGraph
from graphformer.kernels import Additive
from graphformer.nn.conv.gat import GATLayer


class GATv2Conv(GATLayer, torch_geometric.nn.conv.GATv2Conv):
    r"""PyG's :class:`~torch_geometric.nn.conv.GATv2Conv`, computed by one call of the kernel.

    With k = W_l x_source, q = W_r x_target and e = W_e edge_attr, split over the heads h,

        out[i,h] = sum over edges (j -> i) of alpha[e,h] k[j,h],   joined or averaged over h, plus a bias
        alpha[e,h] = softmax over the edges into i of  a[h] . leaky_relu(q[i,h] + k[j,h] + e[h])

    How Attentive are Graph Attention Networks? (Brody et al., ICLR 2022). The constructor, the weights and their names
    are PyG's, so that each loads the other's checkpoint; output, gradients and attention weights are PyG's up to
    rounding. No `[E, H, C]` tensor is made: memory is O(N H C + E). PyG's own messages are sent only where
    :meth:`why_unfused` gives a reason: an explainer, hooks on messages, an `aggr` other than the sum, a subclass with
    steps of its own. Dropout has the same distribution and other draws. Differentiable twice.

    Args:
        in_channels: Width of the nodes, or (source, target) widths; -1 takes it from the first input.
        out_channels: Width C of one head.
        heads: Number of heads H. Default 1.
        concat: Whether heads are joined to `[N, H C]` (default) or averaged to `[N, C]`.
        negative_slope: Of leaky_relu. Default 0.2.
        dropout: Probability with which a weight is dropped in training. Default 0.
        add_self_loops: Whether each node attends to itself, once, whatever loops the edges hold. Default True.
        edge_dim: Width F of the edge features. Default None: none.
        fill_value: Features of the added loops: a number, a tensor, or how the features of a node's in-edges make
            them ("add", "mean", "min", "max", "mul"). Default "mean".
        bias: Whether there are biases. Default True.
        share_weights: Whether W_l and W_r are one. Default False.
        residual: Whether there is a learned skip connection. Default False.
        **kwargs: Of PyG's `MessagePassing`: `flow` and `aggr`

    Example:
        >>> import torch
        >>> layer = GATv2Conv(16, 8, heads=2)
        >>> edge_index = torch.tensor([[0, 1, 1], [1, 0, 2]])
        >>> out, (edges, alpha) = layer(torch.randn(3, 16), edge_index, return_attention_weights=True)
        >>> out.shape, edges.shape, alpha.shape  # three edges and three loops
        (torch.Size([3, 16]), torch.Size([2, 6]), torch.Size([6, 2]))
    """

    original = torch_geometric.nn.conv.GATv2Conv

    # edge_updater_type: (x: PairTensor, edge_attr: OptTensor)
    # propagate_type: (x: PairTensor, alpha: Tensor)
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: AttentionGraph | Tensor | Any,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Let every node attend to its in-neighbours and, unless told otherwise, to itself.

        Args:
            x: Nodes `[N, C_in]`, or (sources `[M, C_source]`, targets `[N, C_target]`).
            edge_index: `[2, E]`, a PyG `EdgeIndex`, a transposed `torch.sparse` or `SparseTensor` adjacency, or an
                :class:`~graphformer.AttentionGraph`. Layers that get one tensor share its graph.
            edge_attr: Edge features `[E, F]`; `[E]` where F is 1.
            return_attention_weights: True also returns the weights after dropout.

        Returns:
            `[N, H C]`, or `[N, C]` with `concat=False`; where asked for, that and (edge_index, weights `[E, H]`), both
            with the added loops at the end, or a `SparseTensor` of weights where one was given.

        Raises:
            InputError: Nodes, edges or features do not fit.
        """
        if self.why_unfused() or self._is_crossed(x):
            plain, edge_attr = self._to_pyg(x, edge_index, edge_attr)
            return super().forward(x, plain, edge_attr, return_attention_weights)
        source, target = self._read_pair(x)
        self._refuse_stack(source)
        if edge_attr is not None and self.lin_edge is None:
            remedy = "Construct the layer with edge_dim=, the width of the features."
            refuse(type(self).__name__, "edge_attr", "be None where edge_dim is None", list(edge_attr.shape), remedy)
        key = self._split(self.lin_l(source), self.att)
        query = key if self.share_weights and source is target else self._split(self.lin_r(target), self.att)

        num_keys, num_queries = key.shape[0], query.shape[0]
        edge_index, edges = self._edges_with_loops(
            edge_index, edge_attr, num_keys, num_queries, min(num_keys, num_queries)
        )
        terms: dict[str, Any] = {"score": Additive(self.att.squeeze(0), negative_slope=self.negative_slope)}
        if edges.attr is not None and self.lin_edge is not None:
            terms.update(edge_attr=edges.attr, edge_key=self._edge_map(edges.attr))
        out, alpha = self._attend(query, key, key, edges, bool(return_attention_weights), **terms)
        skip = None if self.res is None else self.res(target)
        return self._finish(out, skip, edge_index, alpha)
