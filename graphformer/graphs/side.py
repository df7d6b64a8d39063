"""One side of an attention graph: its pairs grouped by query, or by key, as far as somebody asked for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from graphformer._transforms import keep
from graphformer.graphs.layout import Layout, transpose_layout
from graphformer.graphs.runs import KeyRuns
from graphformer.graphs.spans import Spans, measure_spans
from graphformer.graphs.tasks import RelationPairs, Tasks, make_tasks, pairs_by_relation
from graphformer.graphs.tiles import Tiles, make_tiles, make_tiles_of_runs


class Side:
    """Rows of pairs, held as a layout, or as runs of the other end where these are far fewer than the pairs.

    `num_pairs` counts the pairs, copies too.

    A side of runs enumerates its pairs when :attr:`layout` is asked for, and not before: the `native` backend walks the
    runs. Edge ids are then the positions by query. Tiles and layout are made once and kept.

    Args:
        num_others: Number of nodes at the other end.
        layout: The pairs; or
        runs: the pairs, each once.
        by_query: Where this side is by key and given as runs: the other side, whose positions are the edge ids.
    """

    def __init__(
        self,
        num_others: int,
        *,
        layout: Layout | None = None,
        runs: KeyRuns | None = None,
        by_query: Side | None = None,
    ) -> None:
        self.num_others = num_others
        self.runs = runs
        self._by_query = by_query
        self._layout = layout
        self._ptr = None if runs is None else runs.pair_ptr
        self.num_pairs = self.layout.index.shape[0] if runs is None else runs.num_pairs
        self._tiles: tuple[Tiles | None] | None = None  # in a tuple, once made
        self._tasks: Tasks | None = None
        self._spans: Spans | None = None
        self._by_relation: tuple[Tensor, RelationPairs] | None = None  # and the relations that they are grouped by

    @property
    def ptr(self) -> Tensor:
        """Offsets of the rows' pairs. Shape `[num_rows + 1]`, int64."""
        return self.layout.ptr if self._ptr is None else self._ptr

    @property
    def num_rows(self) -> int:
        """Number of nodes on this side."""
        return self.ptr.shape[0] - 1

    @property
    def num_runs(self) -> int:
        """Number of runs that this side is held as, 0 where its pairs are listed."""
        return 0 if self.runs is None else self.runs.start.shape[0]

    @property
    def is_complete(self) -> bool:
        """Whether this side is held as one run of all nodes of the other end for each row."""
        return self.num_runs == self.num_rows and self.num_pairs == self.num_rows * self.num_others

    @property
    def layout(self) -> Layout:
        """The pairs, enumerated."""
        if self._layout is None:
            self._layout = keep(self._list)
        return self._layout

    def _list(self) -> Layout:
        assert self.runs is not None
        if self._by_query is not None:
            return transpose_layout(self._by_query.layout, self.num_rows)
        return self.runs.layout(self.num_pairs)

    @property
    def tiles(self) -> Tiles | None:
        """Windows of 32 rows with what they share; None where no window shares enough, or off the CPU.

        torch.compile uses those that are there and makes none.
        """
        if self._tiles is None:
            if torch.compiler.is_compiling() or type(self.ptr) is not Tensor or self.ptr.device.type != "cpu":
                return None
            self._tiles = (keep(self._tile),)
        return self._tiles[0]

    @property
    def tasks(self) -> Tasks | None:
        """The work list of kernels on a GPU; None inside torch.compile where nobody has asked before."""
        if self._tasks is None and not torch.compiler.is_compiling() and type(self.ptr) is Tensor:
            self._tasks = keep(lambda: make_tasks(self.ptr, self.num_pairs))
        return self._tasks

    def by_relation(self, relation: Tensor, num_relations: int) -> RelationPairs | None:
        """The pairs grouped by relation, kept; None inside torch.compile where nobody has asked before."""
        held = self._by_relation
        if held is not None and held[0] is relation:
            return held[1]
        if torch.compiler.is_compiling() or type(self.ptr) is not Tensor:
            return None
        pairs = keep(lambda: pairs_by_relation(self.layout, relation, num_relations))
        self._by_relation = relation, pairs
        return pairs

    @property
    def spans(self) -> Spans | None:
        """What tiles would walk along the runs, measured once; None without runs, or where torch.compile asks first."""
        runs = self.runs
        if self._spans is None and runs is not None:
            if torch.compiler.is_compiling() or type(self.ptr) is not Tensor:
                return None
            self._spans = keep(lambda: measure_spans(runs, self.num_pairs))
        return self._spans

    def prepare(self, relation: Tensor | None = None, num_relations: int = 0) -> None:
        """Make what a kernel on this device otherwise makes when first called; with the graph's relations, if given."""
        if self.ptr.device.type == "cpu":
            _ = self.tiles
        elif self.spans is None:
            _ = self.tasks
            if relation is not None:
                self.by_relation(relation, num_relations)

    def _tile(self) -> Tiles | None:
        if self.runs is not None:
            return make_tiles_of_runs(self.runs)
        return make_tiles(self.layout, self.num_rows, self.num_others)

    def transpose(self) -> Side:
        """The other side of the same graph, this one being by query.

        It is held as runs too, where these are few; torch.compile, which needs shapes that do not depend on data, lists
        the pairs.
        """
        return keep(self._transpose)

    def _transpose(self) -> Side:
        if self.runs is not None and not torch.compiler.is_compiling():
            runs = self.runs.transpose()
            if runs.are_few(self.num_pairs):
                return Side(self.num_rows, runs=runs, by_query=self)
        return Side(self.num_rows, layout=transpose_layout(self.layout, self.num_others))

    def tensors(self) -> Iterable[Tensor | None]:
        """What is held beside tiles."""
        runs = () if self.runs is None else (self.runs.ptr, self.runs.start, self.runs.stop)
        return (self.ptr, *runs, *(self._layout or ())[1:])

    def state(self) -> dict[str, Any]:
        """Plain containers of tensors, as the restricted unpickler reads them; a layout that runs can give is left."""
        runs = self.runs
        return {
            "num_others": self.num_others,
            "num_pairs": self.num_pairs,
            "runs": None if runs is None else (runs.ptr, runs.start, runs.stop),
            "layout": None if runs is not None else tuple(self.layout),
            "ptr": self._ptr,
            "spans": None if self._spans is None else tuple(self._spans),
            "tiles": None if self._tiles is None else tuple(None if t is None else tuple(t) for t in self._tiles),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], by_query: Side | None = None) -> Side:
        """The side that :meth:`state` describes."""
        out = cls.__new__(cls)
        out._by_query = None if state["runs"] is None else by_query
        out.num_others, out.num_pairs, out._ptr = state["num_others"], state["num_pairs"], state["ptr"]
        runs = state["runs"]
        out.runs = None if runs is None else KeyRuns(runs[0], runs[1], runs[2], state["num_others"])
        out._layout = None if state["layout"] is None else Layout(*state["layout"])
        out._spans = None if state["spans"] is None else Spans(*state["spans"])
        tiles = state["tiles"]
        out._tiles = None if tiles is None else (None if tiles[0] is None else Tiles(*tiles[0]),)
        out._tasks = None
        out._by_relation = None
        return out
