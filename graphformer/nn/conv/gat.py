"""What GATConv and GATv2Conv share: self loops, dropout that the weights show, and the way out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import is_torch_sparse_tensor
from torch_geometric.utils.sparse import set_sparse_value

from graphformer._checks import refuse
from graphformer.kernels import attend, attention_weights
from graphformer.kernels.dropout import keep_scale
from graphformer.nn.conv.fused import Edges, FusedConv, own_pairs, with_weights
from graphformer.nn.conv.loops import add_loops


class GATLayer(FusedConv):
    """GAT's manners around one call of the kernel."""

    def _is_crossed(self, x: Any) -> bool:
        """Whether x is a pair of unequal sets under the flow for which PyG reads (source, target) the wrong way round.

        What PyG makes of that is left to its own path.
        """
        pair = self.flow == "target_to_source" and isinstance(x, (tuple, list))
        return pair and (x[1] is None or x[0].shape[0] != x[1].shape[0])

    def _edges_with_loops(
        self, edge_index: Any, edge_attr: Tensor | None, num_keys: int, num_queries: int, size: Any = None
    ) -> tuple[Any, Edges]:
        """What PyG would send messages along, and the same for the kernel."""
        bias = None
        if self.add_self_loops:
            edge_index, edge_attr = own_pairs(edge_index, edge_attr)
            num_nodes = min(num_keys, num_queries) if size is None else min(size)
            edge_index, edge_attr, bias = add_loops(edge_index, edge_attr, self.fill_value, num_nodes)
        return edge_index, self._read_edges(edge_index, edge_attr, num_keys, num_queries)._replace(bias=bias)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, edges: Edges, weigh: bool, **terms: Any
    ) -> tuple[Tensor, Tensor | None]:
        """The output of all heads, and the weights after dropout where `weigh` asks for them."""
        if edges.bias is not None:
            terms["bias"] = edges.bias.to(query.dtype)
        dropout = self.dropout if self.training else 0.0
        seed = torch.randint(2**63 - 1, (), device=query.device) if weigh and dropout else None
        out = attend(query, key, value, edges.graph, **terms, dropout=dropout, seed=seed, backend=self.backend)
        if not weigh:
            return out, None
        alpha = attention_weights(query, key, edges.graph, **terms)
        if seed is not None:
            pairs = torch.arange(edges.graph.num_edges, device=alpha.device)
            alpha = alpha * keep_scale(pairs, self.heads, dropout, seed, alpha.dtype)
        return out, alpha

    def _finish(self, out: Tensor, skip: Tensor | None, edge_index: Any, alpha: Tensor | None) -> Any:
        """Heads together, skip connection and bias; with the weights where there are any."""
        out = out.flatten(1) if self.concat else out.mean(dim=1)
        if skip is not None:
            out = out + skip
        if self.bias is not None:
            out = out + self.bias
        if alpha is None:
            return out
        if is_torch_sparse_tensor(edge_index):
            edge_index = set_sparse_value(edge_index, alpha)
        return out, with_weights(edge_index, alpha)

    def _refuse_stack(self, x: Tensor) -> None:
        if x.dim() != 2:
            remedy = "Pass the nodes of one graph; static graphs with many features are not known here."
            refuse(type(self).__name__, "x", "have shape [N, C]", list(x.shape), remedy)
