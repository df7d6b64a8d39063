"""Patterns from a formula: a function of the user's own that is asked about pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphformer._checks import refuse
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.functions import call, name_of, num_required
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern
from graphformer.patterns.terms import RunTerm, Term

_REMEDY = "Make its tables long enough; join comparisons by & | ~ or torch.where, not by Python's if, and, or."


@dataclass(frozen=True, repr=False)
class Where(Pattern):
    """The pairs that a formula allows: `fn(query, key)`, or FlexAttention's `mask_mod(b, h, q, k)` as it is.

    By itself it asks about every pair of a set, a bounded number at a time: N^2 time, and the memory of the runs that
    it finds. `structured & Where(fn)` and `structured - Where(fn)` ask about the pairs of `structured` only. Such a
    pattern equals another where the function is the same one, and has no text for :func:`parse` to read back.

    Args:
        fn: The number of its required arguments tells which it is. `fn(query, key)` takes places in the set, two int64
            tensors of shape `[E]`, and gives a bool tensor of shape `[E]`. `mask_mod(b, h, q, k)` takes four integers
            without a dimension, and gives a bool (it is run under `torch.vmap`, as FlexAttention runs it); b is the
            number of the set in the batch, h is 0. Functions of a module can be pickled, lambdas not.

    Raises:
        InputError: A function of other arguments, or one that raises; a result that is not bool, or not one for each
            pair.

    Example:
        >>> Where(lambda query, key: (query - key) % 3 == 0).on(5).edge_index
        tensor([[0, 3, 1, 4, 2, 0, 3, 1, 4],
                [0, 0, 1, 1, 2, 3, 3, 4, 4]])
        >>> def causal(b, h, q_idx, kv_idx):
        ...     return q_idx >= kv_idx
        >>> Where(causal).on([400, 300])
        AttentionGraph(700 nodes, 125350 edges, density 25.6%, 0 duplicates, 0 empty rows)
    """

    fn: Callable[..., Any]

    def __post_init__(self) -> None:
        _num_arguments(self.fn)

    @property
    def _by_formula(self) -> bool:
        return True

    def _lower(self, sets: NodeSets) -> list[Term]:
        return self._lower_within(sets, sets.runs(0, sets.set_keys))

    def _lower_within(self, sets: NodeSets, region: KeyRuns) -> list[Term]:
        return [RunTerm(region.filter(lambda query, key: self._allows(sets, query, key)))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        if query.numel() == 0:
            return torch.zeros_like(query, dtype=torch.bool)
        place = sets.local_query[query], sets.local_key[key]
        rule = "answer for every pair of places in the set"
        if _num_arguments(self.fn) == 2:
            allowed = call(self.fn, place, repr(self), rule, _REMEDY)
        else:
            ask = torch.vmap(lambda *ids: torch.as_tensor(self.fn(*ids), device=sets.device))
            ids = sets.query_set[query], torch.zeros_like(query), *place
            allowed = call(ask, ids, repr(self), rule, _REMEDY)
        fits = isinstance(allowed, Tensor) and allowed.dtype == torch.bool and allowed.shape == query.shape
        if not fits:
            found = f"{allowed.dtype} {list(allowed.shape)}" if isinstance(allowed, Tensor) else type(allowed).__name__
            remedy = "Compare the indices element by element, for example query - key < 3."
            refuse(repr(self), "fn", f"give a bool tensor of shape [E] = {list(query.shape)}", found, remedy)
        return allowed

    def __repr__(self) -> str:
        return f"Where({name_of(self.fn)})"


def _num_arguments(fn: Callable[..., Any]) -> int:
    """2 for fn(query, key), 4 for mask_mod(b, h, q, k); refuses anything else."""
    rule, remedy = (
        "be a function of (query, key) or (b, h, q, k)",
        "Write def fn(query, key), or a mask_mod(b, h, q, k).",
    )
    return num_required(fn, (2, 4), "Where", rule, remedy)
