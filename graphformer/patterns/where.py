"""Patterns from a formula: a function of the user's own that is asked about pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphformer._checks import refuse, require
from graphformer._errors import InputError
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.functions import call, name_of, num_required
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_whole
from graphformer.patterns.terms import RunTerm, Term

_REMEDY = "Make its tables long enough; join comparisons by & | ~ or torch.where, not by Python's if, and, or."
_RULE = "answer for every pair of places in the set"
_SAMPLE = 256  # pairs of each kind that other heads are asked about
_OTHER_HEADS = (1, 2, 3, 7)


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
            number of the set in the batch. Functions of a module can be pickled, lambdas not.
        head: The head h that a `mask_mod` is asked about. Default: all heads have the same pairs; h is 0, and a
            `mask_mod` that answers otherwise for other heads on a bounded sample of the pairs is refused. Heads with
            pairs of their own are one graph over copies of the nodes, see :func:`fold_heads`: the union of the heads'
            graphs, in order.

    Raises:
        InputError: A function of other arguments, or one that raises; a result that is not bool, or not one for each
            pair; heads that differ where no head is named; a head for a function of (query, key).

    Example:
        >>> Where(lambda query, key: (query - key) % 3 == 0).on(5).edge_index
        tensor([[0, 3, 1, 4, 2, 0, 3, 1, 4],
                [0, 0, 1, 1, 2, 3, 3, 4, 4]])
        >>> def causal(b, h, q_idx, kv_idx):
        ...     return q_idx >= kv_idx
        >>> Where(causal).on([400, 300])
        AttentionGraph(700 nodes, 125350 edges, density 25.6%, 0 duplicates, 0 empty rows)
        >>> from graphformer import AttentionGraph
        >>> def reach(b, h, q_idx, kv_idx):
        ...     return (q_idx - kv_idx).abs() <= h
        >>> AttentionGraph.union([Where(reach, head=h).on(6) for h in range(3)])
        AttentionGraph(18 nodes, 46 edges, density 14.2%, 0 duplicates, 0 empty rows)
    """

    fn: Callable[..., Any]
    head: int | None = None

    def __post_init__(self) -> None:
        if _num_arguments(self.fn) == 2:
            remedy = "Write a mask_mod(b, h, q, k)."
            require(self.head is None, "Where", "head", "be None for a function of (query, key)", self.head, remedy)
        elif self.head is not None:
            check_whole(self, "head", low=0)

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
        if _num_arguments(self.fn) == 2:
            place = sets.local_query[query], sets.local_key[key]
            allowed = call(self.fn, place, repr(self), _RULE, _REMEDY)
        else:
            allowed = self._ask(sets, query, key, self.head or 0)
        fits = isinstance(allowed, Tensor) and allowed.dtype == torch.bool and allowed.shape == query.shape
        if not fits:
            found = f"{allowed.dtype} {list(allowed.shape)}" if isinstance(allowed, Tensor) else type(allowed).__name__
            remedy = "Compare the indices element by element, for example query - key < 3."
            refuse(repr(self), "fn", f"give a bool tensor of shape [E] = {list(query.shape)}", found, remedy)
        if _num_arguments(self.fn) == 4 and self.head is None:
            self._check_heads(sets, query, key, allowed)
        return allowed

    def _ask(self, sets: NodeSets, query: Tensor, key: Tensor, head: int) -> Tensor:
        ask = torch.vmap(lambda *ids: torch.as_tensor(self.fn(*ids), device=sets.device))
        ids = sets.query_set[query], torch.full_like(query, head), sets.local_query[query], sets.local_key[key]
        return call(ask, ids, repr(self), _RULE, _REMEDY)

    def _check_heads(self, sets: NodeSets, query: Tensor, key: Tensor, allowed: Tensor) -> None:
        """Refuse a mask_mod whose heads differ from head 0 on a sample: pairs drawn, and where the answer changes."""
        changes = (allowed[1:] != allowed[:-1]).nonzero().flatten()[:_SAMPLE]  # heads of other reach differ there
        drawn = torch.randint(query.numel(), (_SAMPLE,), generator=torch.Generator().manual_seed(0))
        sample = torch.cat((changes, changes + 1, drawn.to(changes.device)))
        for head in _OTHER_HEADS:
            try:
                same = torch.equal(self._ask(sets, query[sample], key[sample], head), allowed[sample])
            except InputError:  # it looks heads up in a table that has fewer
                same = False
            remedy = "Name one, Where(fn, head=h); AttentionGraph.union unites the heads' graphs for fold_heads."
            require(same, repr(self), "fn", "give all heads the same pairs", f"other pairs for head {head}", remedy)

    def __repr__(self) -> str:
        return f"Where({name_of(self.fn)})" if self.head is None else f"Where({name_of(self.fn)}, head={self.head})"


def _num_arguments(fn: Callable[..., Any]) -> int:
    """2 for fn(query, key), 4 for mask_mod(b, h, q, k); refuses anything else."""
    rule, remedy = (
        "be a function of (query, key) or (b, h, q, k)",
        "Write def fn(query, key), or a mask_mod(b, h, q, k).",
    )
    return num_required(fn, (2, 4), "Where", rule, remedy)
