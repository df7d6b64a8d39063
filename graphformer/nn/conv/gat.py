"""What GATConv and GATv2Conv share: self loops, dropout that the weights show, and the way out."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch_geometric.typing import SparseTensor

from graphformer._checks import refuse
from graphformer._errors import UnsupportedError
from graphformer.kernels import attend, attention_weights
from graphformer.kernels.dropout import keep_scale
from graphformer.nn.conv.adjacency import is_sparse, with_weights
from graphformer.nn.conv.fused import Edges, FusedConv
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
        self, edge_index: Any, edge_attr: Tensor | None, num_keys: int, num_queries: int, num_loops: int
    ) -> tuple[Any, Edges]:
        """What PyG would send messages along, and the same for the kernel."""
        edge_index, bias = self._check_edges(edge_index, num_keys, num_queries), None
        if self.add_self_loops:
            self._refuse_features_of_loops(edge_index, edge_attr)
            edge_index, edge_attr = self._own_pairs(edge_index, edge_attr)
            if not is_sparse(edge_index):
                self._check_features(edge_attr, edge_index.shape[1])
            edge_index, edge_attr, bias = add_loops(edge_index, edge_attr, self.fill_value, num_loops, num_queries)
        return edge_index, self._read_edges(edge_index, edge_attr, num_keys, num_queries)._replace(bias=bias)

    def _refuse_features_of_loops(self, edges: Any, attr: Tensor | None) -> None:
        features = self.edge_dim if isinstance(edges, SparseTensor) else attr
        if is_sparse(edges) and features is not None:
            refuse(
                type(self).__name__,
                "edge_attr",
                "not come with a sparse matrix that is given self loops",
                f"edge_dim = {self.edge_dim}",
                "Pass an edge_index [2, E], or construct the layer with add_self_loops=False.",
                UnsupportedError,
            )

    def _split(self, nodes: Tensor, att: Tensor) -> Tensor:
        """Heads apart, and as exact as `att`, by which PyG multiplies them. Shape `[N, H, C]`."""
        return nodes.view(-1, self.heads, self.out_channels).to(torch.promote_types(nodes.dtype, att.dtype))

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, edges: Edges, weigh: bool, **terms: Any
    ) -> tuple[Tensor, Tensor | None]:
        """The output of all heads, and the weights after dropout where `weigh` asks for them."""
        if edges.bias is not None:
            terms["bias"] = edges.bias.to(query.dtype)
        dropout = self.dropout if self.training else 0.0
        seed = torch.randint(2**63 - 1, (), device=query.device) if weigh and dropout else None
        with outside_autocast(query):
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
        return out, with_weights(edge_index, alpha, inside=True)

    def _refuse_stack(self, x: Tensor) -> None:
        if x.dim() != 2:
            remedy = "Pass the nodes of one graph; static graphs with many features are not known here."
            refuse(type(self).__name__, "x", "have shape [N, C]", list(x.shape), remedy)


def outside_autocast(tensor: Tensor) -> Any:
    """Where nothing is cast: PyG's products with `att` are no matrix products, which autocast would round."""
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
