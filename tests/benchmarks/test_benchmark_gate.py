"""The gate lets every provider pass that is right, and none that is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import gate, inputs, runner
from benchmarks.case import BOTH, BUILD, FORWARD, Building, Case, Run
from benchmarks.measure import Peaks
from benchmarks.providers import PROVIDERS
from graphformer.graphs import AttentionGraph
from graphformer.patterns import Full, Window
from graphformer.testing import random_graph

LENGTHS = (5, 3, 7)
SPARSE = random_graph(13, num_edges=41, seed=3)


def tiny(name, kind):
    """Small inputs of every kind that providers know."""
    if kind == "window":
        return inputs.attention(Window(2).on(12), 2, 4, radius=2)
    if kind == "full":
        return inputs.attention(Full().on(9), 2, 4, is_full=True)
    if kind == "molecules":
        return inputs.attention(Full().on(list(LENGTHS)), 2, 4, LENGTHS, is_full=True)
    if kind == "bias":
        graph = inputs.swin_graph(2, 3, side=2)
        return inputs.attention(graph, 2, 4, (4,) * 6, relation_bias=torch.randn(9, 2))
    if kind == "sparse":
        return inputs.attention(SPARSE, 2, 4)
    graph = SPARSE if kind == "additive" or name == "transformer-conv" else Full().on(list(LENGTHS))
    return inputs.layer(kind, graph, 8, 2, LENGTHS if graph is not SPARSE else ())


PAIRS = [
    *[(name, "sparse", "reference") for name in ("native", "pyg", "pyg-scatter", "pyg-segment")],
    *[("sdpa", kind, "dense") for kind in ("window", "full", "bias")],
    *[("native", kind, "dense") for kind in ("window", "full", "bias")],
    ("sdpa-batch", "molecules", "reference"),
    *[("native", kind, "reference") for kind in ("dot", "additive", "gps", "molecules")],
    ("transformer-conv", "dot", "reference"),
    ("gatv2-conv", "additive", "reference"),
    ("mha", "dot", "reference"),
    ("gps-conv", "gps", "reference"),
]


@pytest.mark.parametrize(("name", "kind", "oracle"), PAIRS)
def test_the_providers_agree_and_a_wrong_one_is_caught(name, kind, oracle):
    case = Case("test", "tiny", lambda: tiny(name, kind), (BOTH,), (name,), "", oracle=oracle)
    provider = PROVIDERS[name]
    if provider.why_not(case, BOTH):
        pytest.skip(provider.why_not(case, BOTH))
    made = case.make()
    expected = gate.numbers(PROVIDERS[oracle].prepare(case, made), True)
    run = provider.prepare(case, made)
    found = gate.numbers(run, True)
    assert set(found) == set(expected)
    assert gate.complaint(found, expected) == ""
    for planted in expected:
        wrong = dict(found)
        wrong[planted] = found[planted] + 1e-3 * found[planted].abs().max().clamp(min=1.0) * torch.rand(3)[0].add(1)
        assert gate.complaint(wrong, expected).startswith(f"{planted}: off by")


@pytest.mark.parametrize(
    "building",
    [
        Building("edges", SPARSE.edge_index, 13),
        Building("window", radius=2, lengths=(7, 4)),
        Building("full", lengths=LENGTHS),
        Building("union", members=(SPARSE, Full().on(3))),
    ],
    ids=lambda building: building.what,
)
def test_the_builders_agree_to_the_integer(building):
    case = Case("build", building.what, lambda: building, (BUILD,), ("native",), "", oracle="by-hand")
    names = ["native"] + ["torch-sort", "scipy"] * (building.what == "edges")
    expected = gate.numbers(PROVIDERS["by-hand"].prepare(case, building), False)
    for name in names:
        found = gate.numbers(PROVIDERS[name].prepare(case, building), False)
        assert gate.complaint(found, expected) == ""
        found["out"][5] += 1
        assert gate.complaint(found, expected) == f"out: 1 of {expected['out'].numel()} integers differ"


def test_missing_and_misshapen_results_are_complaints():
    expected = {"out": torch.zeros(3, 2), "key": torch.zeros(3, 2), "query": torch.zeros(3, 2)}
    assert gate.complaint({"out": expected["out"]}, expected) == ""  # a provider of forward only
    assert gate.complaint({"out": expected["out"], "key": expected["key"]}, expected) == "no gradient of query"
    assert gate.complaint({"out": torch.zeros(2, 3)}, expected) == "out: shape [2, 3] instead of [3, 2]"
    assert gate.complaint({"out": torch.full((3, 2), torch.nan)}, expected).startswith("out: off by nan")


def test_a_wrong_or_failing_provider_is_told_and_not_timed():
    right = PROVIDERS["reference"]

    def wrong(case, made):
        run = right.prepare(case, made)
        return Run(lambda: run.forward() * 1.001, run.leaves, run.grad_out)

    def failing(case, made):
        raise RuntimeError("no such\nluck")

    providers = [right, replace(right, name="liar", prepare=wrong), replace(right, name="broken", prepare=failing)]
    providers.append(replace(right, name="absent", why_not=lambda case, measure: "not installed"))
    case = Case("test", "tiny", lambda: tiny("", "sparse"), (FORWARD,), (), "")
    rows = runner.run_case(
        case, providers, Peaks(1.0, 1.0, 1.0), repeats=2, quick=True, threads=1, tell=lambda line: None
    )
    told = {row.provider: (row.status, row.reason, len(row.samples)) for row in rows}
    assert told["reference"] == ("ran", "", 2)
    assert told["liar"][0] == "wrong"
    assert told["liar"][1].startswith("out: off by")
    assert told["liar"][2] == 0
    assert told["broken"] == ("failed", "RuntimeError: no such luck", 0)
    assert told["absent"] == ("not run", "not installed", 0)


def test_inputs_are_what_they_claim():
    edges = inputs.rmat(1000, 20_000, 10)
    assert edges.shape == (2, 20_000)
    assert int(edges.max()) < 1000
    assert int(torch.bincount(edges[1]).max()) > 4 * 20  # skewed: hubs far above the mean of 20
    bonds, lengths = inputs.molecule_union(inputs.molecule_bonds(40))
    assert 20 < sum(lengths) / 40 < 32
    graph = AttentionGraph.from_edge_index(bonds, sum(lengths))
    assert int(graph.degree.min()) >= 1
    distance = torch.arange(-3, 4)
    assert inputs.relative_graph(1, 3).relation.tolist() == [1, 2, 0, 1, 2, 0, 1]
    assert inputs.t5_buckets(distance).tolist() == [3, 2, 1, 0, 17, 18, 19]
    assert int(inputs.t5_buckets(torch.arange(-500, 501)).max()) == 31
    assert inputs.alibi_slopes(8)[[0, 7]].tolist() == [0.5, 2.0**-8]
