"""The gallery is complete, current and small."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import graphformer.patterns
from docs.gallery import ENTRIES, FOLDER, page, save
from graphformer._library import LIBRARY

REMEDY = "run python -m docs.gallery"


def public_patterns() -> set[str]:
    """Pattern classes, and functions that define one in the algebra."""
    found = set()
    for name in set(graphformer.patterns.__all__) - {"Pattern", "Content", "parse"}:
        value = getattr(graphformer.patterns, name)
        if inspect.isclass(value):
            is_pattern = issubclass(value, (graphformer.patterns.Pattern, graphformer.patterns.Content))
        else:
            is_pattern = inspect.signature(value).return_annotation == "Pattern"
        found |= {name} if is_pattern else set()
    return found


def test_every_public_pattern_has_an_entry() -> None:
    public = public_patterns()
    assert {"Window", "Full"} <= public
    assert public <= {entry.name for entry in ENTRIES}, "add a line to ENTRIES in docs/gallery.py"


def test_names_are_told_apart() -> None:
    assert len({entry.file for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.skipif(LIBRARY is None, reason="the costs are those of the compiled library")
def test_the_page_is_current() -> None:
    assert (FOLDER / "README.md").read_text() == page(), REMEDY


def test_the_pictures_are_there_and_small() -> None:
    assert {path.name for path in FOLDER.glob("*.svg")} == {entry.file for entry in ENTRIES}, REMEDY
    assert max(path.stat().st_size for path in FOLDER.glob("*.svg")) < 60_000


@pytest.mark.parametrize("name", ["Relations", "Many nodes"])
def test_a_picture_is_the_same_each_time(name: str, tmp_path: Path) -> None:
    entry = next(entry for entry in ENTRIES if entry.name == name)
    written = []
    for _ in range(2):
        save(entry, tmp_path)
        written.append((tmp_path / entry.file).read_bytes())
    assert written[0] == written[1]
