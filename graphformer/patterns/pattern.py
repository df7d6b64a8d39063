"""The base of all patterns: the algebra's operators, the two views, and the doors to graphs, PyG and pictures."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphformer import graphs
from graphformer._checks import plain_integer, refuse, require, require_count
from graphformer._transforms import keep
from graphformer.graphs import AttentionGraph
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.draw import draw
from graphformer.patterns.node_sets import NodeSets, read_nodes
from graphformer.patterns.terms import PairTerm, Relation, RunTerm, Term, make_graph

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Nodes = Any  # a count, a Grid, a list of these, PyG data, a dict of named parts, or a tuple (key nodes, query nodes)

_LIMIT = 2**31


@dataclass(frozen=True, repr=False)
class Pattern:
    """A symbolic rule for which queries attend to which keys, inside each set of a ragged batch and never across sets.

    Patterns compare and hash by value, and their repr is an expression that :func:`parse` reads back. With patterns
    `p` and `q`:

    * `p | q` has p's pairs, with its relations and copies, and adds those of q that p lacks.
    * `p + q` keeps both copies of a pair that both have.
    * `p & q` has p's pairs that q has too, `p - q` those that q has not; relations and copies are p's.
    * `~p` has the pairs inside each set that p leaves out.

    `nodes` is, everywhere: a count, a :class:`Grid`, a list of these (a ragged batch), a tensor of lengths `[B]`, a PyG
    `Data` or `Batch`, a list of `Data`, a dict of named parts or a PyG `HeteroData` (see :class:`Between`), or a tuple
    (key nodes, query nodes) of these for a bipartite graph.

    A pattern of your own is :class:`Where` over a formula, :class:`Pairs` over a function that lists edges, or a frozen
    dataclass with two methods, which check each other in tests: `_lower`, its terms, and `_allows`, its formula. Both
    see :class:`~graphformer.patterns.node_sets.NodeSets`. :func:`graphformer.testing.check_pattern` tries it out.

    Example:
        >>> from graphformer.patterns import Causal, RunTerm, Window
        >>> pattern = Window(3) & Causal()
        >>> pattern
        Window(radius=3) & Causal()
        >>> pattern.on([5, 2])
        AttentionGraph(7 nodes, 17 edges, density 34.7%, 0 duplicates, 0 empty rows)
        >>> @dataclass(frozen=True, repr=False)
        ... class Previous(Pattern):
        ...     def _lower(self, sets):
        ...         return [RunTerm(sets.runs(sets.local_query - 1, sets.local_query))]
        ...     def _allows(self, sets, query, key):
        ...         return sets.local_query[query] - sets.local_key[key] == 1
        >>> (Previous() | Window(0)).on(3).edge_index
        tensor([[0, 0, 1, 1, 2],
                [0, 1, 1, 2, 2]])
    """

    # ---------------------------------------------------------------- what a pattern gives

    def _lower(self, sets: NodeSets) -> list[Term]:
        """The terms of the pattern over these sets; how many and of which kind must not depend on the sets."""
        raise NotImplementedError(f"{type(self).__name__} must define _lower(sets)")

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        """The formula for pairs of one set, given by global ids. Takes and gives shape `[E]`; bool."""
        raise NotImplementedError(f"{type(self).__name__} must define _allows(sets, query, key)")

    def _labels(self) -> frozenset[int | Relation | None]:
        """The relations of the pattern's terms, None for a term without one."""
        return frozenset((None,))

    def _relation_names(self) -> dict[int, str]:
        """What pictures call the pattern's relations, where these have names."""
        return {}

    # Which pairs a user's formula allows is known only by asking about each. `&` and `-` lower a pattern that holds one
    # within the other pattern, so that nothing asks about all pairs where a structured pattern leaves few.

    @property
    def _by_formula(self) -> bool:
        """Whether lowering the pattern by itself asks about every pair of a set."""
        return False

    def _lower_within(self, sets: NodeSets, region: KeyRuns) -> list[Term]:
        """The terms of the pattern, without the pairs that are not in the region."""
        return [term.keep(region) for term in lowered(self, sets)]

    # ---------------------------------------------------------------- views

    def on(self, nodes: Nodes, *, within: KeyRuns | None = None) -> AttentionGraph:
        """The attention graph of the pattern over node sets, ordered by query, keys ascending.

        Args:
            nodes: A count, a :class:`Grid`, a list of these, PyG data, a dict of named parts, or a tuple
                (key nodes, query nodes).
            within: The pairs that are left of the pattern's, by global ids; None: all.

        Returns:
            A graph on the nodes' device. It carries `relation` where the pattern is labelled, and `own_edge` where a
            term of the pattern is the node set's own edges.

        Raises:
            InputError: Nodes that cannot be read, or that lack the edges that the pattern needs.

        Example:
            >>> from graphformer.patterns import Window
            >>> Window(1).on(3).edge_index
            tensor([[0, 1, 0, 1, 2, 1, 2],
                    [0, 0, 1, 1, 1, 2, 2]])
        """
        return keep(lambda: self._lay(nodes, within))

    def _lay(self, nodes: Nodes, within: KeyRuns | None) -> AttentionGraph:
        num_relations = self.num_relations
        sets = read_nodes(nodes, repr(self))
        terms = lowered(self, sets) if within is None else self._lower_within(sets, within)
        return make_graph(terms, sets, num_relations)

    def lower(self, nodes: Nodes) -> list[Term]:
        """The terms of the pattern: runs of keys and explicit pairs, see :mod:`graphformer.patterns`.

        Example:
            >>> from graphformer.patterns import Window
            >>> Window(64).lower(1000)
            [RunTerm(runs=KeyRuns(1000 queries, 1000 keys, 1000 runs, 124840 pairs), relation=None)]
        """
        return lowered(self, read_nodes(nodes, repr(self)))

    def allows(self, query: Tensor, key: Tensor, nodes: Nodes) -> Tensor:
        """Whether each query may attend to each key: the pattern's formula, without its lowering.

        Args:
            query: Global ids, a tensor. Any integer dtype, shape `[E]` or any that broadcasts with `key`.
            key: Global ids, likewise.
            nodes: As in :meth:`on`.

        Returns:
            bool tensor of the broadcast shape; False across sets.

        Raises:
            InputError: An id out of range, shapes that do not broadcast, or nodes that cannot be read.

        Example:
            >>> import torch
            >>> from graphformer.patterns import Causal
            >>> i = torch.arange(3)
            >>> Causal().allows(i[:, None], i, 3).int()
            tensor([[1, 0, 0],
                    [1, 1, 0],
                    [1, 1, 1]], dtype=torch.int32)
        """
        sets = read_nodes(nodes, repr(self))
        query = _check_ids(query, "query", sets.num_queries).to(sets.device)
        key = _check_ids(key, "key", sets.num_keys).to(sets.device)
        shape = _common_shape(query, key)
        query, key = query.expand(shape).reshape(-1), key.expand(shape).reshape(-1)
        same_set = sets.query_set[query] == sets.key_set[key]
        return (same_set & self._allows(sets, query, key)).view(shape)

    def count(self, nodes: Nodes) -> int:
        """Number of pairs over these nodes, copies counted; runs are counted without being enumerated.

        Example:
            >>> from graphformer.patterns import Full
            >>> Full().count(1_000_000)
            1000000000000
        """
        return sum(term.num_pairs for term in self.lower(nodes))

    @property
    def num_relations(self) -> int:
        """Largest relation of the pattern plus 1, 0 where it is not labelled: the same for every sample of a data set.

        Raises:
            InputError: Some terms carry a relation and some do not.
        """
        labels = self._labels()
        require(
            labels == {None} or None not in labels,
            "Pattern",
            "relations",
            "be given to all terms or to none",
            repr(self),
            "Label the other terms too, with .as_relation(r).",
        )
        counts = (label.num_relations if isinstance(label, Relation) else label + 1 for label in labels - {None})  # type: ignore[operator]
        return max(counts, default=0)

    # ---------------------------------------------------------------- doors

    def __call__(self, data: Any) -> Any:
        """The pattern as a PyG transform: a shallow copy of `data` that carries its attention graph.

        Batches that a PyG `DataLoader` makes of such samples have the union of their graphs.

        Example:
            >>> import torch
            >>> from torch_geometric.data import Data
            >>> from graphformer.patterns import Full
            >>> Full()(Data(x=torch.zeros(3, 1))).attention_graph
            AttentionGraph(3 nodes, 9 edges, density 100.0%, 0 duplicates, 0 empty rows)
        """
        return graphs.attach(data, self.on(data))

    def draw(self, nodes: Nodes, ax: Axes | None = None, *, title: str | None = None) -> Figure:
        """A picture of the pattern: queries down, keys across; needs no display.

        Up to 96 nodes a side show one cell a pair, coloured by relation or by the number of copies; more show the
        density of pairs, mixed of the relations' colours, counted on runs without their pairs. Grey places lie between
        two sets; dashed lines are the borders of named parts.

        Args:
            nodes: As in :meth:`on`.
            ax: matplotlib axes to draw into. Default: a new figure.
            title: Default: the pattern's repr.

        Returns:
            The matplotlib figure; save it with `figure.savefig("window.png")`.

        Example:
            >>> from graphformer.patterns import Window
            >>> type(Window(3).draw(32)).__name__
            'Figure'
        """
        return draw(self, nodes, ax, title)

    # ---------------------------------------------------------------- algebra

    def as_relation(self, relation: int | Relation) -> Pattern:
        """The same pairs, each with this relation: an integer, 0 or more, or a rule that gives each pair its own.

        Relations choose rows of `attend`'s relation tables. Of a pattern made of several terms, either all are
        labelled or none. The rules are :class:`Distance`, :class:`Offset2d`, :class:`ShortestPath`, :class:`EdgeType`
        and your own, see :class:`Relation`.

        Example:
            >>> from graphformer.patterns import Edges, Full
            >>> pattern = Edges().as_relation(0) | Full().as_relation(1)
            >>> pattern.num_relations
            2
        """
        from graphformer.patterns.compose import Labelled

        return Labelled(self, relation)

    def __or__(self, other: Pattern) -> Pattern:
        return self._compose("Or", other)

    def __add__(self, other: Pattern) -> Pattern:
        return self._compose("Plus", other)

    def __and__(self, other: Pattern) -> Pattern:
        return self._compose("And", other)

    def __sub__(self, other: Pattern) -> Pattern:
        return self._compose("Minus", other)

    def __invert__(self) -> Pattern:
        from graphformer.patterns.compose import Not

        return Not(self)

    def __bool__(self) -> bool:
        remedy = "Write & for `and`, | for `or`, ~ for `not`; whether there is a pattern, ask by `is None`."
        refuse("Pattern", "pattern", "not be asked for its truth", repr(self), remedy)

    def _compose(self, operation: str, other: Pattern) -> Pattern:
        from graphformer.patterns import compose

        return getattr(compose, operation)(self, other) if isinstance(other, Pattern) else NotImplemented

    def __repr__(self) -> str:
        told = (field for field in fields(self) if getattr(self, field.name) != field.default)
        return f"{type(self).__name__}({', '.join(f'{field.name}={getattr(self, field.name)!r}' for field in told)})"


def lowered(pattern: Pattern, sets: NodeSets) -> list[Term]:
    """The terms of a pattern, once they are seen to be such: its class may be a user's own."""
    terms: Any = pattern._lower(sets)
    fits = isinstance(terms, list) and bool(terms) and all(isinstance(term, (RunTerm, PairTerm)) for term in terms)
    found = f"{len(terms)} entries" if isinstance(terms, list) else type(terms).__name__
    remedy = "A pattern without pairs gives [RunTerm(sets.runs(0, 0))]."
    require(fits, repr(pattern), "_lower", "give a list of at least one RunTerm or PairTerm", found, remedy)
    own = all(isinstance(term, RunTerm) for term in terms) or sets.has_edges
    remedy = "Give other pairs as a RunTerm of KeyRuns.from_pairs."
    require(own, repr(pattern), "_lower", "give a PairTerm only for nodes that hold edge_index", "no edges", remedy)
    return terms


def check_whole(pattern: Pattern, argument: str, low: int, where: str | None = None) -> None:
    """Refuse a field of a pattern that is not an integer in [low, 2^31), and hold it as a plain one."""
    value = getattr(pattern, argument)
    number = plain_integer(value)
    require(
        number is not None and low <= number < _LIMIT,
        where or type(pattern).__name__,
        argument,
        f"be an integer, {low} or more and below 2^31",
        repr(value),
        "Pass a plain integer.",
    )
    object.__setattr__(pattern, argument, number)


def check_axes(pattern: Pattern, argument: str, low: int) -> None:
    """Refuse a field of a pattern that is neither an integer in [low, 2^31) nor a tuple of such; hold plain ones."""
    value = getattr(pattern, argument)
    entries = tuple(plain_integer(entry) for entry in (value if isinstance(value, tuple) else (value,)))
    require(
        bool(entries) and all(entry is not None and low <= entry < _LIMIT for entry in entries),
        type(pattern).__name__,
        argument,
        f"be an integer, {low} or more and below 2^31",
        repr(value),
        "Pass a plain integer, or a tuple with one an axis.",
    )
    object.__setattr__(pattern, argument, entries if isinstance(value, tuple) else entries[0])


def check_count(rule: Any, argument: str, remedy: str = "Pass a count.", minimum: int = 1) -> None:
    """Refuse a field that is no integer of at least the minimum, 0 or 1, and hold it as a plain one."""
    value = getattr(rule, argument)
    require_count(value, type(rule).__name__, argument, remedy, minimum)
    object.__setattr__(rule, argument, plain_integer(value))


def check_seed(rule: Any) -> None:
    """Refuse a seed that is not a 64-bit integer, and hold it as a plain one."""
    seed = plain_integer(rule.seed)
    fits = seed is not None and -(2**63) <= seed < 2**63
    remedy = "Pass a plain integer."
    require(fits, type(rule).__name__, "seed", "be a 64-bit integer", repr(rule.seed), remedy)
    object.__setattr__(rule, "seed", seed)


def check_flag(pattern: Pattern, argument: str) -> None:
    """Refuse a field of a pattern that is not a boolean."""
    value = getattr(pattern, argument)
    require(
        isinstance(value, bool), type(pattern).__name__, argument, "be True or False", repr(value), "Pass a boolean."
    )


def _check_ids(ids: Any, argument: str, limit: int) -> Tensor:
    where = "Pattern.allows"
    found = type(ids).__name__
    require(isinstance(ids, Tensor), where, argument, "be a tensor", found, "Convert it with torch.as_tensor.")
    integer = not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)
    require(integer, where, argument, "hold integers", ids.dtype, "Pass global ids, not a mask.")
    low, high = (int(ids.min()), int(ids.max())) if ids.numel() else (0, -1)
    wrong = low if low < 0 else high
    remedy = "Ids are global: they count over all sets of the batch."
    require(low >= 0 and high < limit, where, argument, f"hold ids in [0, {limit})", wrong, remedy)
    return ids.long()


def _common_shape(query: Tensor, key: Tensor) -> torch.Size:
    try:
        return torch.broadcast_shapes(query.shape, key.shape)
    except RuntimeError:
        remedy = "Pass pairs of equal shape, or query[:, None] for all pairs."
        found = f"{list(query.shape)} and {list(key.shape)}"
        refuse("Pattern.allows", "query and key", "have shapes that broadcast", found, remedy)
