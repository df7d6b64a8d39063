"""GATConv: attention over edges whose score is a sum of one number for each end."""

from __future__ import annotations

from typing import Any

import torch
import torch_geometric.nn.conv
from torch import Tensor

from graphformer._checks import refuse
from graphformer.graphs import AttentionGraph
from graphformer.kernels import Additive
from graphformer.nn.conv.adjacency import known_size
from graphformer.nn.conv.gat import GATLayer, outside_autocast


class GATConv(GATLayer, torch_geometric.nn.conv.GATConv):
    r"""PyG's :class:`~torch_geometric.nn.conv.GATConv`, computed by one call of the kernel.

    With v = W x and e = W_e edge_attr, split over the heads h,

        out[i,h] = sum over edges (j -> i) of alpha[e,h] v[j,h],   joined or averaged over h, plus a bias
        alpha[e,h] = softmax over the edges into i of  leaky_relu(a_i[h] . v[i,h] + a_j[h] . v[j,h] + a_e[h] . e[h])

    Graph Attention Networks (Velickovic et al., ICLR 2018). The constructor, the weights and their names are PyG's, so
    that each loads the other's checkpoint; output, gradients and attention weights are PyG's up to rounding. No
    `[E, H, C]` tensor is made, not even of edge features, whose two maps are joined to one `[F, H]`. PyG's own
    messages are sent only where :meth:`why_unfused` gives a reason: an explainer, hooks on messages, an `aggr` other
    than the sum, a subclass with steps of its own. Dropout has the same distribution and other draws. Differentiable
    twice.

    Args:
        in_channels: Width of the nodes, or (source, target) widths, which have maps of their own; -1 takes it from the
            first input.
        out_channels: Width C of one head.
        heads: Number of heads H. Default 1.
        concat: Whether heads are joined to `[N, H C]` (default) or averaged to `[N, C]`.
        negative_slope: Of leaky_relu. Default 0.2.
        dropout: Probability with which a weight is dropped in training. Default 0.
        add_self_loops: Whether each node attends to itself, once, whatever loops the edges hold. Default True.
        edge_dim: Width F of the edge features. Default None: none.
        fill_value: Features of the added loops: a number, a tensor, or how the features of a node's in-edges make
            them ("add", "mean", "min", "max", "mul"). Default "mean".
        bias: Whether a bias is added. Default True.
        residual: Whether there is a learned skip connection. Default False.
        **kwargs: Of PyG's `MessagePassing`: `flow` and `aggr`

    Example:
        >>> layer = GATConv(16, 8, heads=2, edge_dim=3)
        >>> edge_index = torch.tensor([[0, 1, 1], [1, 0, 2]])
        >>> layer(torch.randn(3, 16), edge_index, torch.randn(3, 3)).shape
        torch.Size([3, 16])
    """

    original = torch_geometric.nn.conv.GATConv

    # edge_updater_type: (alpha: OptPairTensor, edge_attr: OptTensor)
    # propagate_type: (x: OptPairTensor, alpha: Tensor)
    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor | None],
        edge_index: AttentionGraph | Tensor | Any,
        edge_attr: Tensor | None = None,
        size: tuple[int, int] | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Let every node attend to its in-neighbours and, unless told otherwise, to itself.

        Args:
            x: Nodes `[N, C_in]`, or (sources `[M, C_source]`, targets `[N, C_target]`), or (sources, None): the score
                is then the source's alone.
            edge_index: `[2, E]`, a PyG `EdgeIndex`, a transposed `torch.sparse` or `SparseTensor` adjacency, or an
                :class:`~graphformer.AttentionGraph`. Layers that get one tensor share its graph.
            edge_attr: Edge features `[E, F]`; `[E]` where F is 1. Not read where `edge_dim` is None.
            size: (number of sources, number of targets). Default: as x has them.
            return_attention_weights: True also returns the weights after dropout.

        Returns:
            `[N, H C]`, or `[N, C]` with `concat=False`; where asked for, that and (edge_index, weights `[E, H]`), both
            with the added loops at the end, or a `SparseTensor` of weights where one was given.

        Raises:
            InputError: Nodes, edges or features do not fit, or `size` is not that of x.
        """
        if self.why_unfused() or self._is_crossed(x):
            plain, edge_attr = self._to_pyg(x, edge_index, edge_attr)
            size = edge_index.size if isinstance(edge_index, AttentionGraph) else size
            return super().forward(x, plain, edge_attr, size, return_attention_weights)
        key, query, target = self._read_nodes(x)
        num_queries = self._count_queries(edge_index, key, query, size)

        num_loops = min(key.shape[0], num_queries)
        edge_index, edges = self._edges_with_loops(
            edge_index, edge_attr if self.lin_edge is not None else None, key.shape[0], num_queries, num_loops
        )
        terms: dict[str, Any] = {"score": Additive(negative_slope=self.negative_slope)}
        if edges.attr is not None:
            edge_map = (self._edge_map(edges.attr) * self.att_edge).sum(-1, keepdim=True)
            terms.update(edge_attr=edges.attr, edge_key=edge_map)
        key_part = _project(key, self.att_src)
        query_part = (
            key_part.new_zeros(num_queries, *key_part.shape[1:]) if query is None else _project(query, self.att_dst)
        )
        out, alpha = self._attend(query_part, key_part, key, edges, bool(return_attention_weights), **terms)
        skip = None if self.res is None or target is None else self.res(target)
        return self._finish(out, skip, edge_index, alpha)

    def _read_nodes(self, x: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Keys and queries, split over heads, and the targets that the queries come from."""
        lone = isinstance(x, (tuple, list)) and len(x) == 2 and x[1] is None
        source, target = (x[0], None) if lone else self._read_pair(x)
        self._refuse_stack(source)
        to_key, to_query = (self.lin_src, self.lin_dst) if self.lin is None else (self.lin, self.lin)
        key = self._split(to_key(source), self.att_src)
        if target is None or (target is source and to_query is to_key):
            return key, None if target is None else key, target
        return key, self._split(to_query(target), self.att_dst), target

    def _count_queries(self, edges: Any, key: Tensor, query: Tensor | None, size: tuple[int, int] | None) -> int:
        found = key.shape[0] if query is None else query.shape[0]
        if size is None:
            known = known_size(edges) if query is None else None
            return found if known is None else known[1]
        num_keys, num_queries = size
        if num_keys != key.shape[0] or (query is not None and num_queries != found):
            refuse(type(self).__name__, "size", "be that of x", size, f"x has {key.shape[0]} sources, {found} targets.")
        return num_queries


def _project(nodes: Tensor, att: Tensor) -> Tensor:
    """att[h] . nodes[i,h], as one matrix product that makes nothing as large as the nodes. Shape `[N, H, 1]`."""
    with outside_autocast(nodes):
        return (nodes.flatten(1) @ torch.block_diag(*att.transpose(0, 1).transpose(1, 2).unbind(0))).unsqueeze(-1)
