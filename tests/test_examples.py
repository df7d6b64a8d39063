"""Every example runs with --smoke and ends with the line that its docstring promises."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = runpy.run_path(str(path))
    module["main"](["--smoke"])
    promised = re.search(r'Last line: "(.*)"', module["__doc__"].replace("\n", " "))
    assert promised, "the docstring must promise the last line"
    assert capsys.readouterr().out.strip().splitlines()[-1] == promised[1]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 120
