"""What the nodes and edges of a node set, and the set as a whole, carry, as plain counts."""

from __future__ import annotations

from dataclasses import dataclass

from graphformer._checks import require, require_count


@dataclass(frozen=True)
class Features:
    """What the nodes and edges of a data set carry: categories (int64), numbers (floating), or both.

    A node's categories are `x` [N, k] int64. Where there are numbers too, these are `x` [N, node_channels] and the
    categories are `x_category` [N, k]. So it is with `edge_attr` and `edge_category` of the edges. The numbers of a
    graph as a whole are `graph_attr` [1, graph_channels] floating.

    Attributes:
        node_categories: Number of values of each categorical node feature.
        node_channels: Numbers a node.
        edge_categories: Number of values of each categorical edge feature.
        edge_channels: Numbers an edge.
        graph_channels: Numbers a graph.

    Raises:
        InputError: A count is not positive, or the channels are negative.

    Example:
        >>> Features(node_categories=(119, 5), edge_categories=(5,)).edge_width
        5
    """

    node_categories: tuple[int, ...] = ()
    node_channels: int = 0
    edge_categories: tuple[int, ...] = ()
    edge_channels: int = 0
    graph_channels: int = 0

    def __post_init__(self) -> None:
        for name in ("node_categories", "edge_categories"):
            counts = tuple(getattr(self, name))
            object.__setattr__(self, name, counts)  # lists come in from files
            positive = all(count > 0 for count in counts)
            remedy = "Give each feature's number of values."
            require(positive, "Features", name, "hold positive counts", list(counts), remedy)
        for name in ("node_channels", "edge_channels", "graph_channels"):
            require_count(getattr(self, name), "Features", name, "Pass 0 where there are none.", minimum=0)

    @property
    def edge_width(self) -> int:
        """Width of an edge with its categories one-hot: their values, and the numbers. 0: edges carry nothing."""
        return sum(self.edge_categories) + self.edge_channels
