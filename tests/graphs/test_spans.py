"""What tiles would walk, against tiles walked by hand."""

from __future__ import annotations

import pickle

import pytest
import torch

from graphformer.graphs import AttentionGraph
from graphformer.graphs.runs import KeyRuns
from graphformer.graphs.spans import SHORT, TALL, Spans, measure_spans
from graphformer.patterns import Causal, Full, Global, Pattern, Window


def _walk(runs: KeyRuns, height: int) -> float:
    rows = [
        [(int(runs.start[r]), int(runs.stop[r])) for r in range(int(runs.ptr[i]), int(runs.ptr[i + 1]))]
        for i in range(runs.num_queries)
    ]
    area = 0
    for first in range(0, len(rows), height):
        tile = rows[first : first + height]
        for turn in range(max(map(len, tile))):
            there = [row[turn] for row in tile if turn < len(row)]
            area += height * (max(stop for _, stop in there) - min(start for start, _ in there))
    return runs.num_pairs / area


@pytest.mark.parametrize(
    ("pattern", "nodes"),
    [
        (Full(), 100),
        (Full(), [26, 0, 17, 90]),
        (Causal(), 130),
        (Window(40) | Global(2), 150),
        (Full() - Window(20), 200),
    ],
    ids=str,
)
def test_spans_are_those_of_a_walk(pattern: Pattern, nodes: object) -> None:
    graph = pattern.on(nodes)
    for side in (graph.query_side, graph.key_side):
        assert side.runs is not None
        spans = side.spans
        assert spans is not None
        assert spans.most_runs == int(side.runs.ptr.diff().max())
        assert spans.short_fill == pytest.approx(_walk(side.runs, SHORT))
        assert spans.tall_fill == pytest.approx(_walk(side.runs, TALL))


def test_rows_of_many_runs_and_of_none() -> None:
    mask = torch.zeros(4, 60, dtype=torch.bool)
    mask[:, ::2] = True
    query, key = mask.nonzero().unbind(1)
    assert measure_spans(KeyRuns.from_pairs(query, key, 4, 60), 120) == Spans(30, 0.0, 0.0)
    none = torch.zeros(3, dtype=torch.int64)
    assert measure_spans(KeyRuns.from_ranges(none, none, 5), 0) == Spans(0, 0.0, 0.0)


def test_spans_are_measured_once_and_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Full().on(40)
    spans = graph.query_side.spans
    monkeypatch.setattr("graphformer.graphs.side.measure_spans", lambda *_: pytest.fail("measured again"))
    assert graph.query_side.spans is spans
    assert pickle.loads(pickle.dumps(graph)).query_side.spans == spans


def test_a_side_that_lists_its_pairs_has_none() -> None:
    assert AttentionGraph.from_edge_index(torch.tensor([[0, 1], [1, 0]]), num_nodes=2).query_side.spans is None
