from __future__ import annotations

import hashlib

import pytest
import torch

from graphformer.data import from_smiles, load
from graphformer.data._fragments import CORES, GROUPS, LINKERS
from graphformer.data.logp import _pieces, load_logp, molecules
from graphformer.data.molecule import rdkit_module


@pytest.fixture(scope="module")
def smiles():
    return molecules(3000)


def test_the_molecules_are_distinct_and_always_the_same(smiles):
    assert len(set(smiles)) == 3000
    chem = rdkit_module("Chem")
    # Another RDKit may write the same molecule in another way, so the digest is of the formulas.
    formulas = [rdkit_module("rdMolDescriptors").CalcMolFormula(chem.MolFromSmiles(text)) for text in smiles]
    digest = hashlib.sha256("\n".join(formulas).encode()).hexdigest()
    assert digest == "ddb211cf3fb280487f9be7a0ea5f7a8c23f4171240f2da09eb9c15326170c9b7"


def test_the_molecules_are_whole_and_of_varied_size(smiles):
    chem = rdkit_module("Chem")
    parsed = [chem.MolFromSmiles(text) for text in smiles]
    assert None not in parsed
    sizes = [molecule.GetNumHeavyAtoms() for molecule in parsed]
    assert min(sizes) >= 6
    assert max(sizes) <= 40
    assert len(set(sizes)) > 25
    assert not any("*" in text or "." in text for text in smiles)
    # Nothing that a chemist would not keep in a bottle: peroxides, N-N-N chains, hemiaminals, free radicals.
    unstable = [chem.MolFromSmarts(text) for text in ("[OX2][OX2]", "[NX3][NX3]", "[CX4]([OX2H])[NX3]", "[OX2][SX2]")]
    assert not any(molecule.HasSubstructMatch(query) for molecule in parsed for query in unstable)


def test_every_fragment_is_readable_and_drawn():
    assert len(set(CORES)) == len(CORES)
    assert len(set(GROUPS)) == len(GROUPS)
    assert len(set(LINKERS)) == len(LINKERS)
    chem = rdkit_module("Chem")
    assert all(chem.MolFromSmiles(piece) is not None for piece in (*CORES, *GROUPS, *LINKERS))
    drawn = {piece for number in range(3000) for piece in _pieces(number)}
    assert drawn == {*CORES, *GROUPS, *LINKERS}


def test_the_split_is_disjoint_and_the_label_is_crippens():
    task = load_logp(50)
    assert (len(task.train), len(task.valid), len(task.test)) == (40, 5, 5)
    texts = molecules(50)
    chem, crippen = rdkit_module("Chem"), rdkit_module("Crippen")
    expected = [crippen.MolLogP(chem.MolFromSmiles(text)) for text in texts]
    assert [graph.y.item() for graph in task.valid] == pytest.approx(expected[8::10], abs=1e-5)
    assert [graph.y.item() for graph in task.test] == pytest.approx(expected[9::10], abs=1e-5)
    rest = [label for i, label in enumerate(expected) if i % 10 < 8]
    assert [graph.y.item() for graph in task.train] == pytest.approx(rest, abs=1e-5)
    assert task.metric == "rmse"
    assert not task.higher_is_better


def test_load_makes_it_without_a_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("graphformer.data.logp.molecules", lambda count: ["CCO", "c1ccccc1"] * 5)
    task = load("logp", root=tmp_path / "nothing")
    assert len(task.train) == 8
    assert task.evaluate(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [5.0]])) == pytest.approx(4.5**0.5)
    assert not (tmp_path / "nothing").exists()


def test_the_smiles_are_those_of_the_graphs():
    task = load_logp(30)
    for part in ("train", "valid", "test"):
        for text, graph in zip(task.smiles(part), getattr(task, part), strict=True):
            assert torch.equal(from_smiles(text).x, graph.x)
    assert sorted(text for part in ("train", "valid", "test") for text in task.smiles(part)) == sorted(molecules(30))
