from __future__ import annotations

import sys

import pytest
import torch

from graphformer._errors import DataError, InputError, MissingPackageError
from graphformer.data import from_smiles, from_smiles_list, molecule_features
from graphformer.data._quiet_ogb import ogb_module


def test_a_molecule_has_both_directions_of_each_bond_and_features_in_range():
    data = from_smiles("C[C@H](N)C(=O)O", y=[1.5, float("nan")])
    assert data.x.shape == (6, 9)
    assert data.edge_index.shape == (2, 10)
    assert data.edge_attr.shape == (10, 3)
    forward = set(map(tuple, data.edge_index.T.tolist()))
    assert forward == {(j, i) for i, j in forward}
    assert (data.x < torch.tensor(molecule_features().node_categories)).all()
    assert (data.edge_attr < torch.tensor(molecule_features().edge_categories)).all()
    assert data.y.shape == (1, 2)
    assert data.y.dtype == torch.float32


def test_features_are_those_of_ogb():
    expected = ogb_module("ogb.utils.mol").smiles2graph("c1ccccc1C(F)(F)F")
    data = from_smiles("c1ccccc1C(F)(F)F")
    assert torch.equal(data.x, torch.from_numpy(expected["node_feat"]))
    assert torch.equal(data.edge_index, torch.from_numpy(expected["edge_index"]))
    assert torch.equal(data.edge_attr, torch.from_numpy(expected["edge_feat"]))
    assert "y" not in data


def test_an_atom_alone_has_no_edges():
    data = from_smiles("C")
    assert data.edge_index.shape == (2, 0)
    assert data.edge_attr.shape == (0, 3)


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("C(", "it is not SMILES syntax"),
        ("", "it has no atoms"),
        ("C(C)(C)(C)(C)C", "valence"),
        ("c1cccc1", "kekulize"),
        (7, "it is a int, not text"),
    ],
)
def test_unreadable_text_is_refused_with_its_reason_and_without_noise(smiles, reason, capfd):
    with pytest.raises(DataError, match=f"from_smiles: smiles must be readable by RDKit; got .*{reason}.*Correct the"):
        from_smiles(smiles)
    assert capfd.readouterr().err == ""


def test_features_that_ogb_does_not_know_are_told(monkeypatch):
    def unknown(smiles):
        raise ValueError("'STEREOATROPCW' is not in list")

    monkeypatch.setattr(ogb_module("ogb.utils.mol"), "smiles2graph", unknown)
    with pytest.raises(DataError, match="OGB's features cannot describe it: 'STEREOATROPCW'"):
        from_smiles("CC")


def test_a_list_names_every_bad_row():
    with pytest.raises(DataError, match=r"got row 1: 'C\(' .*; row 3: 'xyz' .*--skip-invalid"):
        from_smiles_list(["CC", "C(", "CCC", "xyz"])


def test_a_list_goes_on_with_skip_invalid():
    read = from_smiles_list(["CC", "C(", "CCC", "xyz"], [1.0, 2.0, 3.0, 4.0], skip_invalid=True)
    assert read.rows == [0, 2]
    assert [sample.y.item() for sample in read.samples] == [1.0, 3.0]
    assert len(read.problems) == 2
    assert read.problems[1].startswith("row 3: 'xyz'")


def test_many_bad_rows_are_counted():
    with pytest.raises(DataError, match="and 3 more"):
        from_smiles_list(["C("] * 13)


@pytest.mark.parametrize(("package", "blocked"), [("rdkit", "rdkit.rdBase"), ("ogb", "ogb.utils.mol")])
def test_a_missing_package_is_named(monkeypatch, package, blocked):
    monkeypatch.setitem(sys.modules, blocked, None)
    with pytest.raises(MissingPackageError, match=f"data: {package} must be installed.*pip install.*rdkit"):
        from_smiles("CC")


def test_ogb_is_imported_without_its_look_at_the_network(monkeypatch):
    for name in [name for name in sys.modules if name == "ogb" or name.startswith("ogb.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "outdated", raising=False)
    assert ogb_module("ogb.version").check_outdated is None
    assert "outdated" not in sys.modules


def test_lists_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="smiles must be a list of texts; got 'CCO'"):
        from_smiles_list("CCO")
    with pytest.raises(InputError, match="y must have 2 rows like smiles; got 1"):
        from_smiles_list(["C", "CC"], [1.0])
