"""The algebra of patterns: what the operators make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import ClassVar

from torch import Tensor

from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_whole, lowered
from graphformer.patterns.terms import Relation, RunTerm, Term, support, unite

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


@dataclass(frozen=True, repr=False, init=False)
class _Joined(Pattern):
    """Operands from left to right; those of a first operand of the same kind stand for it, however long the chain."""

    operands: tuple[Pattern, ...]
    _symbol: ClassVar[str]
    _precedence: ClassVar[int]

    def __init__(self, first: Pattern, second: Pattern) -> None:
        before = first.operands if type(first) is type(self) else (first,)
        object.__setattr__(self, "operands", (*before, second))

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        return reduce(Tensor.logical_or, (pattern._allows(sets, query, key) for pattern in self.operands))

    def _labels(self) -> frozenset[int | Relation | None]:
        return frozenset().union(*(pattern._labels() for pattern in self.operands))

    @property
    def _by_formula(self) -> bool:
        return any(pattern._by_formula for pattern in self.operands)

    def __repr__(self) -> str:
        first, *others = self.operands
        told = (_bracket(pattern, self._precedence + 1) for pattern in others)
        return f" {self._symbol} ".join((_bracket(first, self._precedence), *told))


class Or(_Joined):
    """`p | q`: p's pairs, with its relations and copies, and those of q that p lacks."""

    _symbol = "|"
    _precedence = 1

    def _lower(self, sets: NodeSets) -> list[Term]:
        return unite((lowered(pattern, sets) for pattern in self.operands), sets)

    def _lower_within(self, sets: NodeSets, region: KeyRuns) -> list[Term]:
        return unite((pattern._lower_within(sets, region) for pattern in self.operands), sets)


class Plus(_Joined):
    """`p + q`: the pairs of both, with both copies of a pair that both have."""

    _symbol = "+"
    _precedence = 3

    def _lower(self, sets: NodeSets) -> list[Term]:
        return [term for pattern in self.operands for term in lowered(pattern, sets)]

    def _lower_within(self, sets: NodeSets, region: KeyRuns) -> list[Term]:
        return [term for pattern in self.operands for term in pattern._lower_within(sets, region)]


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
    own = _UNARY if isinstance(pattern, Not) else _ATOM
    if isinstance(pattern, (_Binary, _Joined)):
        own = pattern._precedence
    return repr(pattern) if own >= least else f"({pattern!r})"
