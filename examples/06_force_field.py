"""Learn a force field: energies from coordinates by attention, forces as their derivative, losses on both.

The atoms of three small molecules are pushed about at random; RDKit's MMFF94 gives energies (kcal/mol) and forces
(kcal/mol/angstrom). Atoms attend to those within a cutoff, and what an edge carries comes from its length, so that a
loss on forces differentiates attention twice. You will see the error on new conformers beside that of predicting the
mean, and that forces are the finite difference of the energy and turn with the molecule, which leaves the energy as
it is. Takes about a minute. Last line: "forces are the derivative of an invariant energy: True".
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from rdkit import Chem
from rdkit.Chem import AllChem
from torch import Tensor
from torch.nn.functional import mse_loss
from torch_geometric.data import Batch, Data
from torch_geometric.nn import global_add_pool

from graphformer.nn import RadialBasis, TransformerBlock
from graphformer.patterns import Within

CUTOFF = 5.0
MOLECULES = ("CCO", "CC(=O)N", "C1CO1")


def conformers(smiles: str, count: int, push: float = 0.08) -> list[Data]:
    """A molecule at rest, its atoms pushed about, with forces and the energy above that of rest."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(molecule, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(molecule, maxIters=5000)
    field = AllChem.MMFFGetMoleculeForceField(molecule, AllChem.MMFFGetMoleculeProperties(molecule))
    rest, lowest = torch.tensor(field.Positions()).view(-1, 3), field.CalcEnergy()
    z, found = torch.tensor([atom.GetAtomicNum() for atom in molecule.GetAtoms()]), []
    for _ in range(count):
        pos = rest + push * torch.randn_like(rest)
        flat = pos.flatten().tolist()
        energy, slope = torch.tensor([field.CalcEnergy(flat) - lowest]), torch.tensor(field.CalcGrad(flat))
        found.append(Data(z=z, pos=pos.float(), energy=energy, force=-slope.view(-1, 3).float()))
    return found


class ForceField(torch.nn.Module):
    """Energy as a sum over atoms, after layers of attention among those within the cutoff."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(10, 64)
        self.basis = RadialBasis(16, CUTOFF)
        self.blocks = torch.nn.ModuleList(TransformerBlock(64, 4, edge_dim=16, activation="gelu") for _ in range(3))
        self.readout = torch.nn.Linear(64, 1)

    # The lines that matter: pairs by distance, features and a fading bias by distance, forces by autograd.
    def forward(self, data: Data, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Energies `[B]` and forces `[N, 3]`."""
        pos = data.pos.detach().requires_grad_()
        graph = Within(CUTOFF).on(data)
        offset = pos[graph.edge_index].diff(dim=0).squeeze(0)
        distance = offset.square().sum(1).clamp(min=1e-12).sqrt()  # an atom attends to itself, too
        x, features, fade = self.embed(data.z), self.basis(distance), self.basis.log_envelope(distance)
        for block in self.blocks:
            x = block(x, graph, features, edge_bias=fade)
        energy = global_add_pool(self.readout(x), data.batch).squeeze(1)
        return energy, -torch.autograd.grad(energy.sum(), pos, create_graph=create_graph)[0]


def laws_hold(model: ForceField, sample: Data) -> bool:
    """Whether the energy's finite difference and a turned molecule say the same, in float64."""
    model, pos, step = model.double(), sample.pos.double(), 1e-4
    energy, force = model(Data(z=sample.z, pos=pos))
    moves = (step * torch.eye(pos.numel(), dtype=pos.dtype)).view(-1, *pos.shape)
    sides = [[model(Data(z=sample.z, pos=pos + sign * move))[0] for move in moves] for sign in (1, -1)]
    slope = (torch.cat(sides[1]) - torch.cat(sides[0])).view_as(pos) / (2 * step)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=pos.dtype))[0]
    turned_energy, turned_force = model(Data(z=sample.z, pos=pos @ turn + 7.0))
    gaps, most = (slope - force, turned_energy - energy, turned_force - force @ turn), float(force.abs().max())
    for name, gap in zip(("finite difference", "energy after a turn", "forces after a turn"), gaps, strict=True):
        print(f"{name}: off by at most {float(gap.detach().abs().max()):.0e}, where forces reach {most:.0f}")
    return all(bool(gap.abs().max() < 1e-5 * most) for gap in gaps)


@dataclass(frozen=True)
class Config:
    """Conformers of each molecule to learn from, and the length of training."""

    conformers: int = 300
    steps: int = 1000


def main(argv: list[str] | None = None) -> None:
    """Make the data, train, test, check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few conformers and steps, for a quick check")
    config = Config(conformers=10, steps=3) if parser.parse_args(argv).smoke else Config()
    torch.manual_seed(0)
    train = [sample for smiles in MOLECULES for sample in conformers(smiles, config.conformers)]
    test = Batch.from_data_list([sample for smiles in MOLECULES for sample in conformers(smiles, 30)])
    model = ForceField()
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(config.steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / config.steps)
        batch = Batch.from_data_list([train[i] for i in torch.randint(len(train), (24,))])
        energy, force = model(batch, create_graph=True)
        loss = mse_loss(force, batch.force) + 0.1 * mse_loss(energy, batch.energy)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    energy, force = model(test)
    for name, found, true in (("energy", energy, test.energy), ("forces", force, test.force)):
        error, mean = mse_loss(found, true).sqrt(), (true - true.mean(0)).square().mean().sqrt()
        print(f"{name}: test RMSE {error:.2f}, predicting the mean {mean:.2f}")
    print(f"forces are the derivative of an invariant energy: {laws_hold(model, test[0])}")


if __name__ == "__main__":
    main()
