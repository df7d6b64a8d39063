"""Labels of a pattern: known without a graph, the same for every sample."""

import pytest
import torch
from torch_geometric.data import Data

from graphformer import GraphformerError
from graphformer.patterns import Causal, Edges, Full, Global, Window


def test_the_first_relation_wins_in_a_union_and_both_stay_in_a_sum():
    p, q = Window(0).as_relation(2), Full().as_relation(5)
    assert (p | q).on(2).relation.tolist() == [2, 5, 5, 2]
    assert (q | p).on(2).relation.tolist() == [5, 5, 5, 5]
    assert (p + q).on(2).relation.tolist() == [2, 5, 5, 5, 2, 5]
    assert (q & p).on(2).relation.tolist() == [5, 5]
    assert (q - p).on(2).relation.tolist() == [5, 5]


def test_the_number_of_relations_does_not_depend_on_the_nodes():
    pattern = Window(1).as_relation(0) | Global(1).as_relation(3)
    assert pattern.num_relations == 4
    assert [pattern.on(nodes).num_relations for nodes in (0, 1, [5, 3])] == [4, 4, 4]
    assert Window(1).num_relations == 0
    assert (Window(1) - Global(1).as_relation(3)).num_relations == 0
    assert (~Global(1).as_relation(3)).num_relations == 0


def test_a_new_label_replaces_the_old_ones():
    pattern = (Window(1).as_relation(0) | Global(1)).as_relation(1)
    assert pattern.num_relations == 2
    assert pattern.on(4).relation.unique().tolist() == [1]


def test_edges_carry_relation_and_own_edge_at_once():
    data = Data(edge_index=torch.tensor([[2, 0], [0, 1]]), num_nodes=3)
    graph = (Edges().as_relation(1) | Window(0).as_relation(0)).on(data)
    assert graph.edge_index.tolist() == [[0, 2, 0, 1, 2], [0, 0, 1, 1, 2]]
    assert graph.relation.tolist() == [0, 1, 1, 0, 0]
    assert graph.own_edge.tolist() == [-1, 0, 1, -1, -1]


@pytest.mark.parametrize("use", [lambda p: p.num_relations, lambda p: p.on(3), lambda p: p.draw(3)])
def test_labels_on_some_terms_only_are_refused(use):
    pattern = Window(1) | Global(1).as_relation(0)
    message = r"relations must be given to all terms or to none; got Window\(radius=1\) \| Global.* Label the other"
    with pytest.raises(GraphformerError, match=message):
        use(pattern)
    assert pattern.count(3) == 9


@pytest.mark.parametrize("relation", [-1, 1.0, True, None])
def test_a_relation_is_a_whole_number(relation):
    with pytest.raises(GraphformerError, match="as_relation: relation must be an integer, 0 or more and below"):
        Causal().as_relation(relation)


def test_only_patterns_compose():
    with pytest.raises(TypeError, match="unsupported operand"):
        Causal() | 3


@pytest.mark.parametrize(
    ("query", "key", "message"),
    [
        ([5], [0], r"Pattern.allows: query must hold ids in \[0, 5\); got 5. Ids are global"),
        ([0], [-1], r"Pattern.allows: key must hold ids in \[0, 5\); got -1"),
        ([0.5], [1], "Pattern.allows: query must hold integers; got torch.float32"),
    ],
)
def test_ids_of_the_predicate_view_are_checked(query, key, message):
    with pytest.raises(GraphformerError, match=message):
        Full().allows(torch.tensor(query), torch.tensor(key), [2, 3])


def test_the_predicate_view_keeps_the_broadcast_shape():
    i = torch.arange(4)
    assert Causal().allows(i[:, None], i, 4).shape == (4, 4)
    assert Causal().allows(i, i, 4).shape == (4,)
    assert Causal().allows(torch.tensor(1), torch.tensor(2), 4).shape == ()
    assert Causal().allows(i[:0], i[:0], 4).shape == (0,)
