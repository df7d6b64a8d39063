"""Attention between the named parts of a node set, such as a text and an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from graphformer._checks import require, require_choice
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.grid import turns
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, lowered
from graphformer.patterns.terms import RunTerm, Term

Link = tuple[str, str]


@dataclass(frozen=True, repr=False, init=False)
class Between(Pattern):
    """A pattern for each link between named parts; parts without a link do not attend to one another.

    The nodes are a dict of named parts, `{"text": 5, "image": Grid(2, 3)}`: one node set in which the parts follow one
    another in this order. A part of a ragged batch is a list or a PyG `Batch`, and the nodes of the batch are ordered
    set by set, in each set part by part; a list of such dicts is a batch too, and so is a PyG `HeteroData`, its node
    types the parts. Each pattern sees its parts as node sets of their own: (source part, target part), as a bipartite
    graph, or one node set where they are the same, with its grid, and with the edges from source to target: of a
    `HeteroData` those of all its edge types between the two. The own edges of the whole are all these edges, set by
    set, and in each set type by type (in the order of the parts, or of `edge_types`).

    :func:`join_parts` brings vectors of the parts into the order of the whole, :func:`split_parts` back.

    The pairs of the i-th link carry relation i, in place of relations that its pattern gives; `as_relation` over the
    whole gives others, `EdgeType` one for each edge type.

    Args:
        links: From (source, target), the names of the parts that hold the keys and the queries, as in PyG's edge types,
            to the pattern between them.

    Raises:
        InputError: No link, a key that is no pair of names, or a value that is no pattern; nodes without named parts,
            or without the part that a link names.

    Example:
        >>> from graphformer.patterns import Causal, Full, Grid
        >>> pattern = Between({("text", "text"): Causal(), ("image", "text"): Full()})
        >>> graph = pattern.on({"text": 2, "image": Grid(1, 2)})
        >>> graph.edge_index
        tensor([[0, 2, 3, 0, 1, 2, 3],
                [0, 0, 0, 1, 1, 1, 1]])
        >>> graph.relation
        tensor([0, 1, 1, 0, 0, 1, 1], dtype=torch.int32)
    """

    links: tuple[tuple[Link, Pattern], ...]

    def __init__(self, links: Mapping[Link, Pattern]) -> None:
        remedy = 'For example Between({("text", "image"): Full()}).'
        found = type(links).__name__ if not isinstance(links, Mapping) else "none"
        require(isinstance(links, Mapping) and bool(links), "Between", "links", "hold at least one link", found, remedy)
        for link, pattern in links.items():
            named = isinstance(link, tuple) and len(link) == 2 and all(isinstance(name, str) for name in link)
            require(named, "Between", "links", "go from pairs (source, target) of names", repr(link), remedy)
            rule = f"give a pattern to {link}"
            require(isinstance(pattern, Pattern), "Between", "links", rule, type(pattern).__name__, remedy)
        object.__setattr__(self, "links", tuple(links.items()))

    def _labels(self) -> frozenset[Any]:
        return frozenset(range(len(self.links)))

    def _relation_names(self) -> dict[int, str]:
        return {relation: " -> ".join(link) for relation, (link, _) in enumerate(self.links)}

    def _lower(self, sets: NodeSets) -> list[Term]:
        return self._terms(sets, None)

    @property
    def _by_formula(self) -> bool:
        return any(pattern._by_formula for _, pattern in self.links)

    def _lower_within(self, sets: NodeSets, region: KeyRuns) -> list[Term]:
        return self._terms(sets, region)

    def _terms(self, sets: NodeSets, region: KeyRuns | None) -> list[Term]:
        out: list[Term] = []
        for relation, (link, pattern) in enumerate(self.links):
            linked = _linked(sets, link)
            if region is None:
                terms = lowered(pattern, linked)
            else:
                terms = pattern._lower_within(linked, _restrict(region, link, sets))
            out += [_place(replace(term, relation=relation), link, sets) for term in terms]
        return out

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        out = torch.zeros_like(query, dtype=torch.bool)
        for link, pattern in self.links:
            linked = _linked(sets, link)
            source_key, is_source = _find(sets.part_keys[link[0]], key)
            target_query, is_target = _find(sets.part_queries[link[1]], query)
            here = is_source & is_target
            out[here] = pattern._allows(linked, target_query[here], source_key[here])
        return out

    def __repr__(self) -> str:
        return f"Between({dict(self.links)!r})"


def _linked(sets: NodeSets, link: Link) -> NodeSets:
    """The two parts of a link as node sets of their own."""
    where, (source, target) = sets.where, link
    both = bool(sets.key_parts) and bool(sets.query_parts)
    remedy = 'For example {"text": 5, "image": Grid(2, 3)}, or a PyG HeteroData.'
    require(both, where, "nodes", "be a dict of named parts", "nodes without parts", remedy)
    require_choice(source, sets.key_parts, where, "source")
    require_choice(target, sets.query_parts, where, "target")
    return sets.link(source, target)


def _place(term: Term, link: Link, sets: NodeSets) -> Term:
    """A term over the parts as a term over the whole."""
    key, query = sets.part_keys[link[0]], sets.part_queries[link[1]]
    if isinstance(term, RunTerm):
        runs = term.runs
        ptr = torch.zeros(sets.num_queries + 1, dtype=torch.int64, device=sets.device)
        ptr[query + 1] = runs.ptr.diff()
        start, stop = key[runs.start], key[runs.stop - 1] + 1  # a run stays inside a set, where a part's keys follow on
        return replace(term, runs=KeyRuns(ptr.cumsum(0), start, stop, sets.num_keys))
    own_edge = term.own_edge
    if bool((own_edge >= 0).any()):
        held = [place for kind, place in sets.edge_places.items() if (kind[0], kind[-1]) == link]
        own_edge = torch.where(own_edge >= 0, torch.cat(held)[own_edge.clamp(min=0)], -1)
    return replace(term, query=query[term.query], key=key[term.key], own_edge=own_edge)


def _restrict(region: KeyRuns, link: Link, sets: NodeSets) -> KeyRuns:
    """The pairs of a region over the whole that lie between the two parts, as pairs of these."""
    key, query = sets.part_keys[link[0]], sets.part_queries[link[1]]
    row, turn = turns(region.ptr.diff()[query])
    run = region.ptr[query][row] + turn
    start, stop = (torch.searchsorted(key, end[run]) for end in (region.start, region.stop))
    return KeyRuns.from_runs(row, start, stop, query.numel(), key.numel())


def _find(members: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
    """The place of each node among a part's ascending members, and whether it is one of them."""
    place = torch.searchsorted(members, node)
    is_member = torch.cat((members, members.new_full((1,), -1)))[place] == node
    return place, is_member
