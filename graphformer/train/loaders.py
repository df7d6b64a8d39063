"""From a task to batches: transforms once a sample, shuffling that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from graphformer.models import transform
from graphformer.train.config import TrainConfig


def prepare(graphs: Sequence[Data], config: TrainConfig, what: str) -> list[Data]:
    """The graphs with their encodings and attention graphs, made once; a progress bar shows how far it is."""
    step = transform(config.model)
    bar = tqdm(graphs, desc=f"Preparing {what}", unit="graph", leave=False, dynamic_ncols=True)
    return [step(graph) for graph in bar]


def training_loader(graphs: Sequence[Data], config: TrainConfig) -> DataLoader:
    """Batches in an order that changes with the epoch."""
    return _loader(graphs, config, sampler=EpochShuffle(len(graphs), config.seed))


def plain_loader(graphs: Sequence[Data], config: TrainConfig) -> DataLoader:
    """Batches in the given order."""
    return _loader(graphs, config)


def _loader(graphs: Sequence[Data], config: TrainConfig, **how: Any) -> DataLoader:
    workers = config.num_workers
    return DataLoader(graphs, config.batch_size, num_workers=workers, persistent_workers=workers > 0, **how)


class EpochShuffle(Sampler[int]):
    """A permutation that follows from seed and epoch; Lightning calls `set_epoch` before each epoch.

    Args:
        length: Number of samples.
        seed: Seed of the run.

    Example:
        >>> sampler = EpochShuffle(5, seed=0)
        >>> first = list(sampler)
        >>> sampler.set_epoch(1)
        >>> sorted(sampler) == sorted(first), list(sampler) == list(sampler), list(sampler) == first
        (True, True, False)
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(self.length, generator=generator).tolist())
