"""Pictures of patterns: of the graph where it is small, of the terms, which are not enumerated, where it is large."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphformer.graphs.draw import Frame, Part, draw_cells, draw_density
from graphformer.graphs.layout import index_dtype
from graphformer.patterns.node_sets import NodeSets, read_nodes
from graphformer.patterns.terms import Relation, RunTerm, Term, make_graph, relation_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graphformer.patterns.pattern import Nodes, Pattern


def draw(pattern: Pattern, nodes: Nodes, ax: Axes | None = None, title: str | None = None) -> Figure:
    """See :meth:`Pattern.draw`."""
    num_relations = pattern.num_relations
    sets = read_nodes(nodes, repr(pattern))
    terms = pattern.lower(sets)
    frame = Frame(
        _whole_tuples(repr(pattern)) if title is None else title,
        sum(term.num_pairs for term in terms),
        num_relations,
        sets.query_ptr.cpu(),
        sets.key_ptr.cpu(),
        pattern._relation_names(),
        _borders(sets.part_queries, sets.query_ptr),
        _borders(sets.part_keys, sets.key_ptr),
    )
    if frame.shows_cells:
        return draw_cells(make_graph(terms, sets, num_relations), frame, ax)
    return draw_density([_part(term, sets) for term in terms], frame, ax)


def _part(term: Term, sets: NodeSets) -> Part:
    pairs, rule = term.runs if isinstance(term, RunTerm) else term.pairs(), term.relation
    if isinstance(rule, Relation):  # each pair has its own
        return Part(pairs, relation_of(term, sets, index_dtype(rule.num_relations)))
    return Part(pairs, rule)


def _whole_tuples(text: str) -> str:
    """The same text with spaces inside tuples that no line breaks at."""
    return re.sub(r"(?<!\w)\([^()]*\)", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)


def _borders(members: dict[str, Tensor], ptr: Tensor) -> list[int]:
    """The first nodes of parts that do not begin a set."""
    part = torch.zeros(int(ptr[-1]), dtype=torch.int64)
    for number, ids in enumerate(members.values()):
        part[ids.cpu()] = number
    first = 1 + (part[1:] != part[:-1]).nonzero().flatten()
    return first[~torch.isin(first, ptr.cpu())].tolist()
