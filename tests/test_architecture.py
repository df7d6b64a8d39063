"""The house's plan, read from the code's own imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "graphformer"
ORDER = ["graphs", "patterns", "kernels", "nn", "models", "cost", "data", "train", "cli"]
MAY_IMPORT = {room: set(ORDER[: ORDER.index(room) + 1]) for room in ORDER}
MAY_IMPORT["kernels"] -= {"patterns"}  # the two do not know each other
MAY_IMPORT["data"] -= {"nn", "models", "kernels", "cost"}  # an adapter has no weights
MAY_IMPORT["testing"] = set(ORDER) - {"train", "cli"} | {"testing"}
LIGHT = {"graphs", "patterns", "kernels"}
LIGHT_PACKAGES = {"torch", "numpy", "scipy", "graphformer"}


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names of what a file imports; type-checking blocks and, on request, functions are left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if top_level_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def rooms_used(names: set[str]) -> set[str]:
    parts = (name.split(".") for name in names)
    return {part[1] for part in parts if part[0] == "graphformer" and len(part) > 1 and not part[1].startswith("_")}


FILES = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    known = set(ORDER) | {"testing"}
    wrong = (rooms_used(imports(path)) & known) - MAY_IMPORT[room]
    assert not wrong, f"{room} must not import {sorted(wrong)}"


@pytest.mark.parametrize("path", [p for p in FILES if p.relative_to(PACKAGE).parts[0] in LIGHT], ids=lambda p: p.stem)
def test_the_ground_floor_needs_torch_only(path: Path) -> None:
    if path.name == "pyg.py":
        pytest.skip("imported only where PyG data is at hand")
    third_party = {name.split(".")[0] for name in imports(path, top_level_only=True)} - set(sys.stdlib_module_names)
    if path.parent.name == "triton" and path.name != "__init__.py":  # imported at the backend's first call
        third_party.discard("triton")
    assert third_party <= LIGHT_PACKAGES


def test_the_reader_sees_a_wrong_import(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("def f():\n    from graphformer.train import run\n    import graphformer.cli\n")
    assert rooms_used(imports(path)) == {"train", "cli"}
    assert rooms_used(imports(path, top_level_only=True)) == set()


def test_files_stay_short() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    long = {str(path.relative_to(PACKAGE)): size for path, size in sizes.items() if size > 400}
    assert not long


def fresh(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout.strip()


def test_importing_the_package_is_free() -> None:
    loaded = "import sys, graphformer; print(any(n in sys.modules for n in ('torch', 'numpy', 'torch_geometric')))"
    assert fresh(loaded) == "False"


def test_attention_works_where_only_torch_is_installed() -> None:
    """graphs, patterns, kernels and testing run with every other package blocked; the blocker is seen to block."""
    code = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch_geometric", "torch_scatter", "rdkit", "ogb", "lightning", "networkx", "timm",
                                  "matplotlib", "jsonargparse"} - set(sys.argv[1:]):
            raise ImportError("blocked " + name)
sys.meta_path.insert(0, Blocker())
try:
    import torch_geometric
    raise SystemExit("not blocked")
except ImportError:
    pass
import torch, graphformer as gf
graph = gf.patterns.Window(radius=1).on(4)
x = torch.ones(4, 1, 2)
print(gf.attend(x, x, x, graph).shape[0], gf.testing.random_graph(2, num_edges=1).num_edges)
"""
    # networkx comes with torch itself.
    assert fresh(code.replace('"networkx", ', "")) == "4 1"
