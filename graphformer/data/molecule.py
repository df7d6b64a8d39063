"""Molecules as node sets: atoms are nodes, bonds are edges in both directions, features are OGB's categories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphformer._checks import require
from graphformer._errors import DataError, MissingPackageError
from graphformer.data._quiet_ogb import ogb_module
from graphformer.graphs.features import Features

_SHOWN = 10


class Molecules(NamedTuple):
    """What :func:`from_smiles_list` could read, and what it could not.

    Attributes:
        samples: One `Data` a readable SMILES, in order.
        rows: Position of each sample in the list that was given.
        problems: One line for each SMILES that could not be read: its row, its text, the reason.
    """

    samples: list[Data]
    rows: list[int]
    problems: list[str]


def molecule_features() -> Features:
    """What OGB's molecules carry: 9 categories an atom and 3 a bond.

    Example:
        >>> molecule_features().node_categories, molecule_features().edge_categories
        ((119, 5, 12, 12, 10, 6, 6, 2, 2), (5, 6, 2))
    """
    dims = ogb_module("ogb.utils.features")
    return Features(
        node_categories=tuple(dims.get_atom_feature_dims()), edge_categories=tuple(dims.get_bond_feature_dims())
    )


def from_smiles(smiles: str, y: float | Sequence[float] | Tensor | None = None) -> Data:
    """The molecular graph of one SMILES, with OGB's atom and bond features.

    Args:
        smiles: The molecule, for instance ``"CCO"``.
        y: Its label or labels, stored as `y` [1, num_tasks] float32. None (default) stores none.

    Returns:
        `Data` with `x` [n, 9] int64, `edge_index` [2, e] int64, `edge_attr` [e, 3] int64 and the text as `smiles`; both
        directions of each bond are there, with the same features.

    Raises:
        DataError: RDKit cannot read the text; the message tells why.
        MissingPackageError: rdkit or ogb is not installed.

    Example:
        >>> ethanol = from_smiles("CCO", y=-0.0014)
        >>> ethanol.x.shape, ethanol.edge_index.tolist()
        (torch.Size([3, 9]), [[0, 1, 1, 2], [1, 0, 2, 1]])
    """
    with silent_rdkit():
        sample = _read(smiles, y)
    if isinstance(sample, str):
        raise DataError(_message(f"{smiles!r} ({sample})", "Correct the text."))
    return sample


def from_smiles_list(
    smiles: Sequence[str],
    y: Sequence[float] | Tensor | None = None,
    *,
    skip_invalid: bool = False,
) -> Molecules:
    """The molecular graphs of many SMILES.

    Args:
        smiles: The molecules.
        y: One label, or one row of labels, a molecule. None (default) stores none.
        skip_invalid: Leave out what cannot be read and list it in `problems`. False (default) raises instead.

    Raises:
        DataError: Some text cannot be read; the message names each row (counted from 0).

    Example:
        >>> read = from_smiles_list(["CCO", "C(", "c1ccccc1"], skip_invalid=True)
        >>> read.rows, read.problems
        ([0, 2], ["row 1: 'C(' (it is not SMILES syntax)"])
    """
    where = "from_smiles_list"
    require(not isinstance(smiles, str), where, "smiles", "be a list of texts", repr(smiles), "Put it into a list.")
    count = "none" if y is None else len(y)
    require(
        y is None or len(y) == len(smiles), where, "y", f"have {len(smiles)} rows like smiles", count, "Match them."
    )
    samples, rows, problems = [], [], []
    with silent_rdkit():
        for row, text in enumerate(smiles):
            sample = _read(text, None if y is None else y[row])
            if isinstance(sample, str):
                problems.append(f"row {row}: {text!r} ({sample})")
            else:
                samples.append(sample)
                rows.append(row)
    if problems and not skip_invalid:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        remedy = "Correct them, or leave them out with skip_invalid=True (--skip-invalid)."
        raise DataError(_message("; ".join(problems[:_SHOWN]) + more, remedy))
    return Molecules(samples, rows, problems)


def _message(got: str, remedy: str) -> str:
    return f"from_smiles: smiles must be readable by RDKit; got {got}. {remedy}"


def _problem(smiles: str) -> str:
    """Why the text is no molecule that we can describe; empty if it is one."""
    chem = rdkit_module("Chem")
    if not isinstance(smiles, str):
        return f"it is a {type(smiles).__name__}, not text"
    rough = chem.MolFromSmiles(smiles, sanitize=False)
    if rough is None:
        return "it is not SMILES syntax"
    if rough.GetNumAtoms() == 0:
        return "it has no atoms"
    if chem.MolFromSmiles(smiles) is None:
        reasons = [problem.Message() for problem in chem.DetectChemistryProblems(rough)]
        return "; ".join(reasons) or "RDKit cannot sanitise it"
    return ""


def _read(smiles: str, y: float | Sequence[float] | Tensor | None) -> Data | str:
    """The sample, or the reason why there is none."""
    problem = _problem(smiles)
    if problem:
        return problem
    try:
        graph = ogb_module("ogb.utils.mol").smiles2graph(smiles)
    except ValueError as error:  # a kind of bond stereo that OGB's features do not know
        return f"OGB's features cannot describe it: {error}"
    data = Data(
        x=torch.from_numpy(graph["node_feat"]),
        edge_index=torch.from_numpy(graph["edge_index"]),
        edge_attr=torch.from_numpy(graph["edge_feat"]),
        smiles=smiles,
    )
    if y is not None:
        data.y = torch.as_tensor(y, dtype=torch.float32).reshape(1, -1)
    return data


@contextmanager
def silent_rdkit() -> Iterator[None]:
    """RDKit writes its complaints to the process's stderr; ours go into the error instead."""
    with rdkit_module("rdBase").BlockLogs():
        yield


def rdkit_module(name: str) -> ModuleType:
    """`rdkit.<name>`, or `rdkit.Chem.<name>`.

    Raises:
        MissingPackageError: rdkit is not installed.
    """
    try:
        if name in ("Chem", "rdBase"):
            return import_module(f"rdkit.{name}")
        return import_module(f"rdkit.Chem.{name}")
    except ImportError as error:
        raise MissingPackageError(f"data: rdkit must be installed; got {error}. pip install rdkit") from error
