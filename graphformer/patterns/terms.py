"""Terms: what a pattern lowers to, their algebra, and the attention graph that they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.graphs import AttentionGraph
from graphformer.graphs.layout import Layout, expand_rows, index_dtype, make_layout
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.node_sets import NodeSets


class Relation:
    """A rule that gives each pair its relation, for :meth:`Pattern.as_relation`.

    A rule of your own is a frozen dataclass with these two; its repr is what the pattern's repr shows.

    Example:
        >>> from graphformer.patterns import Window
        >>> @dataclass(frozen=True)
        ... class IsLater(Relation):
        ...     num_relations = 2
        ...     def of(self, sets, query, key, own_edge):
        ...         return (sets.local_key[key] > sets.local_query[query]).long()
        >>> Window(1).as_relation(IsLater()).on(3).relation
        tensor([0, 1, 0, 0, 1, 0, 0], dtype=torch.int32)
    """

    @property
    def num_relations(self) -> int:
        """Number of relations that the rule can give; it depends on nothing but the rule."""
        raise NotImplementedError(f"{type(self).__name__} must define num_relations")

    def of(self, sets: NodeSets, query: Tensor, key: Tensor, own_edge: Tensor) -> Tensor:
        """The relation of each pair, given by global ids and its own edge (-1: none). Shape `[E]`, int64, all four."""
        raise NotImplementedError(f"{type(self).__name__} must define of(sets, query, key, own_edge)")


@dataclass(frozen=True, eq=False)
class RunTerm:
    """A set of pairs, held as runs of keys.

    Attributes:
        runs: The pairs.
        relation: The integer that every pair carries, or the rule that gives each pair its own, or None.
    """

    runs: KeyRuns
    relation: int | Relation | None = None

    @property
    def num_pairs(self) -> int:
        """Number of pairs."""
        return self.runs.num_pairs

    def pairs(self, dtype: torch.dtype = torch.int64) -> tuple[Tensor, Tensor]:
        """(query, key) of every pair, sorted."""
        return self.runs.expand(dtype)

    def support(self, sets: NodeSets) -> KeyRuns:
        """The pairs as a set."""
        return self.runs

    def keep(self, allowed: KeyRuns) -> RunTerm:
        """The pairs that are also in ``allowed``."""
        return replace(self, runs=self.runs.intersection(allowed))

    def drop(self, refused: KeyRuns) -> RunTerm:
        """The pairs that are not in ``refused``."""
        return replace(self, runs=self.runs.difference(refused))


@dataclass(frozen=True, eq=False)
class PairTerm:
    """Explicit pairs, duplicates allowed: a node set's own edges.

    Attributes:
        query: Shape `[E]`, int64.
        key: Shape `[E]`, int64.
        own_edge: Which edge of the node set each pair is, -1 for none of them. Shape `[E]`, int64.
        relation: The integer that every pair carries, or the rule that gives each pair its own, or None.
    """

    query: Tensor
    key: Tensor
    own_edge: Tensor
    relation: int | Relation | None = None

    @property
    def num_pairs(self) -> int:
        """Number of pairs, duplicates counted."""
        return self.query.numel()

    def pairs(self, dtype: torch.dtype = torch.int64) -> tuple[Tensor, Tensor]:
        """(query, key) of every pair, as the node set lists them."""
        return self.query.to(dtype), self.key.to(dtype)

    def support(self, sets: NodeSets) -> KeyRuns:
        """The pairs as a set."""
        return KeyRuns.from_pairs(self.query, self.key, sets.num_queries, sets.num_keys)

    def keep(self, allowed: KeyRuns) -> PairTerm:
        """The pairs that are also in ``allowed``, each as often as before."""
        return self._select(allowed.contains(self.query, self.key))

    def drop(self, refused: KeyRuns) -> PairTerm:
        """The pairs that are not in ``refused``, each as often as before."""
        return self._select(~refused.contains(self.query, self.key))

    def _select(self, mask: Tensor) -> PairTerm:
        return PairTerm(self.query[mask], self.key[mask], self.own_edge[mask], self.relation)


Term = RunTerm | PairTerm


def support(terms: Sequence[Term], sets: NodeSets) -> KeyRuns:
    """The pairs of all terms as one set."""
    return reduce(KeyRuns.union, (term.support(sets) for term in terms))


def unite(parts: Iterable[list[Term]], sets: NodeSets) -> list[Term]:
    """The first part's terms with their copies, then what each further part adds to those before."""
    terms: list[Term] = []
    covered: KeyRuns | None = None
    for part in parts:
        if len(terms) == len(part) == 1:
            one, other = terms[0], part[0]
            if isinstance(one, RunTerm) and isinstance(other, RunTerm) and one.relation == other.relation:
                terms, covered = [RunTerm(one.runs.union(other.runs), one.relation)], None  # nothing tells them apart
                continue
        if terms:
            covered = support(terms, sets) if covered is None else covered
            part = [term.drop(covered) for term in part]
            covered = covered.union(support(part, sets))
        terms = terms + part
    return terms


def held_runs(terms: Sequence[Term]) -> KeyRuns | None:
    """The runs that the graph of these terms is held as, or None where its pairs are listed.

    Runs hold a pair once, so that terms with a pair in common are listed.
    """
    held = [term.runs for term in terms if isinstance(term, RunTerm)]
    if len(held) < len(terms):
        return None
    runs, num_pairs = reduce(KeyRuns.union, held), sum(term.num_pairs for term in terms)
    return runs if runs.num_pairs == num_pairs and runs.are_few(num_pairs) else None


def make_graph(terms: Sequence[Term], sets: NodeSets, num_relations: int) -> AttentionGraph:
    """The graph of all terms, ordered by query, keys ascending, equal pairs in the order of the terms.

    Runs without copies stay runs where they are few, with relations beside them; otherwise the pairs are enumerated.
    """
    runs, dtype = held_runs(terms), index_dtype(num_relations)
    if runs is not None:
        relation = relation_of_runs(terms, runs, sets, dtype) if num_relations else None
        return AttentionGraph(runs, sets.num_keys, relation=relation, num_relations=num_relations)
    layout = _list(terms, sets)
    order, own_edge, relation = layout.edge_id, None, None
    if any(isinstance(term, PairTerm) for term in terms):
        own_edge = _ordered([_own_edge(term, sets.device) for term in terms], order)
    if num_relations:
        relation = _ordered([relation_of(term, sets, dtype) for term in terms], order)
    return AttentionGraph(
        layout._replace(edge_id=None),
        sets.num_keys,
        relation=relation,
        num_relations=num_relations,
        own_edge=own_edge,
        num_own_edges=0 if own_edge is None else sets.edge_index.shape[1],
    )


def _list(terms: Sequence[Term], sets: NodeSets) -> Layout:
    """The pairs of all terms, their ids the places in the terms' lists, one after the other."""
    if len(terms) == 1 and isinstance(terms[0], RunTerm):
        return terms[0].runs.layout()
    dtype = index_dtype(max(sets.num_queries, sets.num_keys))
    query, key = map(torch.cat, zip(*(term.pairs(dtype) for term in terms), strict=True))
    return make_layout(query, key, sets.num_queries, sets.num_keys)


def _ordered(parts: list[Tensor], order: Tensor | None) -> Tensor:
    labels = torch.cat(parts)
    return labels if order is None else labels.index_select(0, order)


def relation_of(term: Term, sets: NodeSets, dtype: torch.dtype = torch.int64) -> Tensor:
    """The relation of each pair of a term that is labelled. Shape `[E]`."""
    if isinstance(term, RunTerm):
        return relation_of_runs([term], term.runs, sets, dtype)
    if not isinstance(term.relation, Relation):
        return torch.full((term.num_pairs,), term.relation, dtype=dtype, device=sets.device)  # type: ignore[arg-type]
    return _ask(term.relation, sets, term.query, term.key, term.own_edge).to(dtype)


def relation_of_runs(terms: Sequence[Term], runs: KeyRuns, sets: NodeSets, dtype: torch.dtype) -> Tensor:
    """The relation of each pair of labelled terms of runs, no two with a pair in common. Shape `[E]`.

    Rules are asked about a bounded number of pairs at a time.

    Args:
        terms: The terms.
        runs: The pairs of all of them.
        sets: The node sets.
        dtype: Of the result.
    """
    rules = {-1 - i: term.relation for i, term in enumerate(terms) if isinstance(term.relation, Relation)}
    held = [term.runs for term in terms if isinstance(term, RunTerm)]
    labels = [-1 - i if -1 - i in rules else term.relation for i, term in enumerate(terms)]
    out = _spread(held, labels, dtype)  # type: ignore[arg-type]
    done = 0
    for query, key in runs.pieces() if rules else ():
        part = out[done : done + query.numel()]
        done += query.numel()
        for mark, rule in rules.items():
            mine = (part == mark).nonzero().squeeze(1)
            if mine.numel():
                none = torch.full_like(mine, -1)
                part[mine] = _ask(rule, sets, query[mine], key[mine], none).to(dtype)
    return out


def _spread(held: Sequence[KeyRuns], labels: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The label of each pair of disjoint sets of runs, one label a set, ordered by query, then key. Shape `[E]`."""
    if len(held) == 1:
        return torch.full((held[0].num_pairs,), labels[0], dtype=dtype, device=held[0].ptr.device)
    place = torch.cat([expand_rows(runs.ptr, runs.start.numel()) * runs.num_keys + runs.start for runs in held])
    length = torch.cat([runs.stop - runs.start for runs in held])
    label = torch.cat([torch.full_like(runs.start, label) for runs, label in zip(held, labels, strict=True)])
    order = place.argsort()
    length, label = length[order], label[order].to(dtype)
    out = torch.zeros(int(length.sum()), dtype=dtype, device=length.device)
    out[length.cumsum(0) - length] = label.diff(prepend=label.new_zeros(1))  # steps from run to run, then summed up
    return out.cumsum_(0)


def _ask(rule: Relation, sets: NodeSets, query: Tensor, key: Tensor, own_edge: Tensor) -> Tensor:
    """What a rule says of some pairs, checked. Shape `[E]`, int64."""
    relation = rule.of(sets, query, key, own_edge)
    fits = relation.shape == query.shape and relation.dtype == torch.int64
    remedy = "Correct its method `of`."
    found = f"{relation.dtype} {list(relation.shape)}"
    require(fits, repr(rule), "relation", f"be an int64 tensor of shape [E] = [{query.numel()}]", found, remedy)
    low, high = (int(value) for value in torch.aminmax(relation)) if relation.numel() else (0, 0)
    rule_text = f"lie in [0, {rule.num_relations})"
    require(low >= 0 and high < rule.num_relations, repr(rule), "relation", rule_text, low if low < 0 else high, remedy)
    return relation


def _own_edge(term: Term, device: torch.device) -> Tensor:
    if isinstance(term, PairTerm):
        return term.own_edge
    return torch.full((term.num_pairs,), -1, dtype=torch.int64, device=device)
