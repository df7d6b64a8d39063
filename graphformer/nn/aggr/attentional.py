"""PyG's AttentionalAggregation: a gated sum over each set, as one call of the kernel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.nn import aggr

from graphformer._errors import InputError
from graphformer.graphs import AttentionGraph
from graphformer.graphs.layout import expand_rows
from graphformer.kernels import attend
from graphformer.nn.conv.cache import cached
from graphformer.nn.scripting import plain_twin

# From here on the kernel is faster than PyG's chain of operators, whose results, up to ten of this size, are above what
# the allocator keeps: they go back to the system, and come page by page. Below, they stay in caches.
_LEAST_BYTES = 2**25


class AttentionalAggregation(aggr.AttentionalAggregation):
    r"""The members of each set weighted by a softmax over their gates and summed; PyG's layer of this name.

        out[b] = sum over the members n of set b of  softmax over the set (gate(x[n])) * nn(x[n])

    A gate of one channel weighs whole members, a gate of C channels each channel by itself. Constructor, parameters,
    `state_dict` and repr are PyG's, and so are the numbers; see :class:`torch_geometric.nn.aggr.AttentionalAggregation`
    and Li et al., "Graph Matching Networks" (ICML 2019, arXiv 1904.12787).

    A set is a query whose keys are its members and whose score is the gate, so that one fused call gives the result and
    no tensor of the members' size is made beside it. It runs for matrices on the CPU of 32 MiB or more; PyG's own
    forward, which is faster on smaller ones, does the rest: other devices and inputs with more axes too.

    Args:
        gate_nn: Maps members `[n, C_in]` to gates `[n, 1]` or `[n, C_out]`; a PyG `MLP` is also given the batch vector.
        nn: Maps members `[n, C_in]` to values `[n, C_out]`, likewise. Default None: the members themselves.

    Example:
        >>> readout = AttentionalAggregation(gate_nn=torch.nn.Linear(4, 1))
        >>> readout(torch.randn(5, 4), torch.tensor([0, 0, 2, 2, 2])).shape
        torch.Size([3, 4])
        >>> readout
        AttentionalAggregation(gate_nn=Linear(in_features=4, out_features=1, bias=True), nn=None)
    """

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        """Aggregate the members of each set.

        Args:
            x: Members, shape `[n, C_in]`, floating; with more axes, the sets lie along `dim`.
            index: The set of each member, in any order. Shape `[n]`, int64. Give this or `ptr`.
            ptr: Offsets of the sets in sorted members. Shape `[B + 1]`, int64.
            dim_size: Number of sets B. Default: what `ptr` tells, or largest index + 1.
            dim: The axis of the members.

        Returns:
            Shape `[B, C_out]`; a set without members gets zeros.

        Raises:
            ValueError: `dim_size` does not fit the sets, or `dim` the axes of `x`.
        """
        if dim_size is None or (index is None and ptr is None) or not _is_for_the_kernel(x, dim):
            return super().forward(x, index, ptr, dim_size, dim)
        gate = self.gate_nn(x) if self.gate_mlp is None else self.gate_mlp(x, batch=index, batch_size=dim_size)
        if self.mlp is not None:
            x = self.mlp(x, batch=index, batch_size=dim_size)
        elif self.nn is not None:
            x = self.nn(x)
        if index is None:
            index = expand_rows(ptr, x.shape[0])  # type: ignore[arg-type]  # one of the two is given
        return _gated_sum(gate, x, index, dim_size)

    def __prepare_scriptable__(self) -> aggr.AttentionalAggregation:
        return plain_twin(self, aggr.AttentionalAggregation)


def _is_for_the_kernel(x: Tensor, dim: int) -> bool:
    is_large = x.numel() * x.element_size() >= _LEAST_BYTES
    return is_large and x.dim() == 2 and dim in (-2, 0) and x.device.type == "cpu" and not torch.jit.is_tracing()


def _gated_sum(gate: Tensor, value: Tensor, index: Tensor, num_sets: int) -> Tensor:
    """Each set's sum of its members' values `[n, C]`, weighted by the softmax of their gates `[n, 1]` or `[n, C]`."""
    # One head for all channels, or one of width 1 for each.
    num_members, num_heads = gate.shape
    heads = value.unsqueeze(1) if num_heads == 1 else value.expand(num_members, num_heads).unsqueeze(2)
    dtype = torch.promote_types(gate.dtype, value.dtype)
    graph = cached(index, ("members", num_sets), lambda: _members_of_sets(index, num_sets))
    query = gate.new_ones(num_sets, num_heads, 1, dtype=dtype)
    with torch.autocast(value.device.type, enabled=False):  # PyG's product has the dtype of its factors there too
        out = attend(query, gate.to(dtype).unsqueeze(2), heads.to(dtype), graph, scale=1.0)
    return out.flatten(1)


def _members_of_sets(index: Tensor, num_sets: int) -> AttentionGraph:
    num_members = index.shape[0]
    pairs = torch.stack((torch.arange(num_members, device=index.device), index))
    try:
        return AttentionGraph.from_edge_index(pairs, size=(num_members, num_sets))
    except InputError as error:
        raise IndexError(str(error)) from error  # which PyG's __call__ turns into its words on dim_size
