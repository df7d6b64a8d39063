"""GRIT: full attention whose scores come from a stream of pairs that starts as random walks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, ModuleList, Parameter
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from graphformer.graphs import AttentionGraph, Features
from graphformer.kernels import attend
from graphformer.models.config import GRITConfig
from graphformer.models.heads import Head, Level, members, starts_of, stored
from graphformer.nn.block import make_norm
from graphformer.nn.degree import DegreeScaler
from graphformer.nn.dropout import Dropout
from graphformer.nn.features import EdgeEncoder, NodeEncoder
from graphformer.nn.feed_forward import FeedForward
from graphformer.nn.paths import AddRelativeRandomWalk
from graphformer.patterns import Full

_WHERE = "GRIT"
_LARGEST_SCORE = 5.0


def transform(config: GRITConfig) -> Callable[[Data], Data]:
    """What a sample passes once before training.

    Args:
        config: The model's settings; the same ones build the model.

    Returns:
        A PyG transform: takes a `Data` and returns a copy with `relative_random_walk` (see
        :func:`~graphformer.nn.relative_random_walk`; N^2 times `walk_steps` numbers) and `attention_graph`.

    Example:
        >>> data = Data(x=torch.zeros(2, 1).long(), edge_index=torch.tensor([[0, 1], [1, 0]]))
        >>> transform(GRITConfig(walk_steps=4))(data).relative_random_walk.shape
        torch.Size([4, 4])
    """
    return Compose([AddRelativeRandomWalk(config.walk_steps), Full()])


class GRIT(torch.nn.Module):
    r"""Nodes attend to all nodes of their graph by scores from vectors of the pairs, which these scores change in turn.

    A pair e = (j -> i) starts as a linear map of its random-walk probabilities, plus the embedding of the edge j -> i
    where there is one; a node likewise from those of the pair with itself. With s(z) = sign(z) sqrt|z|, layer by layer
    and head by head,

        a[e]  = relu(s((q[i] + k[j]) * W_w p[e]) + W_b p[e])
        h'[i] = O_h scaler(sum over all j of softmax(w . a[e]) (v[j] + V a[e])),    p'[e] = O_p a[e]

    and residuals and norms; nodes pass a feed-forward part too. The scores w . a are clipped to [-5, 5], as in the
    published code. The scaler, :class:`~graphformer.nn.DegreeScaler`, gives back what a mean forgets, the number of a
    node's edges. The vectors of the pairs, N^2 a graph, are the model's own; weights and sums are the kernel's.

    Args:
        config: The settings.
        features: What nodes and edges carry.
        num_outputs: Number of outputs a graph, node or pair.
        level: What the outputs are of: "graph" (default), "node" or "link".

    Raises:
        InputError: The number of outputs is not positive.

    Example:
        >>> from torch_geometric.data import Batch
        >>> config = GRITConfig(channels=16, layers=2)
        >>> data = Data(x=torch.zeros(2, 1).long(), edge_index=torch.tensor([[0, 1], [1, 0]]))
        >>> GRIT(config, Features((2,)), num_outputs=1)(Batch.from_data_list([transform(config)(data)] * 3)).shape
        torch.Size([3, 1])

    References:
        Ma et al., "Graph inductive biases in transformers without message passing", 2023.
    """

    def __init__(self, config: GRITConfig, features: Features, num_outputs: int, level: Level = "graph") -> None:
        super().__init__()
        self.config, self.features = config, features
        channels = config.channels
        self.nodes = NodeEncoder(features, channels)
        self.edges = EdgeEncoder(features, channels) if features.edge_width else None
        self.lin_node_walk = Linear(config.walk_steps, channels, bias=False)
        self.lin_pair_walk = Linear(config.walk_steps, channels, bias=False)
        # Nothing reads the pairs after the last layer.
        self.layers = ModuleList(_Layer(config, number < config.layers - 1) for number in range(config.layers))
        self.head = Head(
            level,
            channels,
            num_outputs,
            (channels // 2, channels // 4),
            pooling=config.pooling,
            graph_channels=features.graph_channels,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        part: Any
        for part in (self.nodes, self.edges, *self.layers, self.head):
            if part is not None:
                part.reset_parameters()
        for part in (self.lin_node_walk, self.lin_pair_walk):
            torch.nn.init.xavier_uniform_(part.weight)

    def forward(self, batch: Data) -> Tensor:
        """Read off the outputs.

        Args:
            batch: A PyG batch (or one `Data`) of samples that passed :func:`transform`, with what
                :class:`~graphformer.graphs.Features` and :class:`~graphformer.models.heads.Head` say.

        Returns:
            Shape `[B, num_outputs]` for graphs, `[T, num_outputs]` for nodes, `[P, num_outputs]` for pairs; floating.

        Raises:
            InputError: Something that the settings ask for is missing, or a category is out of range.
        """
        graph = stored(batch, "attention_graph", _WHERE)
        x, pairs = self._embed(batch, graph)
        degree = batch.edge_index[0].bincount(minlength=x.shape[0])
        for layer in self.layers:
            x, pairs = layer(x, pairs, degree, graph)
        return self.head(x, batch)

    def _embed(self, batch: Data, graph: AttentionGraph) -> tuple[Tensor, Tensor]:
        """Nodes `[N, C]` and pairs `[P, C]`."""
        walk = stored(batch, "relative_random_walk", _WHERE).to(self.lin_pair_walk.weight.dtype)
        member, num_graphs = members(batch)
        # Where the row of each query would begin if the first node of all graphs were its first key.
        row = graph.query_side.ptr[:-1] - starts_of(member, num_graphs)[member]
        itself = row + torch.arange(row.shape[0], device=row.device)
        x = self.nodes(batch) + self.lin_node_walk(walk[itself])
        pairs = self.lin_pair_walk(walk)
        if self.edges is not None:
            source, target = batch.edge_index
            pairs = pairs.index_add(0, row[target] + source, self.edges(batch).to(pairs.dtype))
        return x, pairs


class _Layer(torch.nn.Module):
    """Attention by pairs, and what follows for nodes and pairs."""

    def __init__(self, config: GRITConfig, updates_pairs: bool) -> None:
        super().__init__()
        channels, heads = config.channels, config.heads
        width = channels // heads
        self.attention_dropout = config.attention_dropout
        self.lin_query = Linear(channels, channels)
        self.lin_key = Linear(channels, channels, bias=False)
        self.lin_value = Linear(channels, channels, bias=False)
        self.lin_pair = Linear(channels, 2 * channels)  # factors, then summands
        self.score_weight = Parameter(torch.empty(heads, width))
        self.pair_value = Parameter(torch.empty(heads, width, width))
        self.scaler = DegreeScaler(channels)
        self.lin_out = Linear(channels, channels)
        self.norm = make_norm(config.norm, channels)
        self.feed_forward = FeedForward(channels, config.feed_forward * channels, dropout=config.dropout)
        self.feed_forward_norm = make_norm(config.norm, channels)
        self.lin_pair_out = Linear(channels, channels) if updates_pairs else None
        self.pair_norm = make_norm(config.norm, channels) if updates_pairs else None
        self.dropout = Dropout(config.dropout)

    def reset_parameters(self) -> None:
        part: Any
        for part in self.children():
            if not isinstance(part, Dropout):
                part.reset_parameters()
        for part in (self.lin_query, self.lin_key, self.lin_value, self.lin_pair):
            torch.nn.init.xavier_normal_(part.weight)
        heads, width = self.score_weight.shape
        torch.nn.init.normal_(self.score_weight, std=(2 / (heads + width)) ** 0.5)  # spreads of the published code
        torch.nn.init.normal_(self.pair_value, std=(2 / (heads * width + width * width)) ** 0.5)

    def forward(self, x: Tensor, pairs: Tensor, degree: Tensor, graph: AttentionGraph) -> tuple[Tensor, Tensor]:
        source, target = graph.edge_index
        factor, summand = self.lin_pair(pairs).chunk(2, dim=1)
        both = self.lin_query(x).index_select(0, target) + self.lin_key(x).index_select(0, source)
        active = (_SignedSqrt.apply(both * factor) + summand).relu()
        found = self._attend(self.lin_value(x), active, graph)
        x = self.norm(x + self.lin_out(self.scaler(self.dropout(found), degree)))
        x = self.feed_forward_norm(x + self.feed_forward(x))
        if self.lin_pair_out is None or self.pair_norm is None:
            return x, pairs
        return x, self.pair_norm(pairs + self.lin_pair_out(self.dropout(active)))

    def _attend(self, value: Tensor, active: Tensor, graph: AttentionGraph) -> Tensor:
        heads, width = self.score_weight.shape
        # A head reads its own part of the pair: blocks along the diagonal of one map of all parts.
        own = torch.eye(heads, dtype=value.dtype, device=value.device)
        to_score = torch.einsum("gh,gi->gih", own, self.score_weight).flatten(0, 1)
        to_value = torch.einsum("gh,gij->gihj", own, self.pair_value).flatten(0, 1)
        score = (active @ to_score).clamp(-_LARGEST_SCORE, _LARGEST_SCORE)
        nothing = value.new_zeros(value.shape[0], heads, 1)  # the bias says all there is of the score
        dropout = self.attention_dropout if self.training else 0.0
        terms: dict[str, Any] = {"bias": score, "edge_attr": active, "edge_value": to_value, "dropout": dropout}
        return attend(nothing, nothing, value.view(-1, heads, width), graph, **terms).flatten(1)


class _SignedSqrt(torch.autograd.Function):
    """sign(x) sqrt|x|, with gradient 0 at 0, where its slope has no bound."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = x.abs().sqrt_()
        ctx.save_for_backward(root)
        return root.copysign(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        return (0.5 * grad / root).masked_fill(root == 0, 0.0)
