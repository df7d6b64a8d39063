"""Numbers of molecules as a whole, by RDKit, which a model may read beside their graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from graphformer._checks import refuse, require, require_choice
from graphformer._errors import DataError
from graphformer.data.molecule import rdkit_module, silent_rdkit
from graphformer.data.task import Task

KINDS = ("rdkit", "morgan")
_BITS = 1024
_SINGLE = (
    *("MolWt", "HeavyAtomCount", "NumValenceElectrons", "NumRadicalElectrons", "MolLogP", "MolMR", "TPSA", "LabuteASA"),
    *("FractionCSP3", "NumHAcceptors", "NumHDonors", "NHOHCount", "NOCount", "NumHeteroatoms", "NumRotatableBonds"),
    *("RingCount", "NumAromaticRings", "NumAliphaticRings", "NumSaturatedRings", "NumAromaticCarbocycles"),
    *("NumAromaticHeterocycles", "NumAliphaticCarbocycles", "NumAliphaticHeterocycles", "NumSaturatedCarbocycles"),
    *("NumSaturatedHeterocycles", "MaxPartialCharge", "MinPartialCharge", "MaxAbsPartialCharge", "MinAbsPartialCharge"),
    *("MaxEStateIndex", "MinEStateIndex", "MaxAbsEStateIndex", "MinAbsEStateIndex", "BalabanJ", "BertzCT", "qed"),
    *("Chi0", "Chi0n", "Chi0v", "Chi1", "Chi1n", "Chi1v", "Chi2n", "Chi2v", "Chi3n", "Chi3v", "Chi4n", "Chi4v"),
    *("HallKierAlpha", "Kappa1", "Kappa2", "Kappa3", "FpDensityMorgan1", "FpDensityMorgan2", "FpDensityMorgan3"),
)
_FRAGMENT = "fr_"  # how RDKit names its counts of functional groups


@cache
def _single() -> dict[str, Callable[[Any], float]]:
    every = dict(rdkit_module("Descriptors").descList)
    missing = [name for name in _SINGLE if name not in every]
    require(not missing, "descriptors", "rdkit", "have all descriptors", f"one without {missing}", "Install another.")
    fragments = sorted(name for name in every if name.startswith(_FRAGMENT))
    return {name: every[name] for name in (*_SINGLE, *fragments)}


@cache
def _families() -> dict[str, tuple[int, Callable[[Any], Sequence[float]]]]:
    """Surface areas by what lies below them: how many, and what tells them all at once."""
    fast, slow = rdkit_module("rdMolDescriptors"), rdkit_module("EState.EState_VSA")
    return {
        "PEOE_VSA": (14, fast.PEOE_VSA_),
        "SMR_VSA": (10, fast.SMR_VSA_),
        "SlogP_VSA": (12, fast.SlogP_VSA_),
        "EState_VSA": (11, slow.EState_VSA_),
        "VSA_EState": (10, slow.VSA_EState_),
    }


@cache
def _morgan() -> Callable[[Any], Sequence[int]]:
    return rdkit_module("rdFingerprintGenerator").GetMorganGenerator(radius=2, fpSize=_BITS).GetFingerprint


def descriptor_names(kinds: Sequence[str]) -> list[str]:
    """What :class:`AddDescriptors` stores, in order; RDKit's descriptors by RDKit's names.

    Args:
        kinds: Any of `KINDS`, in the order in which they stand side by side.

    Raises:
        InputError: An unknown kind, or one that is given twice.

    Example:
        >>> names = descriptor_names(["rdkit"])
        >>> names[4:7], len(names), len(descriptor_names(["rdkit", "morgan"]))
        (['MolLogP', 'MolMR', 'TPSA'], 197, 1221)
    """
    names: list[str] = []
    for kind in kinds:
        require_choice(kind, KINDS, "descriptors", "kind")
        require(list(kinds).count(kind) == 1, "descriptors", "kinds", "be distinct", list(kinds), "Name each once.")
        if kind == "morgan":
            names += [f"morgan{bit}" for bit in range(_BITS)]
        else:
            sizes = [(name, count) for name, (count, _) in _families().items()]
            names += [*_single(), *(f"{name}{number}" for name, count in sizes for number in range(1, count + 1))]
    return names


class AddDescriptors(BaseTransform):
    """Stores `data.graph_attr` [1, D] float32: numbers of the molecule `data.smiles` as a whole.

    Of kind "rdkit" these are 197 of RDKit's descriptors: size, charge, lipophilicity, shape, connectivity, counts of
    rings, bonds and functional groups, and how much surface lies above atoms of which kind; those that old and new
    versions have in common and that cost little. Of kind "morgan" they are a fingerprint: 1024 bits that tell which
    surroundings its atoms have, two bonds wide.

    What RDKit cannot tell is 0: a descriptor that is not defined for a molecule, and all of a molecule that it cannot
    read, as older versions could (see :func:`graphformer.train.forest.fingerprints`).

    Args:
        kinds: "rdkit", "morgan" or, by default, both.

    Raises:
        InputError: An unknown kind; data without `smiles`.

    Example:
        >>> from graphformer.data import from_smiles
        >>> ethanol = AddDescriptors()(from_smiles("CCO"))
        >>> told = dict(zip(descriptor_names(KINDS), ethanol.graph_attr[0].tolist()))
        >>> round(told["MolWt"], 2), told["NumHDonors"], told["fr_Al_OH"]
        (46.07, 1.0, 1.0)

    References:
        Rogers and Hahn, "Extended-connectivity fingerprints", 2010; Yang et al., "Analyzing learned molecular
        representations for property prediction", 2019, for networks that read both beside the graph.
    """

    def __init__(self, kinds: Sequence[str] = KINDS) -> None:
        self.kinds = tuple(kinds)
        self.width = len(descriptor_names(self.kinds))

    def forward(self, data: Data) -> Data:
        """Store the numbers on a copy of the data."""
        require("smiles" in data, "AddDescriptors", "data", "carry smiles", "none", "Make it with from_smiles.")
        with silent_rdkit():
            molecule = rdkit_module("Chem").MolFromSmiles(data.smiles)
            parts = [] if molecule is None else [_TELL[kind](molecule) for kind in self.kinds]
        values = [float(value) for part in parts for value in part] or [0.0] * self.width
        data.graph_attr = torch.tensor([values]).nan_to_num(0.0, posinf=0.0, neginf=0.0)
        return data


def _tell_rdkit(molecule: Any) -> list[float]:
    values = [tell(molecule) for tell in _single().values()]
    for _, tell_all in _families().values():
        values.extend(tell_all(molecule))
    return values


_TELL: dict[str, Callable[[Any], Sequence[float]]] = {
    "rdkit": _tell_rdkit,
    "morgan": lambda molecule: _morgan()(molecule),
}


def with_descriptors(task: Task, kinds: Sequence[str]) -> Task:
    """The task whose graphs carry their SMILES and, once they have passed :class:`AddDescriptors`, `graph_attr`.

    Raises:
        InputError: An unknown kind.
        DataError: The task has no SMILES.
    """
    if task.smiles is None:
        remedy = "Choose a set of molecules, or pass --descriptors []."
        refuse("train", "descriptors", "be of molecules with SMILES", task.name, remedy, DataError)
    features = replace(task.features, graph_channels=len(descriptor_names(kinds)))
    train, valid, test = (
        _with_smiles(graphs, task.smiles(part))
        for part, graphs in (("train", task.train), ("valid", task.valid), ("test", task.test))
    )
    return replace(task, features=features, train=train, valid=valid, test=test)


def _with_smiles(graphs: Sequence[Data], smiles: Sequence[str]) -> list[Data]:
    out = []
    for graph, text in zip(graphs, smiles, strict=True):
        out.append(copy.copy(graph))
        out[-1].smiles = text
    return out
