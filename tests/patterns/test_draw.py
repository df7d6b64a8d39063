"""Pictures: what is in each cell, without looking at pixels."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from pattern_cases import cases, edge_matrix, patterns, size
from torch_geometric.data import Data

from graphformer import AttentionGraph
from graphformer.graphs.bins import count_bins
from graphformer.graphs.draw import _rgb
from graphformer.graphs.sketch import sketch
from graphformer.patterns import Between, Blocks, Causal, Edges, Full, Global, Grid, RunTerm, Window


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
    assert [text.get_text() for text in axes.texts] == ["7 edges (78% of 3 x 3)"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_aspect()) == ("key", "query", 1.0)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1 copy", "2 copies"]
    assert saved(figure).startswith(b"\x89PNG")


def test_cells_show_relations_and_the_first_one_wins():
    figure = (Window(0).as_relation(7) + Full().as_relation(2)).draw((3, 2))
    assert np.array_equal(image(figure).get_array(), [[8, 3, 3], [3, 8, 3]])
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["relation 2", "relation 7"]
    assert saved(figure).startswith(b"\x89PNG")


def test_parts_are_ruled_and_their_links_named():
    pattern = Between({("text", "text"): Causal(), ("image", "text"): Full()})
    nodes = {"text": [2, 0, 3], "image": [Grid(1, 2), Grid(1, 1), Grid(0, 2)], "tail": [1, 1, 0]}
    axes = pattern.draw(nodes).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["text -> text", "image -> text"]
    dashed = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert sorted(line.get_ydata()[0] for line in dashed if line.get_xdata()[0] == 0) == [1.5, 3.5, 5.5]
    assert sorted(line.get_xdata()[0] for line in dashed if line.get_ydata()[0] == 0) == [1.5, 3.5, 5.5]
    large = pattern.draw({"text": 100, "image": 50}).axes[0]
    assert [text.get_text() for text in large.get_legend().get_texts()] == ["text -> text", "image -> text"]
    two_sides = pattern.draw(({"image": 2, "text": 1}, {"text": 2})).axes[0]
    assert [line.get_xdata()[0] for line in two_sides.get_lines()] == [1.5]


def test_titles_are_given_or_wrapped_between_arguments():
    assert Causal().draw(3, title="a decoder").axes[0].get_title() == "a decoder"
    links = Between({("text", "text"): Causal(), ("image", "text"): Full(), ("image", "image"): Window(1)})
    lines = links.draw({"text": 2, "image": 3}).axes[0].get_title().splitlines()
    assert len(lines) == 3
    assert all(line.count("('") == line.count("'):") for line in lines)
    assert " ".join(lines).replace("\N{NO-BREAK SPACE}", " ") == repr(links)


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


def test_densities_leave_grey_what_lies_across_sets():
    shares = image(Full().draw([150, 100])).get_array()
    assert shares.mask.mean() == 2 * 150 * 100 / 250**2
    assert set(shares.compressed()) == {1.0}


def test_densities_mix_the_colours_of_relations():
    figure = (Global(50).as_relation(1) | Window(1).as_relation(0)).draw(300)
    shown = image(figure).get_array()
    assert shown.shape == (256, 256, 3)
    blue, orange = _rgb(["#0072b2", "#e69f00"])
    np.testing.assert_allclose(shown[0, 0], orange)
    np.testing.assert_allclose(shown[250, 100], [1, 1, 1])
    thin = 1 - shown[200, 200]  # blue, mixed with white
    np.testing.assert_allclose(thin / thin.max(), (1 - blue) / (1 - blue).max())
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["relation 0", "relation 1"]
    assert saved(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("num_nodes", [8, 120])
def test_a_graph_is_drawn_as_its_pattern(num_nodes):
    pattern = Window(2).as_relation(1) | Full().as_relation(0)
    graph, figure = pattern.on(num_nodes), pattern.draw(num_nodes)
    drawn = graph.draw()
    np.testing.assert_allclose(image(drawn).get_array(), image(figure).get_array())
    assert drawn.axes[0].get_title() == "attention graph"
    assert drawn.axes[0].texts[0].get_text() == figure.axes[0].texts[0].get_text()


@pytest.mark.parametrize("num_nodes", [9, 120])
def test_many_relations_are_a_scale(num_nodes):
    ring = torch.stack((torch.arange(num_nodes), torch.arange(num_nodes).roll(1)))
    figure = AttentionGraph.from_edge_index(ring, relation=torch.arange(num_nodes)).draw()
    assert figure.axes[0].get_legend() is None
    assert figure.axes[1].get_ylabel() == "relation"
    assert saved(figure).startswith(b"\x89PNG")


def test_edges_are_drawn_from_their_node_set():
    data = Data(edge_index=torch.tensor([[0, 0, 2], [1, 1, 2]]), num_nodes=3)
    assert image(Edges().draw(data)).get_array().tolist() == [[0, 0, 0], [2, 0, 0], [0, 0, 1]]


def test_a_narrow_matrix_fills_its_axes():
    assert Full().draw((900, 3)).axes[0].get_aspect() == "auto"


def test_sketches_show_pairs_relations_and_shares():
    assert sketch(Causal().on(3)) == "██    \n████  \n██████"
    assert sketch((Window(0).as_relation(7) + Full().as_relation(2)).on((3, 2))) == " 7 2 2\n 2 7 2"
    large = sketch(Blocks(100).on(200)).splitlines()
    assert (len(large), {len(line) for line in large}) == (48, {96})
    assert large[0] == "█" * 48 + " " * 48
    assert set("".join(sketch(Window(1).on(4_800)).splitlines())) == {" ", "░"}
    assert sketch(Full().on(0)) == ""


def test_a_million_nodes_are_not_enumerated():
    graph = Full().on(1_000_000)
    assert float(image(Full().draw(1_000_000)).get_array().min()) == 1.0
    assert float(image(graph.draw()).get_array().min()) == 1.0
    assert set(sketch(graph)) == {"█", "\n"}


def test_relations_of_runs_are_mixed_as_those_of_pairs():
    pattern = (Window(5).as_relation(1) | Full().as_relation(0)) & Causal()
    listed = pattern.on(300)
    runs = AttentionGraph(Causal().on(300).query_side.runs, 300, relation=listed.relation, num_relations=2)
    shown = [image(graph.draw()).get_array() for graph in (listed, runs)]
    assert np.allclose(*shown)
    assert shown[0].min() < 0.5


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_densities_count_the_pairs(data):
    kind, _, nodes = data.draw(cases())
    pattern = data.draw(patterns(kind))
    edges = [torch.tensor(sorted({0, count // 2, count})) for count in size(nodes)]
    if min(size(nodes)) == 0:
        return
    pairs = [term.runs if isinstance(term, RunTerm) else term.pairs() for term in pattern.lower(nodes)]
    counted = sum(count_bins(part, *edges) for part in pairs)
    copies = edge_matrix(pattern, nodes)
    rows = [copies[start:stop] for start, stop in zip(edges[0], edges[0][1:], strict=False)]
    cells = [[int(row[:, a:b].sum()) for a, b in zip(edges[1], edges[1][1:], strict=False)] for row in rows]
    assert counted.tolist() == cells
