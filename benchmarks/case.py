"""The plain records that pass between cases, providers and measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from graphformer.graphs import AttentionGraph
from graphformer.patterns import Pattern

FORWARD, BOTH = "forward", "forward+backward"
MEMORY, PER_EDGE = "peak memory", "memory per edge"
BUILD, EPOCH = "build", "epoch"
FIRST, STEP = "first call", "training step"
ON, ON_MEMORY, BUILD_MEMORY, HELD = "on", "on, peak memory", "build, peak memory", "graph"
TIMED = (FORWARD, BOTH, BUILD, EPOCH, ON, FIRST, STEP)  # in seconds; the others are bytes


@dataclass(frozen=True)
class Work:
    """The least that any implementation has to do: arithmetic, rows fetched in the graph's order, rows in sequence."""

    flops: float = 0.0
    gathered_bytes: float = 0.0
    streamed_bytes: float = 0.0


@dataclass(frozen=True)
class Case:
    """Inputs, and what is asked of them.

    Attributes:
        family: The table that the case stands in.
        name: Unique in its family.
        make: Makes the inputs; called when the case runs.
        measures: What is measured, of the words above.
        providers: Who is asked, in the order of the table.
        sizes: The sizes, for the reader; results of different sizes are never compared.
        aims: measure -> provider -> how many times faster (or smaller) than it we want to be; for a provider of ours,
            the seconds or bytes to stay below.
        work: measure -> the lower bound, in parts that follow one another.
        oracle: The provider whose numbers the others must give.
        needs_data: Whether `--root` must hold the data.
        most_repeats: Rounds at most, for what takes long.
        ours_only: Measures of a part of our work that the others' has not.
        device: Where the inputs lie.
        edges: Pairs that attend, where edges a second are to be told.
        needs_s: Seconds that it takes at least; where a run has fewer left, it is skipped.
    """

    family: str
    name: str
    make: Callable[[], Any]
    measures: tuple[str, ...]
    providers: tuple[str, ...]
    sizes: str
    aims: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    work: Mapping[str, tuple[Work, ...]] = field(default_factory=dict)
    oracle: str = "reference"
    needs_data: bool = False
    most_repeats: int = 1000
    ours_only: tuple[str, ...] = ()
    device: str = "cpu"
    edges: int | None = None
    needs_s: float = 0.0

    @property
    def key(self) -> str:
        """family/name."""
        return f"{self.family}/{self.name}"


@dataclass(frozen=True)
class Attention:
    """Inputs of bare attention: queries, keys and values `[N, H, D]` on a graph.

    Attributes:
        query: Like `key`, `value` and `grad_out` of shape `[N, H, D]`, float32.
        key: See `query`.
        value: See `query`.
        grad_out: The gradient that backward starts from.
        graph: Who attends to whom.
        lengths: Nodes of each set, one after the other.
        relation_bias: Added to the score by the pair's relation. Shape `[R, H]`, or None.
        radius: Of the window, where the pattern is one.
        is_full: Whether every query attends to its whole set.
        more: Further inputs of the same kind, where a slope over their edges is asked for.
        edge_attr: Features of the edges by id, `[E, F]`, or None.
        edge_map: Brings the features into keys and values, `[F, H, D]`; comes with `edge_attr`.
        build: Makes the graph anew from what it was made of, where that is measured beside.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    grad_out: Tensor
    graph: AttentionGraph
    lengths: tuple[int, ...]
    relation_bias: Tensor | None = None
    radius: int | None = None
    is_full: bool = False
    more: tuple[Callable[[], Attention], ...] = ()
    edge_attr: Tensor | None = None
    edge_map: Tensor | None = None
    build: Callable[[], AttentionGraph] | None = None


@dataclass(frozen=True)
class Layer:
    """Inputs of a layer with its linear maps.

    Attributes:
        kind: "dot", "additive" (GATv2) or "gps" (dot attention, residual and feed-forward).
        x: Nodes, shape `[N, C]`.
        grad_out: As `x`.
        graph: Who attends to whom.
        heads: Number of heads.
        weights: Every weight, by the name that gradients are compared under.
        lengths: Nodes of each set, one after the other.
    """

    kind: str
    x: Tensor
    grad_out: Tensor
    graph: AttentionGraph
    heads: int
    weights: Mapping[str, Tensor]
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Building:
    """Something to build a graph from; `what` is "edges", "window", "full" or "union"."""

    what: str
    edge_index: Tensor | None = None
    num_nodes: int = 0
    radius: int = 0
    lengths: tuple[int, ...] = ()
    members: tuple[AttentionGraph, ...] = ()


@dataclass(frozen=True)
class Laying:
    """A pattern, and the nodes that it is laid over.

    Attributes:
        pattern: Who attends to whom.
        nodes: Whatever `pattern.on` takes.
        few: Nodes of the same kind, few enough to ask the pattern's formula about all their pairs.
        count: Tells how many pairs the pattern has over `nodes`, in another way than by laying it.
        formula: The same pairs as FlexAttention's `mask_mod(b, h, q, k)`, for `nodes` and `few` alike, or None.
    """

    pattern: Pattern
    nodes: Any
    few: Any
    count: Callable[[], int]
    formula: Callable[..., Tensor] | None = None


@dataclass(frozen=True)
class Training:
    """A data set, ready to be passed once: batches, sizes of the model, and its first weights."""

    loader: Any
    categories: tuple[int, ...]
    edge_categories: tuple[int, ...]
    reads_edges: bool
    channels: int
    heads: int
    layers: int


@dataclass(frozen=True)
class DropIn:
    """One of PyG's layers, and the like-named one of ours, on the same nodes.

    Attributes:
        layer: Name of the class.
        arguments: Of its constructor.
        options: Of its constructor, by name.
        takes: What the layer is called with after x: its own word -> the field below.
        x: Nodes `[N, C]`.
        edge_index: `[2, E]`.
        edge_attr: `[E, F]`, or None.
        batch: The set of each node, `[N]`, ascending.
        is_fresh: Whether indices are new at every step, as the batches of a loader are, so that what is made of them
            takes part in the time.
    """

    layer: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    takes: Mapping[str, str]
    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor | None
    batch: Tensor
    is_fresh: bool

    @property
    def few(self) -> DropIn:
        """The same on four nodes in a ring."""
        place = torch.arange(4)
        attr = None if self.edge_attr is None else self.edge_attr[:4]
        ring = torch.stack((place, place.roll(1)))
        return replace(self, x=self.x[:4], edge_index=ring, edge_attr=attr, batch=place // 2)


@dataclass
class Run:
    """A provider, ready to run a case.

    Attributes:
        forward: Computes the result.
        leaves: What gradients are taken of, by the provider's names.
        grad_out: Where backward starts, laid out like the result.
        common: Brings {"out": ..., **gradients} to the oracle's names and shapes.
        actions: measure -> what it executes, where that is no forward or backward; for "graph", what tells the bytes.
        note: Something the reader of the table should know.
    """

    forward: Callable[[], Tensor]
    leaves: dict[str, Tensor] = field(default_factory=dict)
    grad_out: Tensor | None = None
    common: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda named: named
    actions: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    note: str = ""

    def action(self, measure: str) -> Callable[[], object]:
        """What one measurement of `measure` executes."""
        return self.actions.get(measure, self.only_forward if measure == FORWARD else self.both)

    def only_forward(self) -> Tensor:
        """The result, with nothing kept for a backward."""
        with torch.no_grad():
            return self.forward()

    def both(self) -> tuple[Tensor, ...]:
        """The result and every gradient."""
        out = self.forward()
        return (out, *torch.autograd.grad(out, list(self.leaves.values()), self.grad_out))


@dataclass(frozen=True)
class Provider:
    """Someone who can run cases.

    Attributes:
        name: The word of `--provider` and of the tables.
        about: One line for the tables.
        why_not: (case, inputs' type, measure) -> the reason why it cannot, empty where it can.
        prepare: Lays the inputs out as it likes them, outside of any timing. Raises CannotRun for inputs that it
            cannot run at their size.
        leaves_out: Whether it does only a part of the work, as a bound for the others; the gate lets it pass.
    """

    name: str
    about: str
    why_not: Callable[[Case, str], str]
    prepare: Callable[[Case, Any], Run]
    leaves_out: bool = False


class CannotRun(Exception):
    """The message is the reason in the table."""


def rows_in_order(*layouts: tuple[Tensor, Tensor]) -> Tensor:
    """Layouts (ptr, index) as one list of integers, each row ascending: its order is the maker's affair."""
    parts = []
    for ptr, index in layouts:
        base = torch.repeat_interleave(ptr.diff()) * (int(index.max()) + 1)
        parts += [ptr.long(), torch.sort(base + index).values - base]
    return torch.cat(parts)


def pair_counts(query: Tensor, key: Tensor, num_queries: int, num_keys: int) -> Tensor:
    """How often each pair is listed. Takes `[E]` each, gives `[N, M]`."""
    return torch.bincount(query.long() * num_keys + key.long(), minlength=num_queries * num_keys).view(-1, num_keys)


def laying_run(
    make: Callable[[], Any],
    count: Callable[[Any], int],
    held: Callable[[Any], int],
    few_pairs: Callable[[], Tensor] | None = None,
    note: str = "",
) -> Run:
    """The run of a peer who lays a pattern in one step.

    Args:
        make: Makes its mask or its edge list.
        count: How many pairs that holds.
        held: How many bytes.
        few_pairs: The :func:`pair_counts` of the few nodes. None where the pairs are random, and its own.
        note: As in :class:`Run`.
    """

    def common(named: dict[str, Tensor]) -> dict[str, Tensor]:
        return named if few_pairs is None else {**named, "pairs": few_pairs().expand(2, -1, -1)}

    actions = {BUILD: make, BUILD_MEMORY: make, HELD: lambda: held(make())}
    return Run(lambda: torch.tensor([count(make())] * 2), common=common, actions=actions, note=note)


def leaves_of(*tensors: Tensor) -> list[Tensor]:
    """The tensors as leaves of their own that ask for gradients."""
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]
