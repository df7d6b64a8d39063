"""The gallery is complete, current and small."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import graphformer.patterns
from docs.gallery import ENTRIES, FOLDER, page, save
from graphformer._library import LIBRARY
from graphformer.patterns.parse import BY_CONTENT

REMEDY = "run python -m docs.gallery"


def public_patterns() -> set[str]:
    """Pattern classes, functions that define one in the algebra, rules of relations, modules that choose pairs."""
    bases = (graphformer.patterns.Pattern, graphformer.patterns.Content, graphformer.patterns.Relation)
    found = set(BY_CONTENT)
    for name in set(graphformer.patterns.__all__) - {base.__name__ for base in bases} - {"parse"}:
        value = getattr(graphformer.patterns, name)
        if inspect.isclass(value):
            is_pattern = issubclass(value, bases)
        else:
            is_pattern = inspect.signature(value).return_annotation == "Pattern"
        found |= {name} if is_pattern else set()
    return found


def test_every_public_pattern_has_an_entry() -> None:
    public = public_patterns()
    assert {"Window", "BigBird", "TopK", "Offset2d", "SortedBlocks"} <= public
    assert public <= {entry.name for entry in ENTRIES}, "add a line to ENTRIES in docs/gallery.py"


def test_names_are_told_apart() -> None:
    assert len({entry.file for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.skipif(LIBRARY is None, reason="the costs are those of the compiled library")
def test_the_page_is_current() -> None:
    assert (FOLDER / "README.md").read_text() == page(), REMEDY


def test_the_pictures_are_there_and_small() -> None:
    assert {path.name for path in FOLDER.glob("*.svg")} == {entry.file for entry in ENTRIES}, REMEDY
    assert max(path.stat().st_size for path in FOLDER.glob("*.svg")) < 60_000


@pytest.mark.parametrize("name", ["Relations", "Many nodes", "SortedBlocks"])
def test_a_picture_is_the_same_each_time(name: str, tmp_path: Path) -> None:
    entry = next(entry for entry in ENTRIES if entry.name == name)
    written = []
    for _ in range(2):
        save(entry, tmp_path)
        written.append((tmp_path / entry.file).read_bytes())
    assert written[0] == written[1]


def test_a_grid_is_shown_with_what_a_query_sees() -> None:
    entry = next(entry for entry in ENTRIES if entry.name == "Grid window")
    (view,) = entry.draw().axes[0].child_axes
    seen = view.get_images()[0].get_array()
    assert view.get_title() == "query 15 sees"  # row 2, column 3
    assert seen.tolist() == [[0.0] * 6] + [[0.0, 0.0, 1.0, 1.0, 1.0, 0.0]] * 3
