from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Batch, Data

from graphformer._errors import DataError, InputError
from graphformer.data import AddDescriptors, from_smiles
from graphformer.data.descriptors import KINDS, descriptor_names, with_descriptors
from graphformer.data.logp import load_logp


def described(smiles):
    return dict(zip(descriptor_names(KINDS), AddDescriptors()(Data(smiles=smiles)).graph_attr[0].tolist(), strict=True))


def test_they_are_what_rdkit_tells():
    aspirin = described("CC(=O)Oc1ccccc1C(=O)O")
    assert aspirin["MolWt"] == pytest.approx(180.16, abs=0.01)
    assert aspirin["TPSA"] == pytest.approx(63.6, abs=0.01)
    assert (aspirin["NumHDonors"], aspirin["NumAromaticRings"], aspirin["NumRotatableBonds"]) == (1.0, 1.0, 2.0)
    assert (aspirin["fr_ester"], aspirin["fr_COO"], aspirin["fr_nitro"]) == (1.0, 1.0, 0.0)


def test_bits_are_the_surroundings_of_the_atoms():
    alcohols = [AddDescriptors(["morgan"])(Data(smiles=smiles)).graph_attr[0] for smiles in ("CCO", "CCCO", "c1ccccc1")]
    assert all(set(bits.tolist()) == {0.0, 1.0} for bits in alcohols)
    shared, apart = alcohols[0] * alcohols[1], alcohols[0] * alcohols[2]
    assert shared.sum() > apart.sum()
    both = AddDescriptors(["morgan", "rdkit"])(Data(smiles="CCO")).graph_attr[0]
    assert torch.equal(both[:1024], alcohols[0])
    assert both[1024:].tolist() == AddDescriptors(["rdkit"])(Data(smiles="CCO")).graph_attr[0].tolist()


def test_kinds_are_known_and_named_once():
    with pytest.raises(
        InputError, match="descriptors: kind must be one of rdkit, morgan; got 'morgn'. Did you mean mo"
    ):
        AddDescriptors(["morgn"])
    with pytest.raises(InputError, match=r"descriptors: kinds must be distinct; got \['rdkit', 'rdkit'\]"):
        AddDescriptors(["rdkit", "rdkit"])


def test_what_rdkit_cannot_tell_is_zero(capfd):
    assert set(described("no molecule").values()) == {0.0}
    assert all(value == value and abs(value) < 1e9 for value in described("[Na+].[Cl-]").values())
    assert capfd.readouterr() == ("", "")


def test_the_sample_that_was_given_is_left_alone():
    sample = from_smiles("CCO")
    out = AddDescriptors()(sample)
    assert "graph_attr" not in sample
    assert out.graph_attr.shape == (1, len(descriptor_names(KINDS)))
    assert Batch.from_data_list([out, out]).graph_attr.shape == (2, len(descriptor_names(KINDS)))


def test_a_sample_needs_its_smiles():
    with pytest.raises(InputError, match="AddDescriptors: data must carry smiles; got none. Make it with from_smiles"):
        AddDescriptors()(Data())


def test_a_task_carries_them_in_the_order_of_its_graphs():
    task = with_descriptors(load_logp(30), KINDS)
    assert task.features.graph_channels == len(descriptor_names(KINDS))
    place = descriptor_names(KINDS).index("MolLogP")
    told = torch.stack([AddDescriptors()(graph).graph_attr[0, place] for graph in task.valid])
    assert torch.allclose(told, torch.cat([graph.y for graph in task.valid])[:, 0], atol=1e-4)


def test_a_task_without_smiles_is_refused():
    task = replace(load_logp(10), name="proteins", smiles=None)
    with pytest.raises(DataError, match="train: descriptors must be of molecules with SMILES; got proteins. Choose a"):
        with_descriptors(task, ["rdkit"])
