"""Pictures of patterns: of the graph where it is small, of the terms, which are not enumerated, where it is large."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphformer.graphs.draw import Frame, Part, draw_cells, draw_density
from graphformer.patterns.node_sets import NodeSets, read_nodes
from graphformer.patterns.terms import Relation, RunTerm, Term, make_graph, relation_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graphformer.patterns.pattern import Nodes, Pattern


def draw(pattern: Pattern, nodes: Nodes, ax: Axes | None = None) -> Figure:
    """See :meth:`Pattern.draw`."""
    num_relations = pattern.num_relations
    sets = read_nodes(nodes, repr(pattern))
    terms = pattern.lower(sets)
    num_pairs = sum(term.num_pairs for term in terms)
    frame = Frame(repr(pattern), num_pairs, num_relations, sets.query_ptr.cpu(), sets.key_ptr.cpu())
    if frame.shows_cells:
        return draw_cells(make_graph(terms, sets, num_relations), frame, ax)
    return draw_density([_part(term, sets) for term in terms], frame, ax)


def _part(term: Term, sets: NodeSets) -> Part:
    if isinstance(term.relation, Relation):  # each pair has its own
        return Part(term.pairs(), relation_of(term, sets))
    return Part(term.runs if isinstance(term, RunTerm) else term.pairs(), term.relation)
