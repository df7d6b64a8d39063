"""PyG's two-layer GAT on Cora (Velickovic et al., 2018): the script of a PyG user, with one import line to change.

`--layers` chooses that line, and with two choices both networks train from the same initial weights in turn. You will
see the test accuracy at the best validation epoch and the seconds of a training epoch. `--root` is the folder of
PyG's Planetoid sets; PyG fetches Cora where it is not there. A run of 200 epochs takes a few seconds.
Last line: "better than guessing: True".
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from statistics import median

import torch
from torch.nn.functional import cross_entropy, dropout, elu
from torch_geometric.data import Data
from torch_geometric.datasets import Planetoid
from torch_geometric.transforms import NormalizeFeatures, RandomNodeSplit
from torch_geometric.utils import stochastic_blockmodel_graph


@dataclass(frozen=True)
class Config:
    """The settings of the paper."""

    hidden: int = 8
    heads: int = 8
    drop: float = 0.6
    epochs: int = 200
    learning_rate: float = 0.005
    weight_decay: float = 5e-4


class GAT(torch.nn.Module):
    """Two layers; the first joins its heads."""

    def __init__(self, num_features: int, num_classes: int, layers: str, config: Config) -> None:
        super().__init__()
        # The line to change; nothing else in this file knows whose layer it is.
        if layers == "pyg":
            from torch_geometric.nn import GATConv
        else:
            from graphformer.nn import GATConv

        self.drop = config.drop
        self.conv1 = GATConv(num_features, config.hidden, heads=config.heads, dropout=config.drop)
        self.conv2 = GATConv(config.hidden * config.heads, num_classes, heads=1, concat=False, dropout=config.drop)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Class scores of every node."""
        x = elu(self.conv1(dropout(x, self.drop, self.training), edge_index))
        return self.conv2(dropout(x, self.drop, self.training), edge_index)


def small_graph() -> Data:
    """Three communities, and features that hint at them."""
    sizes = [40, 30, 50]
    between = torch.full((3, 3), 0.02) + 0.15 * torch.eye(3)
    y = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    x = torch.rand(120, 16) + torch.nn.functional.one_hot(y, 16)
    data = Data(x=x, y=y, edge_index=stochastic_blockmodel_graph(sizes, between))
    return RandomNodeSplit("test_rest", num_train_per_class=5, num_val=30)(data)


def train(data: Data, layers: str, seed: int, config: Config) -> tuple[float, float]:
    """Test accuracy at the best validation epoch, and the median seconds of a training epoch."""
    torch.manual_seed(seed)
    model = GAT(data.num_features, int(data.y.max()) + 1, layers, config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    best, test, seconds = -1.0, 0.0, []
    for _ in range(config.epochs):
        start = time.perf_counter()
        model.train()
        optimizer.zero_grad()
        cross_entropy(model(data.x, data.edge_index)[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)

        model.eval()
        with torch.no_grad():
            right = (model(data.x, data.edge_index).argmax(dim=1) == data.y).float()
        if right[data.val_mask].mean() > best:
            best, test = float(right[data.val_mask].mean()), float(right[data.test_mask].mean())
    return test, median(seconds)


def main(argv: list[str] | None = None) -> None:
    """Train with the chosen layers, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", nargs="+", choices=["pyg", "graphformer"], default=["graphformer"])
    parser.add_argument("--root", default="data", help="folder of PyG's Planetoid sets")
    parser.add_argument("--seeds", type=int, default=1, help="number of runs, with seeds 0, 1, ...")
    parser.add_argument("--smoke", action="store_true", help="a small generated graph and few epochs")
    args = parser.parse_args(argv)

    torch.manual_seed(0)
    data = small_graph() if args.smoke else Planetoid(args.root, "Cora", transform=NormalizeFeatures())[0]
    config = Config(epochs=60) if args.smoke else Config()
    runs: dict[str, list[tuple[float, float]]] = {layers: [] for layers in args.layers}
    for seed in range(args.seeds):
        for layers in args.layers:
            runs[layers].append(train(data, layers, seed, config))
            print(f"seed {seed}  {layers:11}  test accuracy {runs[layers][-1][0]:.3f}")
    for layers, results in runs.items():
        accuracy = torch.tensor([accuracy for accuracy, _ in results])
        spread = f" ± {100 * accuracy.std():.1f}" if len(results) > 1 else ""
        epoch = 1000 * median(seconds for _, seconds in results)
        print(f"{layers:11}  test accuracy {100 * accuracy.mean():.1f}{spread} %, {epoch:.1f} ms a training epoch")
    guess = 1 / (int(data.y.max()) + 1)
    print(f"better than guessing: {all(accuracy > 1.2 * guess for done in runs.values() for accuracy, _ in done)}")


if __name__ == "__main__":
    main()
