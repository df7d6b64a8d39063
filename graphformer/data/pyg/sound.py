"""One look at graphs that come from files, before they are kept."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch_geometric.data import Data

from graphformer.data.task import Level
from graphformer.graphs.features import Features


def require_sound(
    graphs: Sequence[Data], features: Features, level: Level, num_labels: int, num_classes: int = 0
) -> None:
    """See that the tensors of each graph fit each other and what the data set says of itself.

    Args:
        graphs: What was read.
        features: What nodes and edges carry: categories or numbers, not both.
        level: "graph": `y` has one row. "node": one a node.
        num_labels: Columns of `y`.
        num_classes: Labels are classes below this number. 0 (default): they are numbers.

    Raises:
        ValueError: They do not, or there is no graph.
    """
    if not graphs:
        raise ValueError("it holds no graph")
    for i, graph in enumerate(graphs):
        num_nodes, (rows, num_edges) = len(graph.x), graph.edge_index.shape
        if rows != 2 or not _below(graph.edge_index, [num_nodes]):
            raise ValueError(f"an edge of graph {i} does not end at one of its {num_nodes} nodes")
        for values, count, categories, channels in (
            (graph.x, num_nodes, features.node_categories, features.node_channels),
            (graph.edge_attr, num_edges, features.edge_categories, features.edge_channels),
        ):
            width = len(categories) or channels
            if tuple(values.shape) != (count, width):
                raise ValueError(f"features of graph {i} have shape {list(values.shape)}, not {[count, width]}")
            if categories and not _below(values, categories):
                raise ValueError(f"a category of graph {i} does not lie below {list(categories)}")
        shape = [num_nodes if level == "node" else 1, num_labels]
        if list(graph.y.shape) != shape:
            raise ValueError(f"labels of graph {i} have shape {list(graph.y.shape)}, not {shape}")
        if num_classes and not _below(graph.y, [num_classes]):
            raise ValueError(f"a label of graph {i} is no class below {num_classes}")


def _below(values: Tensor, bounds: Sequence[int]) -> bool:
    return bool((values >= 0).all() and (values < values.new_tensor(bounds)).all())
