"""The algebra of patterns: what the operators make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_whole, lowered
from graphformer.patterns.terms import Relation, RunTerm, Term, join, support

_UNARY, _ATOM = 4, 5  # Python's precedences, from 1 for |; calls and attributes bind tightest


@dataclass(frozen=True, repr=False)
class _Binary(Pattern):
    first: Pattern
    second: Pattern
    _symbol: ClassVar[str]
    _precedence: ClassVar[int]

    def _labels(self) -> frozenset[int | Relation | None]:
        return self.first._labels()

    @property
    def _by_formula(self) -> bool:
        return self.first._by_formula or self.second._by_formula

    def __repr__(self) -> str:
        first = _bracket(self.first, self._precedence)
        return f"{first} {self._symbol} {_bracket(self.second, self._precedence + 1)}"


@dataclass(frozen=True, repr=False)
class Or(_Binary):
    """`p | q`: p's pairs, with its relations and copies, and those of q that p lacks."""

    _symbol = "|"
    _precedence = 1

    def _lower(self, sets: NodeSets) -> list[Term]:
        return join(lowered(self.first, sets), lowered(self.second, sets), sets)

    def _lower_within(self, sets: NodeSets, region: KeyRuns) -> list[Term]:
        return join(self.first._lower_within(sets, region), self.second._lower_within(sets, region), sets)

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        return self.first._allows(sets, query, key) | self.second._allows(sets, query, key)

    def _labels(self) -> frozenset[int | Relation | None]:
        return self.first._labels() | self.second._labels()


@dataclass(frozen=True, repr=False)
class Plus(_Binary):
    """`p + q`: the pairs of both, with both copies of a pair that both have."""

    _symbol = "+"
    _precedence = 3

    def _lower(self, sets: NodeSets) -> list[Term]:
        return lowered(self.first, sets) + lowered(self.second, sets)

    def _lower_within(self, sets: NodeSets, region: KeyRuns) -> list[Term]:
        return self.first._lower_within(sets, region) + self.second._lower_within(sets, region)

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        return self.first._allows(sets, query, key) | self.second._allows(sets, query, key)

    def _labels(self) -> frozenset[int | Relation | None]:
        return self.first._labels() | self.second._labels()


@dataclass(frozen=True, repr=False)
class And(_Binary):
    """`p & q`: p's pairs, with its relations and copies, that q has too."""

    _symbol = "&"
    _precedence = 2

    def _lower(self, sets: NodeSets) -> list[Term]:
        if self.first._by_formula and not self.second._by_formula:
            return self.first._lower_within(sets, support(lowered(self.second, sets), sets))
        terms = lowered(self.first, sets)
        allowed = support_among(self.second, terms, sets)
        return [term.keep(allowed) for term in terms]

    def _lower_within(self, sets: NodeSets, region: KeyRuns) -> list[Term]:
        return self.first._lower_within(sets, support(self.second._lower_within(sets, region), sets))

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        return self.first._allows(sets, query, key) & self.second._allows(sets, query, key)


@dataclass(frozen=True, repr=False)
class Minus(_Binary):
    """`p - q`: p's pairs, with its relations and copies, that q does not have."""

    _symbol = "-"
    _precedence = 3

    def _lower(self, sets: NodeSets) -> list[Term]:
        if self.first._by_formula and not self.second._by_formula:
            return self.first._lower_within(sets, sets.complement(support(lowered(self.second, sets), sets)))
        terms = lowered(self.first, sets)
        refused = support_among(self.second, terms, sets)
        return [term.drop(refused) for term in terms]

    def _lower_within(self, sets: NodeSets, region: KeyRuns) -> list[Term]:
        refused = support(self.second._lower_within(sets, region), sets)
        return self.first._lower_within(sets, region.difference(refused))

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        return self.first._allows(sets, query, key) & ~self.second._allows(sets, query, key)


@dataclass(frozen=True, repr=False)
class Not(Pattern):
    """`~p`: the pairs inside each set that p leaves out, each once and without a relation."""

    pattern: Pattern

    def _lower(self, sets: NodeSets) -> list[Term]:
        return [RunTerm(sets.complement(support(lowered(self.pattern, sets), sets)))]

    @property
    def _by_formula(self) -> bool:
        return self.pattern._by_formula

    def _lower_within(self, sets: NodeSets, region: KeyRuns) -> list[Term]:
        return [RunTerm(region.difference(support(self.pattern._lower_within(sets, region), sets)))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        return ~self.pattern._allows(sets, query, key)

    def __repr__(self) -> str:
        return f"~{_bracket(self.pattern, _UNARY)}"


@dataclass(frozen=True, repr=False)
class Labelled(Pattern):
    """`p.as_relation(r)`: p's pairs, each with relation r, or with the one that the rule r gives it."""

    pattern: Pattern
    relation: int | Relation

    def __post_init__(self) -> None:
        if not isinstance(self.relation, Relation):
            check_whole(self, "relation", low=0, where="Pattern.as_relation")

    def _lower(self, sets: NodeSets) -> list[Term]:
        return [replace(term, relation=self.relation) for term in lowered(self.pattern, sets)]

    @property
    def _by_formula(self) -> bool:
        return self.pattern._by_formula

    def _lower_within(self, sets: NodeSets, region: KeyRuns) -> list[Term]:
        return [replace(term, relation=self.relation) for term in self.pattern._lower_within(sets, region)]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        return self.pattern._allows(sets, query, key)

    def _labels(self) -> frozenset[int | Relation | None]:
        return frozenset((self.relation,))

    def __repr__(self) -> str:
        return f"{_bracket(self.pattern, _ATOM)}.as_relation({self.relation!r})"


def support_among(pattern: Pattern, terms: Sequence[Term], sets: NodeSets) -> KeyRuns:
    """The pairs of a pattern, at least those that the terms have too: a formula is asked about these only."""
    among = pattern._lower_within(sets, support(terms, sets)) if pattern._by_formula else lowered(pattern, sets)
    return support(among, sets)


def _bracket(pattern: Pattern, least: int) -> str:
    """The repr of an operand, in parentheses where it binds looser than its place needs."""
    own = pattern._precedence if isinstance(pattern, _Binary) else _UNARY if isinstance(pattern, Not) else _ATOM
    return repr(pattern) if own >= least else f"({pattern!r})"
