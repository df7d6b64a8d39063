"""Patterns from a formula: what it is asked, how often, and what is refused."""

import functools
import pickle

import pytest
import torch
from pattern_cases import edge_matrix, is_near, mask_mod, predicate

from graphformer import AttentionGraph, GraphformerError
from graphformer.graphs import runs
from graphformer.patterns import Blocks, Causal, Full, Global, Where, Window


class Counted:
    """A formula that counts the pairs it is asked about, and the most at a time."""

    def __init__(self, rule):
        self.rule, self.asked, self.most = rule, 0, 0

    def __call__(self, query, key):
        self.asked += query.numel()
        self.most = max(self.most, query.numel())
        return self.rule(query, key)


def test_a_formula_sees_places_in_the_set():
    assert Where(lambda query, key: key <= query).on([5, 0, 3]) == Causal().on([5, 0, 3])
    assert Where(is_near).on((7, 4)) == Window(2).on((7, 4))
    assert Where(lambda query, key: key < 0).count([4, 2]) == 0
    assert Where(is_near).on([0, 0]).size == (0, 0)


def test_a_mask_mod_is_taken_as_it_is():
    document = torch.tensor([0, 0, 1, 1, 1, 2])
    lengths = torch.tensor([4, 2])

    def sliding(b, h, q_idx, kv_idx):
        return (q_idx >= kv_idx) & (q_idx - kv_idx <= 2)

    def documents(b, h, q_idx, kv_idx):
        return document[q_idx] == document[kv_idx]

    def padded(b, h, q_idx, kv_idx):
        return kv_idx < lengths[b]

    def no_mask(b, h, q_idx, kv_idx):
        return q_idx.new_ones((), dtype=torch.bool)

    assert Where(sliding).on([9, 4]) == Window(left=2).on([9, 4])
    assert torch.equal(edge_matrix(Where(documents), 6) == 1, document[:, None] == document)
    assert edge_matrix(Where(padded), [5, 3]).sum(1).tolist() == [4] * 5 + [2] * 3
    assert Where(no_mask).on([3, 2]) == Full().on([3, 2])
    assert Where(lambda b, h, q, k: True).on(3) == Full().on(3)


def test_arrays_and_mask_mods_that_look_at_all_pairs_are_not_confused():
    """A mask_mod sees one pair at a time: what it reduces is within a pair."""
    tags = torch.tensor([[1, 2], [1, 3], [1, 2]])
    same = Where(lambda b, h, q, k: (tags[q] == tags[k]).all())
    assert torch.equal(edge_matrix(same, 3) == 1, (tags[:, None] == tags).all(-1))


def reach(b, h, q_idx, kv_idx):
    return (q_idx - kv_idx).abs() <= h


def test_each_head_is_a_pattern_of_its_own():
    heads = [Where(reach, head=h) for h in range(3)]
    assert [head.on([6, 3]) for head in heads] == [Window(h).on([6, 3]) for h in range(3)]
    assert AttentionGraph.union([head.on(6) for head in heads]).num_edges == 6 + 16 + 24
    assert (heads[2] & Causal()).on(6) == Window(left=2).on(6)
    assert heads[1] != heads[2]
    assert repr(heads[1] - Window(0)) == "Where(reach, head=1) - Window(radius=0)"


ROWS = torch.tensor([[True, False, True], [True, True, True]])
HEAD_DEPENDENT = {
    "reach": (reach, 1),
    "pairs of heads": (lambda b, h, q, k: q >= k + h // 2, 2),
    "the last of four": (lambda b, h, q, k: (q == k) | (h == 3), 3),
    "the last of eight": (lambda b, h, q, k: (q == k) | (h > 6), 7),
    "a table of one head": (lambda b, h, q, k: ROWS[:1][h, k % 3], 1),
    "a table of two": (lambda b, h, q, k: ROWS[h, k % 3], 1),
}


@pytest.mark.parametrize("name", HEAD_DEPENDENT)
@pytest.mark.parametrize("nodes", [9, 5_000])
def test_heads_that_differ_are_refused_where_none_is_named(name, nodes):
    fn, head = HEAD_DEPENDENT[name]
    named = rf"got other pairs for head {head}\. Name one, Where\(fn, head=h\); AttentionGraph.union"
    with pytest.raises(GraphformerError, match=r"Where\(\w+\): fn must give all heads the same pairs; " + named):
        Where(fn).on(nodes)
    assert Where(fn, head=0).count(9) > 0


def test_the_predicate_view_looks_at_heads_too():
    with pytest.raises(GraphformerError, match="give all heads the same pairs"):
        predicate(Where(reach), 5)
    assert torch.equal(predicate(Where(reach, head=1), 5), predicate(Window(1), 5))


def test_a_composed_formula_looks_at_heads_where_it_is_asked():
    assert (Window(0) & Where(reach)).on(5) == Window(0).on(5)
    with pytest.raises(GraphformerError, match="other pairs for head 1"):
        (Window(1) & Where(reach)).on(5)


def test_it_is_asked_a_bounded_number_of_pairs_at_a_time(monkeypatch):
    monkeypatch.setattr(runs, "_PIECE", 64)
    rule = Counted(is_near)
    assert Where(rule).on([50, 3, 41]) == Window(2).on([50, 3, 41])
    assert rule.asked == 50**2 + 3**2 + 41**2
    assert rule.most <= 64


COMPOSED = [
    (lambda p, w: p & w, lambda n, p: p),
    (lambda p, w: w & p, lambda n, p: p),
    (lambda p, w: p - w, lambda n, p: p),
    (lambda p, w: w - p, lambda n, p: n - p),
    (lambda p, w: p & ~w, lambda n, p: p),
    (lambda p, w: p & (Global(1) | w), lambda n, p: p),
    (lambda p, w: (Global(1) + w) & p, lambda n, p: p),
    (lambda p, w: p & (Full() - w), lambda n, p: p),
    (lambda p, w: p & (Full() & w), lambda n, p: p),
    (lambda p, w: p & w.as_relation(1), lambda n, p: p),
    (lambda p, w: p & (w - Global(1)), lambda n, p: p),
]


@pytest.mark.parametrize(("make", "limit"), COMPOSED, ids=range(len(COMPOSED)))
@pytest.mark.parametrize("structured", [Window(1), Blocks(3), Window(left=2, dilation=3)], ids=repr)
def test_composed_with_a_structured_pattern_it_is_asked_about_the_rest_only(make, limit, structured):
    rule = Counted(lambda query, key: (query + 2 * key) % 3 != 0)
    nodes = [20, 7]
    pattern = make(structured, Where(rule))
    found = edge_matrix(pattern, nodes)
    assert 0 < rule.asked <= limit(20**2 + 7**2, structured.count(nodes))
    assert torch.equal(found > 0, predicate(pattern, nodes))


def test_a_label_stays_with_the_formula():
    pattern = Where(is_near).as_relation(2) & Causal()
    graph = pattern.on(4)
    assert graph.num_relations == 3
    assert graph.relation.unique().tolist() == [2]
    assert graph.num_edges == Window(left=2).count(4)


def test_structured_and_formula_at_size():
    rule = Counted(lambda query, key: (query ^ key) % 2 == 0)
    assert (Window(8) & Where(rule)).count(65_536) == (Window(4, dilation=2)).count(65_536)
    assert rule.asked == Window(8).count(65_536)
    assert rule.most <= 2**20


def test_equal_where_the_function_is():
    assert Where(is_near) == Where(is_near)
    assert hash(Where(is_near)) == hash(Where(is_near))
    assert Where(is_near) != Where(mask_mod)
    assert pickle.loads(pickle.dumps(Where(is_near))) == Where(is_near)
    assert repr(Where(is_near) & Causal()) == "Where(is_near) & Causal()"
    assert repr(Where(lambda query, key: query == key)) == "Where(anonymous)"
    assert repr(Where(Counted(is_near))) == "Where(Counted)"


def branches(b, h, q, k):
    return True if q > k else k > 2


def looks_up(query, key):
    return torch.ones(3, dtype=torch.bool)[query] & (key > 0)


def looks_up_one(b, h, q, k):
    return torch.arange(3)[q] > k


def asks_more(b, h, q, k, *, reach):
    return q - k < reach


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (
            branches,
            r"got RuntimeError: vmap: It looks like .*control flow\. Make its tables",
        ),
        (looks_up, "got IndexError: index 3 is out of bounds for dimension 0 with size 3. Make its"),
        (looks_up_one, "got IndexError: index 3 is out of bounds"),
        (lambda q, k: 1 / 0, "got ZeroDivisionError: division by zero. Make"),
        (lambda q, k: {}.pop(0), "got KeyError: 0. Make"),
    ],
    ids=str,
)
def test_what_a_formula_raises_is_told_with_its_pattern(fn, message):
    pattern = Where(fn) & Full()
    with pytest.raises(
        GraphformerError, match=r"^Where\(\w+\): fn must answer for every pair of .*" + message
    ) as found:
        pattern.on(5)
    assert found.value.__cause__ is not None


def test_further_arguments_may_have_defaults():
    assert Where(functools.partial(is_near, reach=1)).on(6) == Window(1).on(6)
    assert Where(functools.partial(asks_more, reach=2)).on(6) == Where(lambda q, k: q - k < 2).on(6)
    assert Where(is_near).on(6) == Window(2).on(6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Where(3), r"Where: fn must be a function of \(query, key\) or \(b, h, q, k\); got int. Write def fn"),
        (lambda: Where(lambda q: q), r"got anonymous\(q\)"),
        (lambda: Where(lambda a, b, c: a), r"got anonymous\(a, b, c\)"),
        (lambda: Where(asks_more), r"got asks_more\(b, h, q, k, \*, reach\)"),
        (lambda: Where(torch.eq), "got eq, which does not tell its arguments"),
        (
            lambda: Where(lambda q, k: q - k).on(3),
            r"give a bool tensor of shape \[E\] = \[9\]; got torch.int64",
        ),
        (lambda: Where(lambda q, k: (q == k).any()).on(3), r"\[E\] = \[9\]; got torch.bool \[\]. Compare the indices"),
        (lambda: Where(lambda q, k: True).on(3), r"Where\(anonymous\): fn must give a bool tensor.*got bool"),
        (lambda: Where(lambda b, h, q, k: q).on(3), "got torch.int64"),
        (
            lambda: Where(is_near, head=1),
            r"Where: head must be None for a function of \(query, key\); got 1. Write",
        ),
        (lambda: Where(mask_mod, head=-1), "Where: head must be an integer, 0 or more and below 2.31; got -1"),
        (lambda: Where(lambda b, h, q, k: torch.stack((q, k)) > 1).on(3), r"got torch.bool \[9, 2\]"),
    ],
    ids=str,
)
def test_refusals(make, message):
    with pytest.raises(GraphformerError, match=message):
        make()


@pytest.mark.parametrize("pattern", [Full().as_relation(1), Global(1) | Window(3), Where(is_near)], ids=repr)
def test_a_region_limits_the_graph_and_the_questions(pattern):
    region = Blocks(2).lower([5, 4])[0].runs
    assert pattern.on([5, 4], within=region) == (pattern & Blocks(2)).on([5, 4])
    counted = Counted(lambda query, key: query <= key)
    Where(counted).on([5, 4], within=region)
    assert counted.asked == region.num_pairs < 41
