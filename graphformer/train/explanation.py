"""What a trained model attends to in a molecule, as a picture: on the molecule, and as attention matrices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer._errors import RunError
from graphformer.data import from_smiles_list
from graphformer.data.molecule import rdkit_module
from graphformer.graphs import AttentionGraph
from graphformer.kernels import watch_attention
from graphformer.train.exported import open_module
from graphformer.train.fit import quiet
from graphformer.train.prepare import prepare

_MATRICES_A_ROW = 4


class Explanation(NamedTuple):
    """A prediction, and the attention that led to it.

    Attributes:
        smiles: The molecule.
        atoms: Symbol of each atom.
        prediction: Value or probability for each task.
        matrices: For each layer the weight of each pair of atoms, the mean of the heads. Row: query, the atom that
            attends; column: key, the atom that is attended to; 0 where the pattern has no pair. Shape `[layers, N, N]`.
        convolution: The same of the convolution beside attention, along the bonds and from each atom to itself, where
            that attends too (`conv="gat"` of GPS and Exphormer); None elsewhere.
    """

    smiles: str
    atoms: list[str]
    prediction: list[float]
    matrices: Tensor
    convolution: Tensor | None = None


def explain(run: str | Path | None = None, smiles: str = "", *, model: str | None = None) -> Explanation:
    """What a run's best checkpoint, or a trained model that comes with the package, attends to in a molecule.

    Args:
        run: The run's folder. Either this or `model` is given.
        smiles: The molecule.
        model: One of `graphformer.train.weights.names()`, or the path of a file that :func:`export` wrote.

    Returns:
        The prediction and the attention matrices. What goes to or comes from a node that is no atom (a virtual node) is
        left out of the matrices.

    Raises:
        InputError: A run and a model are given, or none; no model of that name.
        DataError: The SMILES cannot be read.
        RunError: No run, one of no molecules, a damaged file, or a model without attention.
    """
    with quiet():
        module = open_module(run, model, "explain")
        sample = from_smiles_list([smiles]).samples[0]
        prepared = prepare({"molecules": [sample]}, replace(module.config, cache=None))["molecules"][0]
        with torch.no_grad(), watch_attention() as seen:
            prediction = module.predict_batch(prepared)
    if not seen:
        raise RunError(f"explain: the model of {run or model} must attend; got one without attention. Use another.")
    molecule = rdkit_module("Chem").MolFromSmiles(smiles)
    atoms = [atom.GetSymbol() for atom in molecule.GetAtoms()]
    convolution = None
    if getattr(module.model.config, "conv", None) == "gat":  # a layer attends, then its convolution does
        seen, beside = seen[0::2], seen[1::2]
        convolution = torch.stack([_matrix(call.graph.edge_index, call.weights, len(atoms)) for call in beside])
    matrices = torch.stack(
        [_matrix(_pairs(call.graph, module.model, prepared), call.weights, len(atoms)) for call in seen]
    )
    return Explanation(smiles, atoms, prediction[0].tolist(), matrices, convolution)


def _pairs(graph: AttentionGraph, model: Any, batch: Any) -> Tensor:
    """The nodes that are attended to and that attend, pair by pair; a model's keys may be others than its nodes."""
    key, query = graph.edge_index
    return torch.stack((model.key_nodes(batch)[key] if hasattr(model, "key_nodes") else key, query))


def _matrix(edge_index: Tensor, weights: Tensor, size: int) -> Tensor:
    key, query = edge_index
    inside = (key < size) & (query < size)
    out = torch.zeros(size, size)
    return out.index_put((query[inside], key[inside]), weights.mean(1).float()[inside], accumulate=True)


def draw_explanation(explanation: Explanation, layer: int | None = None) -> Any:
    """The molecule, its atoms coloured by the attention they receive and its strongest pairs joined, and the matrices.

    A convolution that attends has a row of matrices below; the molecule shows attention only.

    Args:
        explanation: What :func:`explain` gave.
        layer: The layer whose attention is drawn on the molecule, counted from 1. Default: the mean of all.

    Returns:
        A matplotlib figure.

    Raises:
        InputError: No such layer.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers = len(explanation.matrices)
    if layer is not None:
        inside = 1 <= layer <= layers
        require(inside, "explain", "layer", f"lie in 1 to {layers}", layer, "Layers are counted from 1.")
    shown = explanation.matrices.mean(0) if layer is None else explanation.matrices[layer - 1]
    kinds = {"layer": explanation.matrices}
    if explanation.convolution is not None:
        kinds = {"attention, layer": explanation.matrices, "convolution, layer": explanation.convolution}
    rows = -(-layers // _MATRICES_A_ROW)  # of each kind
    columns = -(-layers // rows)
    total = rows * len(kinds)
    figure = Figure(figsize=(5.2 + 2.6 * columns, max(5.2, 2.9 * total)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(total, 1 + columns, width_ratios=[2.0] + [1.0] * columns)
    first = figure.add_subplot(grid[:, 0])
    values = ", ".join(f"{value:.3g}" for value in explanation.prediction)
    of = "mean of all layers" if layer is None else f"layer {layer}"
    first.set_title(f"{explanation.smiles}\nprediction {values}; attention: {of}", fontsize=9, wrap=True)
    for start, (name, matrices) in zip(range(0, total, rows), kinds.items(), strict=True):
        for number, matrix in enumerate(matrices):
            row, column = divmod(number, columns)
            axes = figure.add_subplot(grid[start + row, 1 + column])
            _draw_matrix(axes, explanation.atoms, matrix, f"{name} {number + 1}")
            if column == 0:
                axes.set_ylabel("query: attends")
    _draw_molecule(first, explanation, shown)
    return figure


def _names(atoms: list[str]) -> list[str]:
    """An atom's name in the picture is the one that is told beside it: its symbol and its place in the SMILES."""
    return [f"{symbol}{number}" for number, symbol in enumerate(atoms)]


def _draw_matrix(axes: Any, atoms: list[str], matrix: Tensor, title: str) -> None:
    axes.imshow(matrix.numpy(), cmap="Blues", vmin=0.0)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("key: is attended to")
    names = _names(atoms) if len(atoms) <= 30 else []
    axes.set_xticks(range(len(names)), names, fontsize=6, rotation=90)
    axes.set_yticks(range(len(names)), names, fontsize=6)


def _draw_molecule(axes: Any, explanation: Explanation, matrix: Tensor) -> None:
    """Bonds in grey, the strongest pairs as thin blue lines, atoms coloured by the attention that they receive."""
    molecule = rdkit_module("Chem").MolFromSmiles(explanation.smiles)
    rdkit_module("rdDepictor").Compute2DCoords(molecule)
    place = molecule.GetConformer().GetPositions()[:, :2]
    for bond in molecule.GetBonds():
        ends = place[[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()]]
        width = 5.0 * bond.GetBondTypeAsDouble()
        axes.plot(*ends.T, color="0.82", linewidth=width, zorder=1, solid_capstyle="round")
    pair = torch.triu(matrix + matrix.T, diagonal=1)
    strength, order = pair.flatten().sort(descending=True)
    for share, index in zip(strength / strength[0].clamp(min=1e-12), order[: len(explanation.atoms)], strict=False):
        if share > 0:  # as many pairs as atoms: more would hide the molecule
            ends = place[list(divmod(int(index), len(explanation.atoms)))]
            axes.plot(*ends.T, color="tab:blue", alpha=0.2 + 0.6 * float(share), linewidth=1.5, zorder=2)
    received = matrix.sum(0).numpy()
    span = max(abs(received - 1.0).max(), 0.05)
    how = {"cmap": "PuOr_r", "vmin": 1.0 - span, "vmax": 1.0 + span, "s": 240, "edgecolors": "0.4", "zorder": 3}
    dots = axes.scatter(*place.T, c=received, **how)
    shades = dots.cmap(dots.norm(received))[:, :3].mean(axis=1)
    for (x, y), name, shade in zip(place, _names(explanation.atoms), shades, strict=True):
        color = "white" if shade < 0.5 else "black"
        axes.text(x, y, name, ha="center", va="center", fontsize=7, zorder=4, color=color)
    told = "attention received: sum over the atoms that attend"
    axes.figure.colorbar(dots, ax=axes, location="bottom", shrink=0.6, label=told)
    axes.set_aspect("equal")
    axes.margins(0.1)
    axes.axis("off")
