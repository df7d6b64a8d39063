"""The embedded data set: molecules put together from our own fragments, labelled with Crippen's logP.

Nothing is downloaded and nothing is stored: the molecules follow from the fragment lists and from a counter hashed
with SHA-256, the labels from RDKit. Label: Wildman and Crippen, "Prediction of physicochemical parameters by atomic
contributions", J. Chem. Inf. Comput. Sci. 1999.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from graphformer.data._fragments import CORES, GROUPS, LINKERS
from graphformer.data.molecule import from_smiles_list, molecule_features, rdkit_module, silent_rdkit
from graphformer.data.task import Task, rmse

_HEAVY_ATOMS = range(6, 41)


def load_logp(num_molecules: int = 3000) -> Task:
    """The set "logp": regression of Crippen's logP, measured by RMSE.

    Of ten molecules in a row, eight train, one validates and one tests.

    Args:
        num_molecules: How many to make. The first ones are the same whatever the number. Default 3000, which takes
            some seconds.

    Example:
        >>> task = load_logp(20)
        >>> len(task.train), len(task.valid), len(task.test), task.train[0].x.shape[1]
        (16, 2, 2, 9)
    """
    smiles = molecules(num_molecules)
    descriptors = rdkit_module("Crippen")
    parse = rdkit_module("Chem").MolFromSmiles
    graphs = from_smiles_list(smiles, [descriptors.MolLogP(parse(text)) for text in smiles]).samples
    rows = {"train": [i for i in range(len(smiles)) if i % 10 < 8]}
    rows |= {"valid": list(range(8, len(smiles), 10)), "test": list(range(9, len(smiles), 10))}
    return Task(
        name="logp",
        level="graph",
        train=[graphs[row] for row in rows["train"]],
        valid=[graphs[row] for row in rows["valid"]],
        test=[graphs[row] for row in rows["test"]],
        task_type="regression",
        num_tasks=1,
        num_outputs=1,
        metric="rmse",
        higher_is_better=False,
        features=molecule_features(),
        measure=rmse,
        smiles=lambda part: [smiles[row] for row in rows[part]],
        task_names=("logP",),
    )


def molecules(count: int) -> list[str]:
    """The first `count` molecules as canonical SMILES, all distinct, of 6 to 40 heavy atoms.

    Example:
        >>> molecules(3) == molecules(5)[:3]
        True
    """
    found: dict[str, None] = {}
    number = 0
    with silent_rdkit():
        while len(found) < count:
            molecule = _assemble(_pieces(number))
            number += 1
            if molecule.GetNumHeavyAtoms() in _HEAVY_ATOMS:
                found.setdefault(rdkit_module("Chem").MolToSmiles(molecule))
    return list(found)


def _pieces(number: int) -> list[str]:
    """A chain: group, core, (linker, core) zero to two times, group. Longer chains are rarer."""
    draws = _draws(number)
    links = (0, 0, 0, 0, 1, 1, 1, 1, 1, 2)[next(draws) % 10]
    lists = [GROUPS, CORES, *([LINKERS, CORES] * links), GROUPS]
    return [pieces[next(draws) % len(pieces)] for pieces in lists]


def _draws(number: int) -> Iterator[int]:
    digest = hashlib.sha256(f"logp {number}".encode()).digest()
    return (int.from_bytes(digest[i : i + 2], "big") for i in range(0, len(digest), 2))


def _assemble(pieces: list[str]) -> Any:
    """Join each piece's last attachment point to the next piece's first one."""
    chem = rdkit_module("Chem")
    numbered = [
        piece.replace("[*:2]", f"[*:{place + 1}]").replace("[*:1]", f"[*:{max(place, 1)}]")
        for place, piece in enumerate(pieces)
    ]
    molecule = chem.molzip(chem.MolFromSmiles(".".join(numbered)))
    return chem.RemoveHs(molecule)
