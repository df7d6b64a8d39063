"""Reading outputs off node vectors: of a whole graph, of nodes, of pairs of nodes."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Linear, Module, ReLU, Sequential
from torch.nn.functional import pad
from torch_geometric.utils import scatter

from graphformer._checks import refuse, require, require_choice, require_count
from graphformer.nn.dropout import Dropout
from graphformer.nn.features import GraphEncoder

LEVELS = ("graph", "node", "link")
_PAIRS_AT_ONCE = 2**20  # without gradients: the official negatives of a test split may be tens of millions
Level = Literal["graph", "node", "link"]


class Head(Module):
    """A perceptron over pooled graphs, over nodes, or over the product of the two nodes of a pair.

    Args:
        level: "graph", "node" or "link".
        channels: Width of the node vectors.
        num_outputs: Outputs a graph, node or pair.
        hidden: Widths of the hidden layers. Default: one as wide as the nodes.
        dropout: After each hidden layer in training.
        pooling: "sum", "mean" or "max" of the nodes of a graph; read at level "graph" only.
        graph_channels: Numbers a graph that are read beside its pooled nodes (level "graph"). Default 0.

    Raises:
        InputError: An unknown level or pooling, a count that is not positive, or numbers a graph at another level.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> Head("link", 8, 1)(torch.zeros(3, 8), Data(pair_index=torch.tensor([[0, 1], [2, 2]]))).shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        level: Level,
        channels: int,
        num_outputs: int,
        hidden: tuple[int, ...] | None = None,
        dropout: float = 0.0,
        pooling: Literal["sum", "mean", "max"] = "mean",
        graph_channels: int = 0,
    ) -> None:
        super().__init__()
        require_choice(level, LEVELS, "Head", "level")
        require_choice(pooling, ("sum", "mean", "max"), "Head", "pooling")
        require_count(num_outputs, "Head", "num_outputs", "Give the number of outputs.")
        fits, remedy = level == "graph" or not graph_channels, "Give them to the nodes, as more columns of x."
        require(fits, "Head", "graph_channels", f"be 0 at level {level!r}", graph_channels, remedy)
        self.level, self.pooling = level, pooling
        self.whole = GraphEncoder(graph_channels, max(channels // 4, 1), dropout) if graph_channels else None
        read = channels if self.whole is None else channels + self.whole.channels
        widths = [read, *((channels,) if hidden is None else hidden)]
        steps: list[Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            steps += [Linear(before, after), ReLU(), Dropout(dropout)]
        self.lin = Sequential(*steps, Linear(widths[-1], num_outputs))

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        for part in self.lin:
            if isinstance(part, Linear):
                part.reset_parameters()
        if self.whole is not None:
            self.whole.reset_parameters()

    def forward(self, x: Tensor, batch: Any) -> Tensor:
        """Read off the outputs.

        Args:
            x: Node vectors. Shape `[N, channels]`.
            batch: The PyG batch: its `batch` says which graph a node is of and its `graph_attr` [B, graph_channels]
                what graphs carry (level "graph"), its `target_index` [T] which nodes are asked for (level "node";
                without it, all), its `pair_index` [2, P] which pairs.

        Returns:
            Shape `[B, num_outputs]`, `[T, num_outputs]` or `[P, num_outputs]`.

        Raises:
            InputError: A batch without pair_index at level "link", or without the graphs' numbers.
        """
        if self.level == "graph":
            return self.read_graphs(pool(x, batch, self.pooling), batch)
        if self.level == "node":
            return self.lin(asked_nodes(x, batch))
        pairs = getattr(batch, "pair_index", None)
        if pairs is None:
            refuse("Head", "batch", "carry pair_index at level 'link'", None, "Give the pairs of nodes to judge.")
        if torch.is_grad_enabled():
            return self._judge(x, pairs)
        return torch.cat([self._judge(x, part) for part in pairs.split(_PAIRS_AT_ONCE, dim=1)])

    def read_graphs(self, x: Tensor, batch: Any) -> Tensor:
        """Read off the outputs of graphs `[B, num_outputs]` from a vector of each, `x` [B, channels]."""
        return self.lin(x if self.whole is None else torch.cat((x, self.whole(batch).to(x.dtype)), dim=1))

    def _judge(self, x: Tensor, pairs: Tensor) -> Tensor:
        source, target = pairs
        return self.lin(x[source] * x[target])


def asked_nodes(x: Tensor, batch: Any) -> Tensor:
    """The rows `[T, C]` of the nodes that a batch asks for by `target_index` [T], of `[N, C]`; without it, all.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> asked_nodes(torch.tensor([[1.0], [2.0]]), Data(target_index=torch.tensor([1])))
        tensor([[2.]])
    """
    target = getattr(batch, "target_index", None)
    return x if target is None else x[target]


def require_edges(batch: Any, where: str) -> Tensor:
    """The edges of a batch, refused where there are none to read.

    Raises:
        InputError: A batch without edge_index.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> require_edges(Data(edge_index=torch.empty(2, 0).long()), "GPS").shape
        torch.Size([2, 0])
    """
    edge_index = getattr(batch, "edge_index", None)
    if edge_index is None:
        refuse(where, "batch", "carry edge_index", None, "Give edges; torch.empty(2, 0).long() where there are none.")
    return edge_index


def stored(batch: Any, name: str, where: str) -> Any:
    """What the transform of a model stored on its samples.

    Raises:
        InputError: It is not there, or there are no edges.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> stored(Data(x=torch.zeros(2, 1), edge_index=torch.empty(2, 0).long()), "random_walk", "GRIT")
        Traceback (most recent call last):
        ...
        graphformer._errors.InputError: GRIT: batch must carry random_walk; got none. Pass each sample through ...
    """
    require_edges(batch, where)
    if name not in batch:
        refuse(where, "batch", f"carry {name}", "none", "Pass each sample through transform(config) first.")
    return getattr(batch, name)


def members(batch: Any) -> tuple[Tensor, int]:
    """The graph of each node `[N]`, and the number of graphs; one `Data` is one graph.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> members(Data(edge_index=torch.empty(2, 0).long(), num_nodes=3))
        (tensor([0, 0, 0]), 1)
    """
    if getattr(batch, "batch", None) is None:
        return batch.edge_index.new_zeros(batch.num_nodes), 1
    return batch.batch, batch.num_graphs


def starts_of(member: Tensor, num_graphs: int) -> Tensor:
    """Where each graph begins, and where the last one ends, among things that come graph by graph.

    Args:
        member: The graph of each thing, never falling. Shape `[N]`, int64.
        num_graphs: Number of graphs B.

    Returns:
        Shape `[B + 1]`, int64.

    Example:
        >>> import torch
        >>> starts_of(torch.tensor([0, 0, 2]), num_graphs=3)
        tensor([0, 2, 2, 3])
    """
    return pad(member.bincount(minlength=num_graphs).cumsum(0), (1, 0))


def pool(x: Tensor, batch: Any, how: str) -> Tensor:
    """The sum, mean or max of the nodes of each graph. Shape `[B, C]`; a graph without nodes gives zeros.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> pool(torch.tensor([[1.0], [3.0]]), Data(edge_index=torch.empty(2, 0).long(), num_nodes=2), "mean")
        tensor([[2.]])
    """
    member, num_graphs = members(batch)
    return scatter(x, member, dim_size=num_graphs, reduce=how)
