"""ogbl-*: links that are not in the graph, told from pairs that are none."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from graphformer.data.ogb.measures import links_and_others, links_and_rivals, official_measure
from graphformer.data.ogb.reading import Release, require_ids, require_whole
from graphformer.data.task import Task
from graphformer.graphs.features import Features


def load_links(release: Release) -> Task:
    """One `Data` for each part over the graph of the training links, each pair of nodes once in either direction.

    `pair_index` of the training part holds its links; that of the others the links and, after all of these, the
    official pairs that are none: for ogbl-citation2 those of the first link, of the second, and so on.
    """
    layout, dataset = release.layout, release.dataset
    metric = layout.package.Evaluator(layout.name).eval_metric
    graph, features = _message_graph(dataset[0], layout.name)
    parts = {part: [_asked(graph, rows, layout.name)] for part, rows in release.split.items()}
    return Task(
        name=layout.name,
        level="link",
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        task_type="link prediction",
        num_tasks=1,
        num_outputs=1,
        metric=metric,
        higher_is_better=True,
        features=features,
        measure=official_measure(layout, links_and_rivals if metric == "mrr" else links_and_others),
    )


def _message_graph(graph: Data, name: str) -> tuple[Data, Features]:
    """Nodes and training links; a node without features (ogbl-ddi) is told by its own number."""
    require_whole(graph, name)
    count = int(graph.num_nodes or 0)
    edge_index = to_undirected(graph.edge_index, num_nodes=count)
    if graph.x is None:
        return Data(x=torch.arange(count).unsqueeze(1), edge_index=edge_index), Features(node_categories=(count,))
    return Data(x=graph.x.float(), edge_index=edge_index), Features(node_channels=graph.x.size(1))


def _asked(graph: Data, rows: dict[str, Any], name: str) -> Data:
    links, others = _pairs(rows)
    asked = copy.copy(graph)
    asked.pair_index = torch.cat([links, others], dim=1)
    require_ids(asked.pair_index, int(graph.num_nodes or 0), name, "the split's node ids")
    asked.y = torch.cat([torch.ones(links.size(1), 1), torch.zeros(others.size(1), 1)])
    return asked


def _pairs(rows: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The links and the pairs that are none, each `[2, count]`."""
    if "edge" in rows:
        links = rows["edge"].t()
        return links, rows["edge_neg"].t() if "edge_neg" in rows else links[:, :0]
    source, target = rows["source_node"], rows["target_node"]
    rivals = rows.get("target_node_neg", target.new_zeros(len(target), 0))
    return torch.stack([source, target]), torch.stack([source.repeat_interleave(rivals.size(1)), rivals.flatten()])
