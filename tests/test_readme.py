"""The README's code runs as it stands."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

import graphformer.patterns

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\nPrints[^\n]*:\n\n```text\n(.*?)```\n)?", README, flags=re.DOTALL)


def test_there_is_code_to_run() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(number: int) -> None:
    code, promised = BLOCKS[number]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, f"README block {number}", "exec"), {"__name__": "readme"})
    if promised:
        assert out.getvalue().split() == promised.split()


def test_the_layer_stands_in_a_short_training_script() -> None:
    script = next(code for code, _ in BLOCKS if "GraphAttention" in code and "optimizer" in code)
    assert len([line for line in script.splitlines() if line.strip()]) <= 25


def test_every_pattern_is_named() -> None:
    bases = {"Pattern", "Content", "Relation", "RunTerm", "PairTerm"}
    assert len(graphformer.patterns.__all__) == len(set(graphformer.patterns.__all__))
    missing = {name for name in graphformer.patterns.__all__ if not re.search(rf"`{name}\b", README)}
    assert missing == bases, "add the name to the table of patterns, or here where it is a base"
