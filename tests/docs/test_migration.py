"""The migration page's blocks run in order, in one namespace, and their own asserts hold."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text()
BLOCKS = re.findall(r"```python([^\n]*)\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_blocks_agree(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("migration")
    monkeypatch.setitem(sys.modules, "migration", module)  # FlexAttention traces its predicates, and looks there
    compared = 0
    for number, (mark, code) in enumerate(BLOCKS):
        compiled = compile(code, f"migration block {number}", "exec")  # what is not run is at least Python
        if mark.strip() == "not run":
            continue
        exec(compiled, module.__dict__)
        compared += "assert_close" in code
    assert compared >= 8
    assert capsys.readouterr().out == "torch.Size([56, 32])\n"


def test_marks_are_known() -> None:
    assert {mark.strip() for mark, _ in BLOCKS} <= {"", "not run"}
