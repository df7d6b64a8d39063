"""Pictures: what is in each cell, without looking at pixels."""

import io

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from pattern_cases import cases, edge_matrix, patterns, size

from graphformer.patterns import Blocks, Causal, Full, Global, Window
from graphformer.patterns import draw as pictures


def image(figure):
    return figure.axes[0].get_images()[0]


def saved(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer)
    return buffer.getvalue()


def test_cells_show_copies_and_grey_lies_across_sets():
    figure = (Causal() + Window(0)).draw([2, 1])
    assert np.array_equal(image(figure).get_array(), [[2, 0, -1], [1, 2, -1], [-1, -1, 2]])
    axes = figure.axes[0]
    assert axes.get_title() == "Causal() + Window(radius=0)"
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_aspect()) == ("key", "query", 1.0)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1 copy", "2 copies"]
    assert saved(figure).startswith(b"\x89PNG")


def test_cells_show_relations_and_the_first_one_wins():
    figure = (Window(0).as_relation(7) + Full().as_relation(2)).draw((3, 2))
    assert np.array_equal(image(figure).get_array(), [[2, 1, 1], [1, 2, 1]])
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["relation 2", "relation 7"]
    assert saved(figure).startswith(b"\x89PNG")


def test_a_plain_pattern_needs_no_legend():
    assert Blocks(3).draw(8).axes[0].get_legend() is None


def test_given_axes_are_drawn_into():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert Causal().draw(4, ax=right) is figure
    assert not left.get_images()
    assert right.get_images()


def test_no_nodes():
    assert saved(Full().draw(0)).startswith(b"\x89PNG")


def test_many_nodes_show_densities():
    figure = (Window(10) | Global(3)).draw([200, 400])
    density = image(figure).get_array()
    assert density.shape == (256, 256)
    assert density[0, 0] == 1.0
    assert density[100, 200] == 0.0
    assert saved(figure).startswith(b"\x89PNG")


def test_a_million_nodes_are_not_enumerated():
    assert float(image(Full().draw(1_000_000)).get_array().min()) == 1.0


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_densities_count_the_pairs(data):
    kind, _, nodes = data.draw(cases())
    pattern = data.draw(patterns(kind))
    edges = [torch.tensor(sorted({0, count // 2, count})) for count in size(nodes)]
    if min(size(nodes)) == 0:
        return
    counted = sum(pictures._count_bins(term, *edges) for term in pattern.lower(nodes))
    copies = edge_matrix(pattern, nodes)
    rows = [copies[start:stop] for start, stop in zip(edges[0], edges[0][1:], strict=False)]
    cells = [[int(row[:, a:b].sum()) for a, b in zip(edges[1], edges[1][1:], strict=False)] for row in rows]
    assert counted.tolist() == cells
