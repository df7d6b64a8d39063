"""Exphormer: edges, an expander and virtual nodes in one sparse attention graph, beside a convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Linear, ModuleList, Parameter
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from graphformer.graphs import AttentionGraph, Features
from graphformer.kernels import attend
from graphformer.models.config import ExphormerConfig
from graphformer.models.config.shared import head_widths
from graphformer.models.embedding import JoinedEmbedding, encodings_of
from graphformer.models.gps import local_conv
from graphformer.models.heads import Head, Level, members, stored
from graphformer.nn.features import EdgeEncoder
from graphformer.nn.local_global import LocalGlobalLayer
from graphformer.patterns import Edges, Expander

_WHERE = "Exphormer"


def transform(config: ExphormerConfig) -> Callable[[Data], Data]:
    """What a sample passes once before training: its encodings, its edges and its expander are stored on it.

    Args:
        config: The model's settings; the same ones build the model.

    Returns:
        A PyG transform: takes a `Data` and returns a copy with `random_walk`, `laplacian_eigenvectors` and
        `laplacian_eigenvalues` (where the settings ask for them) and `attention_graph`.

    Example:
        >>> data = Data(x=torch.zeros(2, 1).long(), edge_index=torch.tensor([[0, 1], [1, 0]]))
        >>> transform(ExphormerConfig())(data).attention_graph  # the two edges, and the same two as an expander
        AttentionGraph(2 nodes, 4 edges, density 100.0%, 2 duplicates, 0 empty rows)
    """
    edges = Edges()
    return Compose([*encodings_of(config), edges + Expander(config.expander) if config.expander else edges])


class Exphormer(torch.nn.Module):
    r"""Attention along edges, expander and virtual nodes, beside a convolution along the edges.

    Every layer is that of :class:`~graphformer.models.GPS` with sparse attention. For a pair j -> i with vector e,

        score = q[i] . (k[j] * W e) / sqrt(D),    heard[i] = sum softmax(score) v[j],    head by head.

    The vector of an edge is its features' embedding; all pairs of the expander have one learned vector, and those to
    and from each virtual node one each. A virtual node starts as a learned vector and becomes what it heard. A node
    pair that is both an edge and in the expander counts twice, as published.

    This is the formula of the paper. The published code clamps the score to [-5, 5], does not subtract the largest
    score of a row before exp, and adds 1e-6 to the divisor; where no score leaves that interval, the two differ by
    1e-6 relative to a divisor that is at least exp(-5). An expander here is exactly regular and without repeated edges
    (:class:`~graphformer.patterns.Expander`), and graphs of up to twice its degree are seen as a whole. Further
    differences, to :class:`~graphformer.models.GPS` too: the last "gatedgcn" has no norm of edges, and Laplacian
    eigenvectors are those of the normalised Laplacian.

    The kernel's score is linear in keys. So every edge becomes a key of its own, k[j] * W e; every node becomes one as
    the expander sees it; and where a key stands in pairs to one virtual node only, that factor goes to the query. One
    call of the kernel does each layer's attention, in memory O(N + E) with E the edges without the expander's.

    Args:
        config: The settings.
        features: What nodes and edges carry; edges that carry nothing are one learned vector.
        num_outputs: Number of outputs a graph, node or pair.
        level: What the outputs are of: "graph" (default), "node" or "link".

    Raises:
        InputError: The number of outputs is not positive, or there is no such convolution.

    Example:
        >>> from torch_geometric.data import Batch
        >>> config = ExphormerConfig(channels=32, layers=2)
        >>> both_ways = torch.tensor([[0, 1], [1, 0]])
        >>> data = Data(x=torch.tensor([[0, 2], [1, 0]]), edge_index=both_ways, edge_attr=torch.tensor([[3], [3]]))
        >>> batch = Batch.from_data_list([transform(config)(data)] * 3)
        >>> Exphormer(config, Features(node_categories=(2, 3), edge_categories=(4,)), num_outputs=1)(batch).shape
        torch.Size([3, 1])

    References:
        Shirzad et al., "Exphormer: sparse transformers for graphs", 2023.
    """

    def __init__(self, config: ExphormerConfig, features: Features, num_outputs: int, level: Level = "graph") -> None:
        super().__init__()
        self.config, self.features = config, features
        channels, virtual = config.channels, config.virtual_nodes
        self.nodes = JoinedEmbedding(config, features, _WHERE)
        self.edges = EdgeEncoder(features, channels)
        self.expander = Parameter(torch.empty(1, channels)) if config.expander else None
        self.virtual = Parameter(torch.empty(virtual, channels)) if virtual else None
        self.from_virtual = Parameter(torch.empty(virtual, channels)) if virtual else None
        self.to_virtual = Parameter(torch.empty(virtual, channels)) if virtual else None
        self.attentions: Any = ModuleList(_Attention(channels, config.heads) for _ in range(config.layers))
        self.layers: Any = ModuleList(
            LocalGlobalLayer(channels, local_conv(config, number), config.dropout) for number in range(config.layers)
        )
        self.head = Head(
            level,
            channels,
            num_outputs,
            hidden=head_widths(config),
            pooling=config.pooling,
            graph_channels=features.graph_channels,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        for part in (self.nodes, self.edges, *self.attentions, *self.layers, self.head):
            part.reset_parameters()
        for vectors in (self.expander, self.virtual, self.from_virtual, self.to_virtual):
            if vectors is not None:
                torch.nn.init.normal_(vectors)

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
        edge_index: Any = batch.edge_index
        member, num_graphs = members(batch)
        x = self.nodes(batch)
        pairs = edges = self.edges(batch)
        virtual = None if self.virtual is None else self.virtual.repeat(num_graphs, 1)
        joint = _join(graph, edge_index, member, num_graphs, self.config)
        of_pairs = _Vectors(pairs, self.expander, self.from_virtual, self.to_virtual)
        for attention, layer in zip(self.attentions, self.layers, strict=True):
            heard, virtual = attention(x, virtual, joint, of_pairs)
            x, edges = layer(x, edge_index, edges, heard=heard)
        return self.head(x, batch)

    def key_nodes(self, batch: Data) -> Tensor:
        """The node that each key of the attention stands for: an edge for its source; virtual nodes follow the nodes.

        Args:
            batch: As :meth:`forward` takes it.

        Returns:
            Shape `[keys]`, int64.
        """
        edge_index: Any = batch.edge_index
        num_nodes: Any = batch.num_nodes
        nodes = torch.arange(num_nodes + self.config.virtual_nodes * members(batch)[1], device=edge_index.device)
        keys = [edge_index[0]]
        if self.config.expander:
            keys.append(nodes[:num_nodes])
        if self.config.virtual_nodes:
            keys.append(nodes)
        return torch.cat(keys)


class _Vectors(NamedTuple):
    """The vectors of the pairs: one an edge, one for the expander, one for each virtual node and direction."""

    edges: Tensor
    expander: Tensor | None
    from_virtual: Tensor | None
    to_virtual: Tensor | None


class _Joint(NamedTuple):
    """The attention graph of a batch. Keys are edges, then nodes of the expander, nodes, and virtual nodes."""

    graph: AttentionGraph
    source: Tensor  # [E], the node at the start of each edge
    num_graphs: int


def _join(graph: AttentionGraph, edge_index: Tensor, member: Tensor, num_graphs: int, config: Any) -> _Joint:
    num_nodes, num_edges = graph.num_queries, edge_index.shape[1]
    key, query = graph.edge_index
    own_edge = graph.own_edge
    assert own_edge is not None  # the pattern has Edges
    keys, queries = [torch.where(own_edge >= 0, own_edge, key + num_edges)], [query]
    num_keys = num_edges + (num_nodes if config.expander else 0)
    num_virtual = config.virtual_nodes * num_graphs
    if num_virtual:
        node = torch.arange(num_nodes, device=member.device).repeat_interleave(config.virtual_nodes)
        first = (member * config.virtual_nodes).unsqueeze(1)
        hub = (first + torch.arange(config.virtual_nodes, device=member.device)).flatten()
        keys += [num_keys + node, num_keys + num_nodes + hub]
        queries += [num_nodes + hub, node]
        num_keys += num_nodes + num_virtual
    pairs = torch.stack((torch.cat(keys), torch.cat(queries)))
    joined = AttentionGraph.from_edge_index(pairs, size=(num_keys, num_nodes + num_virtual))
    return _Joint(joined, edge_index[0], num_graphs)


class _Attention(torch.nn.Module):
    """The attention of :class:`Exphormer`; without a map behind it, as published."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.lin_query, self.lin_key, self.lin_value, self.lin_edge = (
            Linear(channels, channels, bias=False) for _ in range(4)
        )

    def reset_parameters(self) -> None:
        for part in (self.lin_query, self.lin_key, self.lin_value, self.lin_edge):
            part.reset_parameters()

    def forward(
        self, x: Tensor, virtual: Tensor | None, joint: _Joint, vectors: _Vectors
    ) -> tuple[Tensor, Tensor | None]:
        """What nodes `[N, C]` and virtual nodes `[B * V, C]` hear."""
        num_nodes = x.shape[0]
        every = x if virtual is None else torch.cat((x, virtual))
        query, key, value = self.lin_query(every), self.lin_key(every), self.lin_value(every)
        keys = [key[joint.source] * self.lin_edge(vectors.edges)]
        values = [value[joint.source]]
        if vectors.expander is not None:
            keys.append(key[:num_nodes] * self.lin_edge(vectors.expander))
            values.append(value[:num_nodes])
        if vectors.from_virtual is not None and vectors.to_virtual is not None:
            leaving = self.lin_edge(vectors.from_virtual).repeat(joint.num_graphs, 1)
            arriving = self.lin_edge(vectors.to_virtual).repeat(joint.num_graphs, 1)
            keys += [key[:num_nodes], key[num_nodes:] * leaving]
            values.append(value)
            query = torch.cat((query[:num_nodes], query[num_nodes:] * arriving))
        split = (self.heads, x.shape[1] // self.heads)
        out = attend(
            query.unflatten(1, split),
            torch.cat(keys).unflatten(1, split),
            torch.cat(values).unflatten(1, split),
            joint.graph,
        ).flatten(1)
        return out[:num_nodes], None if virtual is None else out[num_nodes:]
