"""Records, tables, pictures, and the command from end to end."""

from __future__ import annotations

import copy
import json
import re

import pytest

from benchmarks import tables
from benchmarks.__main__ import main
from benchmarks.cases import all_cases
from benchmarks.providers import PROVIDERS
from benchmarks.record import load, place, save


def test_a_record_survives_its_file(record, tmp_path):
    path = place(tmp_path, record)
    assert path.relative_to(tmp_path).as_posix() == "a-chip-avx2-2-threads/abc.json"
    save(record, path)
    assert load(path) == record


def test_a_second_run_replaces_its_cases_and_keeps_the_others(record, tmp_path):
    path = tmp_path / "abc.json"
    save(record, path)
    later = copy.deepcopy(record)
    later.rows = [row for row in later.rows if row.case == "slope"]
    later.rows[0].samples = [99.0]
    save(later, path)
    rows = {row.key: row for row in load(path).rows}
    assert len(rows) == len(record.rows)
    assert rows["irregular", "slope", "memory per edge", "native"].samples == [99.0]
    assert rows["irregular", "rmat", "forward", "pyg"].samples == record.rows[1].samples


def test_another_format_is_refused(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"format": 0}))
    with pytest.raises(ValueError, match="must be a result file of format 1; measure anew"):
        load(path)


def test_a_table_holds_ratios_aims_bounds_and_reasons(record):
    lines = tables.family_table(record, "irregular").splitlines()
    assert "| rmat | forward | native | 10 ms | 20 ms | 12-36 |  |  |  | 25% |" in lines
    assert "| rmat | forward | pyg | 20 ms | 40 ms | 24-56 | 2.00 | 1.60-2.00 | 2: yes |  |" in lines
    assert "| rmat | forward | pyg-scatter | 30 ms | 60 ms | 36-108 | 3.00 | 3.00-3.00 | 10: no |  |" in lines
    assert "| slope | memory per edge | native | 12.0 B/edge | 12.0 B/edge |  |  |  | < 64 bytes: yes |  |" in lines
    assert "| rmat | forward | dgl | - | - | - | - | - | - | - |" in lines
    assert "- not run: `rmat`, dgl, forward: DGL is not there" in lines


def test_tables_and_pictures_come_from_the_files_alone(record, tmp_path):
    results = tmp_path / "results"
    for day, commit, quick in ((1, "old", False), (2, "abc", False), (3, "new", True)):
        record.run.update(commit=commit, quick=quick, date=f"2026-01-0{day}")
        save(record, place(results, record))
    assert main(["tables", "--out", str(results), "--to", str(tmp_path / "TABLES.md")]) == 0
    text = (tmp_path / "TABLES.md").read_text()
    assert "commit abc" in text  # the newest that is not a quick one
    assert "commit old" not in text
    picture = "results/a-chip-avx2-2-threads/irregular.svg"
    assert f"![irregular]({picture})" in text
    drawn = (tmp_path / picture).read_text()
    assert "rmat, forward: pyg-scatter" in drawn
    assert main(["tables", "--out", str(results), "--to", str(tmp_path / "TABLES.md")]) == 0
    assert (tmp_path / picture).read_text() == drawn


def test_of_several_records_each_case_is_told_by_the_newest(record, tmp_path):
    results = tmp_path / "results"
    for day, commit, cases in ((1, "aaa", "rmat slope"), (3, "ccc", "slope"), (2, "bbb", "rmat")):
        measured = copy.deepcopy(record)
        measured.run.update(commit=commit, date=f"2026-01-0{day}")
        measured.rows = [row for row in measured.rows if row.case in cases]
        for row in measured.rows:
            row.date = f"2026-01-0{day}"
        save(measured, place(results, measured))
    found = tables.newest(results)
    assert [(path.stem, {row.case for row in kept.rows}) for path, kept in found.items()] == [
        ("bbb", {"rmat"}),
        ("ccc", {"slope"}),
    ]
    assert main(["tables", "--out", str(results), "--to", str(tmp_path / "TABLES.md")]) == 0
    text = (tmp_path / "TABLES.md").read_text()
    assert text.index("commit bbb") < text.index("| rmat |") < text.index("commit ccc") < text.index("| slope |")
    assert "commit aaa" not in text
    # One family in two records has two pictures.
    folder = results / "a-chip-avx2-2-threads"
    assert "rmat, forward: pyg" in (folder / "irregular.svg").read_text()
    assert "slope: native" in (folder / "irregular-ccc.svg").read_text()
    # Named files are taken as they are.
    assert main(["tables", str(folder / "aaa.json"), "--to", str(tmp_path / "one.md")]) == 0
    assert "commit aaa" in (tmp_path / "one.md").read_text()


def test_the_command_from_end_to_end(tmp_path, capsys):
    words = ["--quick", "--case", "molecules/bonds", "--provider", "native", "pyg", "--repeats", "2", "--threads", "1"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.rglob("*-quick.json")
    rows = load(path).rows
    assert [(row.measure, row.provider, row.status) for row in rows] == [
        ("forward", "native", "ran"),
        ("forward", "pyg", "ran"),
        ("forward+backward", "native", "ran"),
        ("forward+backward", "pyg", "ran"),
    ]
    assert {len(row.samples) for row in rows} == {2}
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "again"), "--base", str(path)]) == 0
    assert "molecules/bonds forward, native:" in capsys.readouterr().out.partition("against")[2]


def test_without_data_training_is_skipped_openly(tmp_path, capsys):
    assert main(["--quick", "--family", "training", "--out", str(tmp_path), "--threads", "1"]) == 0
    assert "training/molhiv: skipped, needs --root" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--provider", "nobody"], "--provider must be of native, reference, .*; got nobody"),
        (["--case", "nothing"], "--case must name a case; got nothing"),
        (["--family", "nothing"], "invalid choice: 'nothing'"),
        (["tables", "--out", "/nowhere"], "/nowhere must hold results; got none"),
    ],
)
def test_wrong_words_are_refused(words, message, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("quick", [True, False])
def test_every_case_asks_known_providers_and_has_a_name_of_its_own(quick):
    cases = all_cases(quick)
    assert len({case.key for case in cases}) == len(cases)
    for case in cases:
        assert {*case.providers, case.oracle} <= set(PROVIDERS)
        for measure, aims in case.aims.items():
            assert measure in case.measures
            assert set(aims) <= set(case.providers)
