"""The family `patterns`: the gate without N^2, what cannot run, bytes, aims."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import gate, peak, plots, runner, tables
from benchmarks.case import BUILD, BUILD_MEMORY, HELD, ON, ON_MEMORY, Laying
from benchmarks.laying import laying
from benchmarks.measure import Peaks
from benchmarks.providers import PROVIDERS
from benchmarks.record import Row
from graphformer.patterns import Causal, Window

CASES = {case.name: case for case in laying(quick=True)}
PEERS = [(case.name, peer) for case in CASES.values() for peer in case.providers if peer != "flex-mask"]


def complaint(name, made, provider):
    case = CASES[name]
    expected = gate.numbers(PROVIDERS["by-formula"].prepare(case, made), False)
    return gate.complaint(gate.numbers(provider.prepare(case, made), False), expected)


@pytest.mark.filterwarnings("ignore:Sparse")  # TwoHop multiplies CSR matrices
@pytest.mark.parametrize(("name", "peer"), PEERS)
def test_everyone_lays_the_same_pairs(name, peer):
    case, provider = CASES[name], PROVIDERS[peer]
    if provider.why_not(case, BUILD):
        pytest.skip(provider.why_not(case, BUILD))
    made = case.make()
    if (name, peer) == ("window", "dense-mask"):
        made = CASES["window-short"].make()
    assert complaint(name, made, provider) == ""


def test_the_gate_sees_other_pairs_and_another_count():
    made, native = CASES["causal"].make(), PROVIDERS["native"]
    as_many = replace(made, pattern=Window(left=0, right=made.nodes))  # the transpose: as many pairs, but others
    judged = CASES["causal"]
    expected = gate.numbers(PROVIDERS["by-formula"].prepare(judged, made), False)
    found = gate.numbers(native.prepare(judged, as_many), False)
    assert (
        gate.complaint(found, expected) == f"pairs: {2 * (made.few**2 - made.few)} of {2 * made.few**2} integers differ"
    )
    fewer = replace(made, nodes=made.nodes - 1)  # right on the few nodes, wrong on the many
    found = gate.numbers(native.prepare(judged, fewer), False)
    assert gate.complaint(found, expected) == "out: 2 of 2 integers differ"


@pytest.mark.parametrize("name", [case.name for case in laying(quick=False) if "flex-mask" in case.providers])
def test_block_masks_hold_the_same_pairs(name, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    made = CASES[name].make()
    if name == "window":
        made = CASES["window-short"].make()
    assert complaint(name, made, PROVIDERS["flex-mask"]) == ""
    wrong = replace(made, formula=lambda b, h, q, k: made.formula(b, h, q, k) & (q != k + 3))
    assert complaint(name, wrong, PROVIDERS["flex-mask"]).startswith("out: 2 of 2")


def rows_of(case, providers):
    return runner.run_case(
        case, providers, Peaks(1.0, 1.0, 1.0), repeats=2, quick=True, threads=1, tell=lambda line: None
    )


def test_what_is_too_large_is_not_run_and_parts_of_our_work_are_ours_alone():
    large = replace(CASES["full"].make(), nodes=2**20, count=lambda: 2**40)
    case = replace(CASES["full"], measures=(ON, BUILD, HELD), make=lambda: large)
    rows = rows_of(case, [PROVIDERS[name] for name in ("native", "flex-mask", "dense-mask")])
    told = {(row.measure, row.provider): (row.status, row.reason) for row in rows}
    assert told == {
        (ON, "native"): ("ran", ""),
        (BUILD, "native"): ("ran", ""),
        (BUILD, "flex-mask"): ("not run", "it asks the formula about N^2 = 1e+12 pairs"),
        (BUILD, "dense-mask"): ("not run", "a mask of N^2 bytes takes 1.02e+03 GiB"),
        (HELD, "native"): ("ran", ""),
        (HELD, "flex-mask"): ("not run", "it asks the formula about N^2 = 1e+12 pairs"),
        (HELD, "dense-mask"): ("not run", "a mask of N^2 bytes takes 1.02e+03 GiB"),
    }


def test_a_graph_tells_its_bytes():
    run = PROVIDERS["native"].prepare(CASES["causal"], Laying(Causal(), 1000, 5, lambda: 500_500))
    graph = Causal().on(1000)
    laid = sum(tensor.nbytes for tensor in graph.query_side.tensors())
    graph.prepare()
    sides = (*graph.query_side.tensors(), *graph.key_side.tensors())
    built = sum(tensor.nbytes for tensor in (*sides, *graph.tiles_by_query, *graph.tiles_by_key) if tensor is not None)
    assert run.action(HELD)() == built
    assert run.note == f"500,500 pairs, {laid / 500_500:.2g} bytes each after `on` and {built / 500_500:.2g} prepared"
    dense = PROVIDERS["dense-mask"].prepare(CASES["window"], replace(CASES["window"].make(), nodes=300))
    assert dense.action(HELD)() == 300 * 300


def test_memory_is_that_of_the_measure():
    if peak.why_not():
        pytest.skip(peak.why_not())
    ((_, dense),) = peak.extra_bytes("patterns/window-short", "dense-mask", BUILD_MEMORY, quick=True, threads=1)
    assert dense >= 1024 * 1024  # the mask, and integers besides
    ((_, ours),) = peak.extra_bytes("patterns/full", "native", ON_MEMORY, quick=True, threads=1)
    assert ours < 2**21  # of N^2 / 8 = 2 MiB


def test_our_own_aims_are_seconds_and_bytes(record, tmp_path):
    def row(measure, samples, aim, provider="native"):
        return Row("patterns", "full", measure, provider, "N=7", "ran", samples=samples, aim=aim)

    rows = [row(ON, [0.5], 1.0), row(BUILD, [2.0], 1.0), row(BUILD, [4.0], None, "dense-mask")]
    rows += [row(ON_MEMORY, [3.0 * 2**20], 2.0**21), row(HELD, [2.0**20], None)]
    record.rows = rows
    lines = tables.family_table(record, "patterns").splitlines()
    assert "| full | on | native | 500 ms | 500 ms |  |  |  | < 1 s: yes |  |" in lines
    assert "| full | build | native | 2000 ms | 2000 ms |  |  |  | < 1 s: no |  |" in lines
    assert "| full | build | dense-mask | 4000 ms | 4000 ms |  | 2.00 |  |  |  |" in lines
    assert "| full | on, peak memory | native | 3.0 MiB | 3.0 MiB |  |  |  | < 2 MiB: no |  |" in lines
    assert "| full | graph | native | 1.0 MiB | 1.0 MiB |  |  |  |  |  |" in lines
    assert plots.draw_family(record, "patterns", tmp_path / "patterns.svg")
    drawn = (tmp_path / "patterns.svg").read_text()
    assert "full, on: native" in drawn
    assert "milliseconds" in drawn
    assert "peak memory" not in drawn
