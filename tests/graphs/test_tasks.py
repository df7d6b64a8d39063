"""Work lists, and pairs grouped by relation."""

from __future__ import annotations

import pytest
import torch

from graphformer.graphs.tasks import LONGEST, SHORT, make_tasks
from graphformer.testing import random_graph


@pytest.mark.parametrize("degrees", [[], [0, 0], [3, 0, SHORT, SHORT + 1], [LONGEST, LONGEST + 1, 5, 3 * LONGEST + 7]])
def test_every_row_is_in_one_list_and_every_pair_in_one_piece(degrees: list[int]) -> None:
    ptr = torch.tensor([0, *degrees]).cumsum(0)
    num_pairs = int(ptr[-1])
    tasks = make_tasks(ptr, num_pairs)
    met = torch.zeros(num_pairs, dtype=torch.int64)
    for row, begin, stop in torch.cat((tasks.pieces, tasks.long, tasks.short)).tolist():
        assert ptr[row] <= begin <= stop <= ptr[row + 1]
        assert stop - begin <= LONGEST
        met[begin:stop] += 1
    assert bool((met == 1).all())
    rows = torch.cat((tasks.long[:, 0], tasks.short[:, 0], tasks.splits[:, 0]))
    assert rows.sort().values.tolist() == list(range(len(degrees)))


def test_pairs_are_grouped_by_the_relations_at_hand() -> None:
    """Graphs may share a side and differ in their relations."""
    graph = random_graph(5, num_edges=20, num_relations=3)
    assert graph.relation is not None
    side, other = graph.query_side, 2 - graph.relation
    for relation in (graph.relation, other, graph.relation):
        pairs = side.by_relation(relation, 3)
        assert pairs is not None
        assert relation[pairs.ends[2]].tolist() == sorted(relation.tolist())
    assert side.by_relation(graph.relation, 3) is pairs  # kept
