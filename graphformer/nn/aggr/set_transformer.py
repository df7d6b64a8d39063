"""PyG's SetTransformerAggregation: full attention inside ragged sets, without padding."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.experimental import disable_dynamic_shapes
from torch_geometric.nn import aggr
from torch_geometric.nn.aggr.utils import MultiheadAttentionBlock
from torch_geometric.utils import degree

from graphformer.graphs import AttentionGraph
from graphformer.graphs.layout import offsets
from graphformer.nn.conv.cache import cached
from graphformer.nn.multihead_attention import attend_with
from graphformer.nn.scripting import plain_twin
from graphformer.patterns import Full
from graphformer.patterns.node_sets import NodeSets

# The kernel's calls cost about what PyG spends on so many numbers of padding; without any, the two are even from about
# so many numbers in the batch on.
_PADDING, _BATCH = 2**15, 2**18


class SetTransformerAggregation(aggr.SetTransformerAggregation):
    r"""Each set through a Set Transformer: attention among its members, seeds that pool them, attention among seeds.

        MAB(x, y) = norm(h + relu(W h)),  h = norm(x + multihead(x, y, y))
        out[b]    = concat or mean over the seeds of  decoders(MAB(seeds, relu(W encoders(x of set b))))

    Constructor, parameters, `state_dict` and repr are PyG's, and so are the numbers; see
    :class:`torch_geometric.nn.aggr.SetTransformerAggregation`, Lee et al., "Set Transformer" (ICML 2019, arXiv
    1810.00825) and Buterez et al., "Graph Neural Networks with Adaptive Readouts" (NeurIPS 2022, arXiv 2211.04952).

    Members stay a ragged batch: work and memory follow the members that there are, where PyG pads every set to the
    largest. The decoder's sets are the seeds, all of one size, and go through PyG's dense blocks. Hooks on the modules
    inside encoders and pooling are not called. PyG's own forward runs off the CPU, and for small batches with little
    padding, which it does faster.

    Args:
        channels: Width C of the members.
        num_seed_points: Number of seeds S.
        num_encoder_blocks: Attention blocks among the members, 0 or more.
        num_decoder_blocks: Attention blocks among the seeds, 0 or more.
        heads: Heads of each block; a divisor of `channels`.
        concat: Whether a set's seeds are concatenated, or averaged.
        layer_norm: Whether blocks normalise.
        dropout: Probability that an attention weight is dropped in training.

    Example:
        >>> readout = SetTransformerAggregation(8, num_seed_points=2, heads=4)
        >>> readout(torch.randn(5, 8), torch.tensor([0, 0, 2, 2, 2])).shape
        torch.Size([3, 16])
        >>> readout
        SetTransformerAggregation(8, num_seed_points=2, heads=4, layer_norm=False, dropout=0.0)
    """

    @disable_dynamic_shapes(required_args=["dim_size", "max_num_elements"])
    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        max_num_elements: int | None = None,
    ) -> Tensor:
        """Aggregate the members of each set.

        Args:
            x: Members, shape `[n, C]`, of the weights' dtype.
            index: The set of each member, ascending. Shape `[n]`, int64.
            ptr: Not read: as in PyG, `index` is needed.
            dim_size: Number of sets B. Default: largest index + 1.
            dim: The axis of the members, the first one.
            max_num_elements: Members of a set beyond this many are left out. Default: none is.

        Returns:
            Shape `[B, S * C]`, or `[B, C]` where `concat` is False. A set without members gets what its seeds become
            where nothing answers them (the bias of the attention's last map); NaN becomes 0.

        Raises:
            NotImplementedError: No `index`.
            ValueError: `index` is not sorted or not below `dim_size`, or `x` is no matrix.
        """
        if index is None or x.dim() != 2 or x.device.type != "cpu" or torch.jit.is_tracing():
            return super().forward(x, index, ptr, dim_size, dim, max_num_elements)
        counts = degree(index, dim_size, torch.int64)
        longest = int(counts.max()) if max_num_elements is None else max_num_elements
        batch = counts.shape[0] * longest * self.channels
        if batch < _BATCH and batch - x.numel() < _PADDING:
            return super().forward(x, index, ptr, dim_size, dim, max_num_elements)
        self.assert_sorted_index(index)
        self.assert_two_dimensional_input(x, dim)
        lengths = counts.clamp(max=longest)
        if max_num_elements is not None:
            place = torch.arange(x.shape[0], device=x.device) - offsets(counts)[index]
            x = x[place < max_num_elements]
        among_members, to_seeds = cached(
            index,
            ("sets", dim_size, max_num_elements, self.num_seed_points),
            lambda: _make_graphs(lengths, self.num_seed_points),
        )
        for encoder in self.encoders:
            x = _attend(encoder.mab, x, x, among_members)
        seeds = self.pma.seed.expand(lengths.shape[0], -1, -1)
        x = _attend(self.pma.mab, seeds.flatten(0, 1), self.pma.lin(x).relu(), to_seeds).view_as(seeds)
        for decoder in self.decoders:
            x = decoder(x)
        x = x.nan_to_num()
        return x.flatten(1) if self.concat else x.mean(dim=1)

    def __prepare_scriptable__(self) -> aggr.SetTransformerAggregation:
        return plain_twin(self, aggr.SetTransformerAggregation)


@torch.compiler.disable  # their sizes depend on data: one break instead of many
def _make_graphs(lengths: Tensor, num_seeds: int) -> tuple[AttentionGraph, AttentionGraph]:
    """Full attention in sets of these lengths, among the members and from the members to the seeds."""
    member_ptr = offsets(lengths)
    seed_ptr = torch.arange(member_ptr.shape[0], device=lengths.device) * num_seeds
    members = NodeSets(member_ptr, member_ptr, False, {}, "SetTransformerAggregation")
    seeds = NodeSets(member_ptr, seed_ptr, True, {}, "SetTransformerAggregation")
    return Full().on(members), Full().on(seeds)


def _attend(block: MultiheadAttentionBlock, x: Tensor, y: Tensor, graph: AttentionGraph) -> Tensor:
    """PyG's attention block on node rows: x `[N, C]` attends to y `[M, C]`."""
    out = x + attend_with(block.attn, x, y, y, graph)
    out = out if block.layer_norm1 is None else block.layer_norm1(out)
    out = out + block.lin(out).relu()
    return out if block.layer_norm2 is None else block.layer_norm2(out)
