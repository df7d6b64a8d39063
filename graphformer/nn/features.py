"""The embeddings that take what nodes, edges and whole graphs carry to a model's channels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Embedding, Linear, ModuleList

from graphformer._checks import refuse, require
from graphformer.graphs.features import Features
from graphformer.nn.dropout import Dropout

_FAR = 4.0  # standard deviations: a rare count would shout down the rest


class _Encoder(torch.nn.Module):
    """The sum of an embedding of each category and of a linear map of the numbers."""

    def __init__(self, features: Features, categories: Sequence[int], numbers: int, channels: int) -> None:
        super().__init__()
        self.features = features
        self.embeddings: Any = ModuleList(Embedding(count, channels) for count in categories)
        self.lin = Linear(numbers, channels) if numbers else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew, so that the sum of the embeddings has variance 1."""
        for table in self.embeddings:
            torch.nn.init.normal_(table.weight, std=len(self.embeddings) ** -0.5)
        if self.lin is not None:
            self.lin.reset_parameters()

    def _sum(self, columns: Tensor | None, numbers: Tensor | None) -> Tensor:
        parts = []
        if columns is not None:
            parts.append(self._embed(columns))
        if self.lin is not None:
            parts.append(self.lin(numbers))
        return sum(parts[1:], start=parts[0])

    def _embed(self, columns: Tensor) -> Tensor:
        """The sum of the columns' embeddings, on the CPU of distinct rows only: molecules have few kinds of atoms."""
        counts = [table.num_embeddings for table in self.embeddings]
        if columns.device.type != "cpu" or torch.compiler.is_compiling() or math.prod(counts) >= 2**62:
            return _sum_tables(self.embeddings, columns.unbind(1))
        code = columns.new_zeros(columns.shape[0])
        for column, count in zip(columns.unbind(1), counts, strict=True):
            code = code * count + column
        code, place = torch.unique(code, return_inverse=True)
        distinct = []
        for count in reversed(counts):
            distinct.append(code % count)
            code = code // count
        return _sum_tables(self.embeddings, reversed(distinct)).index_select(0, place)


def _sum_tables(tables: Iterable[Any], columns: Iterable[Tensor]) -> Tensor:
    first, *others = (table(column) for table, column in zip(tables, columns, strict=True))
    return sum(others, start=first)


class NodeEncoder(_Encoder):
    """Nodes as vectors: the sum of an embedding of each category and of a linear map of the numbers.

    Args:
        features: What the nodes carry. A node that carries nothing is one learned vector.
        channels: Width of the vectors.

    Example:
        >>> from torch_geometric.data import Data
        >>> encoder = NodeEncoder(Features(node_categories=(5, 3)), channels=8)
        >>> encoder(Data(x=torch.tensor([[4, 0], [1, 2]]))).shape
        torch.Size([2, 8])
    """

    def __init__(self, features: Features, channels: int) -> None:
        nothing = not features.node_categories and not features.node_channels
        categories = (1,) if nothing else features.node_categories
        super().__init__(features, categories, features.node_channels, channels)
        self.carries_nothing = nothing

    def forward(self, batch: Any) -> Tensor:
        """Map a batch's nodes to vectors.

        Args:
            batch: PyG data with `x` (and `x_category`) as :class:`~graphformer.graphs.Features` says.

        Returns:
            Shape `[N, channels]`.

        Raises:
            InputError: Something is missing or has another shape or kind, or a category is out of range.
        """
        if self.carries_nothing:
            return self.embeddings[0].weight.expand(batch.num_nodes, -1)
        return self._sum(*_read(batch, "x", self.features.node_categories, self.features.node_channels))


class EdgeEncoder(_Encoder):
    """Edges as vectors, as :class:`NodeEncoder` makes them of nodes; edges that carry nothing are one learned vector.

    Args:
        features: What the edges carry.
        channels: Width of the vectors.

    Example:
        >>> from torch_geometric.data import Data
        >>> encoder = EdgeEncoder(Features(edge_categories=(5, 3)), channels=8)
        >>> encoder(Data(edge_attr=torch.tensor([[4, 0], [1, 2]]))).shape
        torch.Size([2, 8])
    """

    def __init__(self, features: Features, channels: int) -> None:
        self.carries_nothing = features.edge_width == 0
        categories = (1,) if self.carries_nothing else features.edge_categories
        super().__init__(features, categories, features.edge_channels, channels)

    def forward(self, batch: Any) -> Tensor:
        """Map a batch's edges to vectors; shape `[E, channels]`. Errors as :class:`NodeEncoder`'s."""
        if self.carries_nothing:
            return self.embeddings[0].weight.expand(batch.edge_index.shape[1], -1)
        return self._sum(*_read(batch, "edge_attr", self.features.edge_categories, self.features.edge_channels))


class GraphEncoder(torch.nn.Module):
    """What a graph as a whole carries, as a vector: its numbers brought to one scale, a linear map and a ReLU.

    A number z enters as sign(z) log(1 + |z|), less its mean over the graphs that were seen in training and divided by
    their standard deviation, at most 4 away from 0: weights of hundreds and counts of ones lie side by side. What was
    the same in all of training is 4 away as soon as it differs.

    Args:
        graph_channels: Numbers a graph.
        channels: Width of the vector.
        dropout: Of the numbers in training, in [0, 1).

    Example:
        >>> from torch_geometric.data import Data
        >>> GraphEncoder(2, channels=8)(Data(graph_attr=torch.tensor([[46.07, 1.0]]))).shape
        torch.Size([1, 8])
    """

    seen: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, graph_channels: int, channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.graph_channels, self.channels = graph_channels, channels
        self.dropout = Dropout(dropout)
        self.lin = Linear(graph_channels, channels)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(graph_channels))
        self.register_buffer("variance", torch.ones(graph_channels))

    def reset_parameters(self) -> None:
        """Draw every parameter anew, and forget the graphs that were seen."""
        self.lin.reset_parameters()
        self.seen.zero_()
        self.mean.zero_()
        self.variance.fill_(1.0)

    def forward(self, batch: Any) -> Tensor:
        """Map a batch's graphs to vectors.

        Args:
            batch: PyG data with `graph_attr` [B, graph_channels], floating.

        Returns:
            Shape `[B, channels]`.

        Raises:
            InputError: The numbers are missing or have another shape or kind.
        """
        _, numbers = _read(batch, "graph_attr", (), self.graph_channels)
        assert numbers is not None
        numbers = (numbers.sign() * numbers.abs().log1p()).to(self.mean.dtype)
        if self.training:
            self._see(numbers.detach())
        spread = self.variance.sqrt().clamp(min=1e-3)  # what never differed has none
        numbers = ((numbers - self.mean) / spread).clamp(-_FAR, _FAR)
        return self.lin(self.dropout(numbers)).relu()

    @torch.no_grad()
    def _see(self, numbers: Tensor) -> None:
        """Take a batch, of all processes, into the mean and the variance of all that was seen (Chan et al., 1983)."""
        numbers = numbers.double()  # the variance is a small difference of large sums
        count, total, squares = numbers.shape[0], numbers.sum(0), numbers.square().sum(0)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            sums = torch.cat((numbers.new_tensor([count]), total, squares))
            torch.distributed.all_reduce(sums)
            count, (total, squares) = int(sums[0]), sums[1:].chunk(2)
        if count == 0:
            return
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0.0)
        mean, variance = mean.to(self.mean.dtype), variance.to(self.mean.dtype)
        share = count / (self.seen + count)
        away = mean - self.mean
        self.variance += share * (variance - self.variance + (1 - share) * away.square())
        self.mean += share * away
        self.seen += count


def edge_vectors(batch: Any, features: Features, dtype: torch.dtype = torch.float32) -> Tensor:
    """What the edges carry as plain vectors without weights: categories one-hot, numbers as they are.

    Attention maps such vectors to keys and values itself (`edge_dim = features.edge_width`), so that no edge needs a
    vector of the model's width.

    Args:
        batch: PyG data with `edge_attr` (and `edge_category`) as :class:`Features` says.
        features: What the edges carry.
        dtype: Of the result. Default: float32.

    Returns:
        Shape `[E, features.edge_width]`.

    Raises:
        InputError: Something is missing or has another shape or kind, or a category is out of range.

    Example:
        >>> from torch_geometric.data import Data
        >>> edge_vectors(Data(edge_attr=torch.tensor([[2, 0]])), Features(edge_categories=(3, 2)))
        tensor([[0., 0., 1., 1., 0.]])
    """
    columns, numbers = _read(batch, "edge_attr", features.edge_categories, features.edge_channels)
    parts = []
    if columns is not None:
        pairs = zip(columns.unbind(1), features.edge_categories, strict=True)
        parts = [torch.nn.functional.one_hot(*pair).to(dtype) for pair in pairs]
    if numbers is not None:
        parts.append(numbers.to(dtype))
    return torch.cat(parts, dim=1)


def _read(batch: Any, name: str, categories: Sequence[int], channels: int) -> tuple[Tensor | None, Tensor | None]:
    """The categorical columns and the numbers of a batch's nodes, edges or graphs, checked."""
    numbers, columns = None, None
    if channels:
        numbers = getattr(batch, name, None)
        if numbers is None or numbers.dim() != 2 or numbers.shape[1] != channels:
            _refuse_shape(name, numbers, channels)
        assert numbers is not None
        if not numbers.is_floating_point():
            refuse("model", name, "hold floating-point numbers", numbers.dtype, "Convert it with .float().")
    if categories:
        home = name if not channels else {"x": "x_category", "edge_attr": "edge_category"}[name]
        columns = getattr(batch, home, None)
        _check_categories(home, columns, categories)
    return columns, numbers


def _refuse_shape(name: str, values: Tensor | None, width: int) -> None:
    found = None if values is None else list(values.shape)
    refuse("model", name, f"have shape [*, {width}]", found, "Give one column a feature.")


def _check_categories(name: str, values: Tensor | None, categories: Sequence[int]) -> None:
    if values is None or values.dim() != 2 or values.shape[1] != len(categories):
        _refuse_shape(name, values, len(categories))
    assert values is not None
    if values.dtype != torch.int64:
        refuse("model", name, "hold int64 categories", values.dtype, "Convert it with .long().")
    # A GPU reports a bad id by its own assertion; looking here would make it wait.
    if values.device.type != "cpu" or torch.compiler.is_compiling() or values.shape[0] == 0:
        return
    for column, (low, high, count) in enumerate(zip(values.amin(0), values.amax(0), categories, strict=True)):
        rule = f"lie in [0, {count}) in column {column}"
        require(low >= 0 and high < count, "model", name, rule, f"{low} to {high}", "Correct the number of categories.")
