"""Train a small graph transformer on molecules, ask it for two predictions, and see what it attends to.

Uses the embedded set `logp` (the octanol-water partition of molecules, made in memory), so nothing is downloaded. You
will see the run's result, the predicted logP of ethanol and benzene, and the attention graph of ethanol. Takes about a
minute; the full recipe is `graphformer train`. Last line: "ethanol is less oily than benzene: True".
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from graphformer.data import from_smiles
from graphformer.patterns import Edges
from graphformer.train import predict, recipe, train


@dataclass(frozen=True)
class Config:
    """Length of the demonstration."""

    epochs: int = 6


def main(argv: list[str] | None = None) -> None:
    """Train, predict, look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one epoch, for a quick check")
    config = Config(epochs=1) if parser.parse_args(argv).smoke else Config()

    with tempfile.TemporaryDirectory() as folder:
        # The lines that matter: a recipe, a run, predictions from its best checkpoint.
        settings = replace(recipe("logp"), epochs=config.epochs, folder=str(Path(folder) / "run"))
        result = train(settings)
        (ethanol, benzene), _ = predict(result.folder, ["CCO", "c1ccccc1"])

    print(f"test {result.metric} {result.test:.2f}, predicting the mean {result.baseline:.2f}")
    for name, prediction in (("ethanol", ethanol), ("benzene", benzene)):
        print(f"logP of {name} ({prediction.smiles}): {prediction.values[0]:.2f}")
    print(Edges(self_loops=True).on(from_smiles("CCO")).explain())
    print(f"ethanol is less oily than benzene: {ethanol.values[0] < benzene.values[0]}")


if __name__ == "__main__":
    main()
