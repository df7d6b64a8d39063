"""Laws that every pattern keeps, over random terms and ragged node sets."""

import pickle
from functools import reduce

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pattern_cases import cases, edge_matrix, patterns, predicate

from graphformer.graphs import AttentionGraph
from graphformer.patterns import Causal, Distance, Full, Pattern, Window, parse
from graphformer.patterns.compose import And, Labelled, Minus, Not, Or, Plus
from graphformer.patterns.node_sets import read_nodes

law = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def draw_case(data, count, labelled=False, written=False):
    kind, singles, batch = data.draw(cases())
    return [data.draw(patterns(kind, labelled=labelled, written=written)) for _ in range(count)], singles, batch


@law
@given(st.data())
def test_predicate_view_is_edge_view(data):
    (pattern,), _, nodes = draw_case(data, 1, labelled=data.draw(st.booleans()))
    assert torch.equal(predicate(pattern, nodes), edge_matrix(pattern, nodes) > 0)


@law
@given(st.data())
def test_sets_of_pairs_obey_boolean_algebra(data):
    (p, q), _, nodes = draw_case(data, 2)

    def pairs(pattern):
        return edge_matrix(pattern, nodes) > 0

    assert torch.equal(pairs(p | q), pairs(q | p))
    assert torch.equal(pairs(p & q), pairs(q & p))
    assert torch.equal(pairs(~(p | q)), pairs(~p & ~q))
    assert torch.equal(pairs(~(p & q)), pairs(~p | ~q))
    assert torch.equal(pairs(~~p), pairs(p))
    assert torch.equal(pairs(p + q), pairs(p | q))
    assert torch.equal(edge_matrix(p - q, nodes), edge_matrix(p & ~q, nodes))
    assert torch.equal(pairs(p) | pairs(~p), predicate(Full(), nodes))
    assert not bool((pairs(p) & pairs(~p)).any())


@law
@given(st.data())
def test_copies(data):
    (p, q), _, nodes = draw_case(data, 2)
    copies_p, copies_q = edge_matrix(p, nodes), edge_matrix(q, nodes)
    assert torch.equal(edge_matrix(p + q, nodes), copies_p + copies_q)
    assert torch.equal(edge_matrix(p | q, nodes), torch.where(copies_p > 0, copies_p, copies_q))
    assert torch.equal(edge_matrix(p & q, nodes), copies_p * (copies_q > 0))
    assert torch.equal(edge_matrix(p - q, nodes), copies_p * (copies_q == 0))


@law
@given(st.data())
def test_a_ragged_batch_is_the_union_of_its_sets(data):
    (pattern,), singles, batch = draw_case(data, 1, labelled=data.draw(st.booleans()))
    assert pattern.on(batch) == AttentionGraph.union([pattern.on(nodes) for nodes in singles])


@law
@given(st.data())
def test_graphs_are_ordered_and_counted(data):
    (pattern,), _, nodes = draw_case(data, 1)
    graph = pattern.on(nodes)
    key, query = graph.edge_index
    code = query * max(graph.num_keys, 1) + key
    assert bool((code[1:] >= code[:-1]).all())
    assert graph.by_query.edge_id is None
    assert pattern.count(nodes) == graph.num_edges
    assert AttentionGraph.from_csr(*graph.by_query[:2], graph.num_keys).degree.equal(graph.degree)


def relation_of(pattern, pair, nodes):
    """The relation that a label gives to a pair: an integer for all, or a clipped distance."""
    rule = pattern.relation
    if not isinstance(rule, Distance):
        return rule
    sets = read_nodes(nodes, "test")
    query, key = pair[:2]
    apart = (key - int(sets.key_start[query])) - int(sets.local_query[query])
    return max(-rule.clip, min(rule.clip, apart)) + rule.clip


def labelled_pairs(pattern, nodes):
    """What the algebra says, on Python lists of (query, key, own edge, relation)."""
    if isinstance(pattern, Labelled):
        return [(*pair[:3], relation_of(pattern, pair, nodes)) for pair in labelled_pairs(pattern.pattern, nodes)]
    if isinstance(pattern, Not):
        inside, inner = (labelled_pairs(p, nodes) for p in (Full(), pattern.pattern))
        return [pair for pair in inside if pair[:2] not in {other[:2] for other in inner}]
    if not isinstance(pattern, (And, Minus, Or, Plus)):
        graph = pattern.on(nodes)
        key, query = graph.edge_index.tolist()
        own = [-1] * len(key) if graph.own_edge is None else graph.own_edge.tolist()
        relation = [None] * len(key) if graph.relation is None else graph.relation.tolist()
        return list(zip(query, key, own, relation, strict=True))
    operands = pattern.operands if isinstance(pattern, (Or, Plus)) else (pattern.first, pattern.second)
    first, *others = (labelled_pairs(operand, nodes) for operand in operands)
    for other in others:
        in_first, in_other = ({pair[:2] for pair in pairs} for pairs in (first, other))
        first = {
            Plus: first + other,
            Or: first + [pair for pair in other if pair[:2] not in in_first],
            And: [pair for pair in first if pair[:2] in in_other],
            Minus: [pair for pair in first if pair[:2] not in in_other],
        }[type(pattern)]
    return first


@law
@given(st.data())
def test_relations_and_own_edges_follow_the_algebra(data):
    labelled = data.draw(st.booleans())
    (pattern,), _, nodes = draw_case(data, 1, labelled=labelled)
    graph = pattern.on(nodes)
    expected = sorted(labelled_pairs(pattern, nodes), key=lambda pair: pair[:2])
    key, query = graph.edge_index.tolist()
    assert list(zip(query, key, strict=True)) == [pair[:2] for pair in expected]
    if graph.own_edge is None:
        assert all(pair[2] == -1 for pair in expected)
    else:
        assert graph.own_edge.tolist() == [pair[2] for pair in expected]
    assert graph.num_relations == pattern.num_relations
    assert (graph.relation is not None) == labelled
    if labelled:
        assert graph.relation.tolist() == [pair[3] for pair in expected]


@law
@given(st.data())
def test_repr_parses_back_and_pickles(data):
    (pattern,), _, _ = draw_case(data, 1, labelled=data.draw(st.booleans()), written=True)
    for twin in (parse(repr(pattern)), pickle.loads(pickle.dumps(pattern))):
        assert twin == pattern
        assert hash(twin) == hash(pattern)
        assert repr(twin) == repr(pattern)


def test_the_laws_see_a_lowering_that_is_wrong():
    class Shifted(Pattern):
        def _lower(self, sets):
            return Full()._lower(sets)

        def _allows(self, sets, query, key):
            return query != key

    assert not torch.equal(predicate(Shifted(), [3, 2]), edge_matrix(Shifted(), [3, 2]) > 0)


@pytest.mark.parametrize("operator", [Or, Plus])
def test_chains_may_be_long(operator):
    """More terms than Python's stack has room for; every second one is there twice."""
    wide, narrow = Window(1) & Causal(), Window(0)
    operands = [wide.as_relation(i % 7) if i % 2 else narrow.as_relation(i % 5) for i in range(1500)]
    chain = reduce(operator, operands)
    assert chain == reduce(operator, operands)
    assert hash(chain) == hash(reduce(operator, operands))
    assert repr(chain).count(chain._symbol) == 1499
    graph = chain.on(4)
    assert graph.num_edges == (7 if operator is Or else 750 * 4 + 750 * 7)
    assert chain.num_relations == 7
    assert not (chain & Full())._by_formula
    assert chain.allows(torch.tensor([1, 1]), torch.tensor([0, 2]), 4).tolist() == [True, False]


def test_long_chains_are_read():
    text = " | ".join(["Window(1)", "Global(1)"] * 150)
    assert repr(parse(text)) == repr(parse(repr(parse(text))))
