"""Every family of data sets through the same commands, on small file sets in the layout of the real ones."""

from __future__ import annotations

import json
import math
import re

import pytest
from ogb_files import make_ogb
from pyg_files import make_lrgb, make_peptides, make_planetoid, make_tu, make_zinc

from graphformer.cli.main import main

TINY = [
    "--model=graph_transformer",
    "--model.channels=8",
    "--model.layers=1",
    "--model.heads=2",
    "--model.walk_steps=0",
    "--epochs=2",
]
OGB = [
    "ogbg-moltox21",
    "ogbg-ppa",
    "ogbg-code2",
    "ogbn-arxiv",
    "ogbn-proteins",
    "ogbn-products",
    "ogbn-mag",
    "ogbl-collab",
    "ogbl-ddi",
    "ogbl-ppa",
    "ogbl-citation2",
]
PYG = {
    "cora": lambda root: make_planetoid(root, "cora"),
    "zinc": make_zinc,
    "pascalvoc-sp": lambda root: make_lrgb(root, "pascalvoc-sp"),
    "peptides-func": make_peptides,
    "tu-mutag": lambda root: make_tu(root, "MUTAG"),
}


@pytest.mark.parametrize("name", [*OGB, *PYG])
def test_a_run_trains_and_evaluates(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    PYG[name](tmp_path / "data") if name in PYG else make_ogb(name, tmp_path / "data")
    size = [] if name.startswith("ogbn-") or name == "cora" else ["--batch_size=8"]  # one graph is taken as a whole
    assert main(["train", name, "--root", "data", *size, *TINY]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    result = json.loads((tmp_path / "runs" / f"{name}-1" / "result.json").read_text())
    assert math.isfinite(result["test"])
    assert re.search(rf"^{name}: test \S+ {result['test']:.4f} at the best validation epoch", told, re.MULTILINE)
    assert main(["evaluate", f"runs/{name}-1"]) == 0
    assert f"{result['test']:.4f}" in capsys.readouterr().out
