"""ogbn-*: labels for the nodes of one graph, which its three parts share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import scatter, to_undirected

from graphformer.data.ogb.measures import as_they_are, chosen_class, official_measure
from graphformer.data.ogb.reading import Release, labels_of, require_ids, require_rows, require_whole
from graphformer.data.task import Task
from graphformer.graphs.features import Features


class Labelled(NamedTuple):
    """One graph and the nodes of it that have labels.

    Attributes:
        graph: The nodes and edges.
        features: What they carry.
        y: Labels, a row for each node that may be asked about.
        split: The rows that train, validate and test.
        first: Place of the first row's node in the graph.
    """

    graph: Data
    features: Features
    y: Tensor
    split: dict[str, Tensor]
    first: int = 0


def load_nodes(release: Release) -> Task:
    """One `Data` for each part; the three share their tensors and differ in `target_index` and `y`."""
    layout, dataset = release.layout, release.dataset
    graph, features, y, split, first = _READERS[layout.name](release)
    multiclass = dataset.task_type == "multiclass classification"
    y = labels_of(release, y)
    for ids in split.values():
        require_ids(ids, len(y), layout.name, "the split's node ids")
    parts = {part: [_asked(graph, ids + first, y[ids])] for part, ids in split.items()}
    return Task(
        name=layout.name,
        level="node",
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        task_type=dataset.task_type,
        num_tasks=dataset.num_tasks,
        num_outputs=dataset.num_classes if multiclass else dataset.num_tasks,
        metric=dataset.eval_metric,
        higher_is_better=True,
        features=features,
        measure=official_measure(layout, chosen_class if multiclass else as_they_are),
    )


def _asked(graph: Data, target_index: Tensor, y: Tensor) -> Data:
    asked = copy.copy(graph)
    asked.target_index, asked.y = target_index, y
    return asked


def _read_papers_and_products(release: Release) -> Labelled:
    """ogbn-arxiv, whose citations are made to go both ways, and ogbn-products, whose edges do."""
    graph = _whole(release)
    if release.layout.name == "ogbn-arxiv":
        graph.edge_index = to_undirected(graph.edge_index, num_nodes=graph.num_nodes)
    kept = Data(x=graph.x.float(), edge_index=graph.edge_index)
    return Labelled(kept, Features(node_channels=kept.x.size(1)), graph.y, release.split)


def _read_proteins(release: Release) -> Labelled:
    """ogbn-proteins; a node is the mean of the edges into it, as in OGB's own example.

    The species is left out: the split is by species, so that those of the test are never seen in training.
    """
    graph = _whole(release)
    strength = graph.edge_attr.float()
    x = scatter(strength, graph.edge_index[1], dim_size=graph.num_nodes, reduce="mean")
    kept = Data(x=x, edge_index=graph.edge_index, edge_attr=strength)
    width = strength.size(1)
    return Labelled(kept, Features(node_channels=width, edge_channels=width), graph.y, release.split)


def _read_mag(release: Release) -> Labelled:
    """ogbn-mag as one node set: the types one after the other, only papers with features.

    A node's category is its type, an edge's its relation (2 r, in the order of the names) or that reversed (2 r + 1).
    """
    graph, name = release.dataset[0], release.layout.name
    counts = {kind: int(count) for kind, count in sorted(graph.num_nodes_dict.items())}
    first = dict(zip(counts, torch.tensor([0, *counts.values()]).cumsum(0).tolist(), strict=False))
    papers, num_papers = graph.x_dict["paper"].float(), counts["paper"]
    require_rows(papers, num_papers, name, "paper features")
    require_rows(graph.y_dict["paper"], num_papers, name, "paper labels")
    x = papers.new_zeros(sum(counts.values()), papers.size(1))
    x[first["paper"] : first["paper"] + num_papers] = papers
    edges = []
    for (source, relation, target), edge_index in sorted(graph.edge_index_dict.items()):
        for row, kind in ((0, source), (1, target)):
            require_ids(edge_index[row], counts[kind], name, f"the {kind} ids of {relation}")
        placed = edge_index + torch.tensor([[first[source]], [first[target]]])
        edges += [placed, placed.flip(0)]
    sizes = torch.tensor([kind.size(1) for kind in edges])
    joint = Data(
        x=x,
        x_category=torch.arange(len(counts)).repeat_interleave(torch.tensor(list(counts.values()))).unsqueeze(1),
        edge_index=torch.cat(edges, dim=1),
        edge_attr=torch.arange(len(edges)).repeat_interleave(sizes).unsqueeze(1),
    )
    features = Features((len(counts),), papers.size(1), (len(edges),))
    split = {part: kinds["paper"] for part, kinds in release.split.items()}
    return Labelled(joint, features, graph.y_dict["paper"], split, first["paper"])


def _whole(release: Release) -> Data:
    graph, name = release.dataset[0], release.layout.name
    require_whole(graph, name)
    require_rows(graph.y, graph.num_nodes, name, "node labels")
    return graph


_READERS: dict[str, Callable[[Release], Labelled]] = {
    "ogbn-arxiv": _read_papers_and_products,
    "ogbn-mag": _read_mag,
    "ogbn-products": _read_papers_and_products,
    "ogbn-proteins": _read_proteins,
}
