"""ogbg-code2: the words of a function's name, said of its syntax tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.separate import separate

from graphformer.data.ogb.graph import split_ids
from graphformer.data.ogb.measures import official_measure, require_labels
from graphformer.data.ogb.reading import Release, require_whole
from graphformer.data.task import Task
from graphformer.graphs.features import Features

_NUM_WORDS = 5000
_LENGTH = 5
_DEEPEST = 20


def load_subtokens(release: Release) -> Task:
    """ogbg-code2 as OGB's own example lays it out, with every word of every name kept.

    A node's categories are its type, its attribute and its depth, 20 and deeper being one. An edge's category tells the
    syntax tree from parent to child (0) and back (1), and from one token to the next (2) and back (3).

    The vocabulary is the 5,000 most frequent words of the training names; of words as frequent those that come first.
    All other words of all names have the ids above it, so that the measure is taken of the true names.
    """
    require_whole(release.dataset._data, release.layout.name)
    names = release.dataset._data.y
    ids = {part: split_ids(release, part) for part in release.split}
    vocabulary = frequent_words((names[i] for i in ids["train"].tolist()), _NUM_WORDS)
    words = list(dict.fromkeys([*vocabulary, *(word for name in names for word in name)]))
    labels = encode(names, words)
    parts = {part: _Functions(release.dataset, ids[part], labels) for part in ids}
    return Task(
        name=release.layout.name,
        level="graph",
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        task_type="subtoken prediction",
        num_tasks=1,
        num_outputs=len(vocabulary),
        metric="F1",
        higher_is_better=True,
        features=Features(node_categories=(*_mapping_sizes(release), _DEEPEST + 1), edge_categories=(4,)),
        measure=official_measure(release.layout, _names_in(words, len(vocabulary))),
        length=_LENGTH,
    )


def frequent_words(names: Iterable[Sequence[str]], count: int) -> list[str]:
    """The `count` most frequent words, most frequent first; of words as frequent those that come first.

    Example:
        >>> frequent_words([["get", "name"], ["set", "name"], ["get", "it"]], count=3)
        ['get', 'name', 'set']
    """
    return [word for word, _ in Counter(word for name in names for word in name).most_common(count)]


def encode(names: Sequence[Sequence[str]], words: Sequence[str]) -> Tensor:
    """The ids of the names' words, filled up with -1 to the longest name.

    Example:
        >>> encode([["get", "name"], ["name"]], ["name", "get"]).tolist()
        [[1, 0], [0, -1]]
    """
    place = {word: i for i, word in enumerate(words)}
    labels = torch.full((len(names), max(map(len, names), default=0)), -1)
    for row, name in zip(labels, names, strict=True):
        row[: len(name)] = torch.tensor([place[word] for word in name])
    return labels


def _names_in(words: Sequence[str], num_outputs: int) -> Callable[[Tensor, Tensor], dict[str, Any]]:
    """What ogb's evaluator takes: words as text. A predicted word out of the vocabulary is said and hits nothing."""

    def inputs(y_true: Tensor, y_pred: Tensor) -> dict[str, Any]:
        require_labels(y_true >= 0)
        return {
            "seq_ref": [[words[i] for i in row if i >= 0] for row in y_true.tolist()],
            "seq_pred": [[words[i] if i < num_outputs else None for i in row if i >= 0] for row in y_pred.tolist()],
        }

    return inputs


def _mapping_sizes(release: Release) -> tuple[int, int]:
    """How many node types and node attributes there are."""
    import pandas

    folder = release.folder / "mapping"
    types, attributes = (pandas.read_csv(folder / f"{kind}.csv.gz") for kind in ("typeidx2type", "attridx2attr"))
    return len(types["type"]), len(attributes["attr"])


class _Functions(Sequence[Data]):
    """A part's syntax trees, each laid out when it is asked for: together they would take some gigabytes."""

    def __init__(self, dataset: Any, ids: Tensor, labels: Tensor) -> None:
        self.dataset, self.ids, self.labels = dataset, ids, labels

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Data: ...

    @overload
    def __getitem__(self, index: slice) -> _Functions: ...

    def __getitem__(self, index: int | slice) -> Data | _Functions:
        if isinstance(index, slice):
            return _Functions(self.dataset, self.ids[index], self.labels)
        i = int(self.ids[index])
        # dataset[i] would keep every tree that was ever asked for
        tree = separate(Data, self.dataset._data, i, self.dataset.slices, decrement=False)
        require_whole(tree, self.dataset.name)
        return _laid_out(tree, self.labels[i : i + 1])


def _laid_out(tree: Data, y: Tensor) -> Data:
    token = tree.node_is_attributed.flatten().nonzero().flatten()
    token = token[tree.node_dfs_order.flatten()[token].argsort()]
    following = torch.stack([token[:-1], token[1:]])
    kinds = [tree.edge_index, tree.edge_index.flip(0), following, following.flip(0)]
    return Data(
        x=torch.cat([tree.x, tree.node_depth.clamp(max=_DEEPEST)], dim=1),
        edge_index=torch.cat(kinds, dim=1),
        edge_attr=torch.cat([torch.full((edges.size(1), 1), kind) for kind, edges in enumerate(kinds)]),
        y=y,
    )
