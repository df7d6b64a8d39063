"""Batches for each level: graphs united, one whole graph, neighbourhoods of it, or links with pairs that are none.

What an epoch sees follows from the seed and the epoch alone, so that a resumed run repeats it; and several devices
share a batch so that together they see what one device would.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader as PlainLoader
from torch.utils.data import Sampler
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader, NeighborLoader

from graphformer.data.task import Level
from graphformer.models import transform
from graphformer.train.config import TrainConfig


class Share(NamedTuple):
    """Which part of each batch this process takes: every `processes`-th sample, from `rank` on."""

    rank: int = 0
    processes: int = 1


_ALL = Share()
_DRAWS = 20  # of a pair, until it is no link


def training_loader(
    graphs: Sequence[Data], level: Level, config: TrainConfig, share: Share = _ALL, epoch: int = 0
) -> PlainLoader[Any]:
    """Batches in an order that changes with the epoch.

    Args:
        graphs: Prepared training samples.
        level: Of the task.
        config: The run.
        share: The part of each batch that this process takes.
        epoch: The first epoch of a resumed run; Lightning makes the workers, which look ahead, before it says so.
    """
    workers = config.num_workers
    if level == "link":
        links: Any = _Links(graphs[0], config.negatives)
        sampler = LinkBatches(graphs[0].pair_index.shape[1], _batch_size(config), config.seed, share)
        sampler.set_epoch(epoch)
        return PlainLoader(links, batch_size=None, sampler=sampler, collate_fn=_itself, num_workers=workers)
    if config.neighbors:
        return _neighbour_loader(graphs[0], config, epoch)
    if len(graphs) == 1:
        return _whole(graphs)
    batches = GraphBatches(len(graphs), _batch_size(config), config.seed, share)
    batches.set_epoch(epoch)
    return DataLoader(graphs, batch_sampler=batches, num_workers=workers, persistent_workers=workers > 0)


def plain_loader(graphs: Sequence[Data], config: TrainConfig, share: Share = _ALL) -> PlainLoader[Any]:
    """Batches in the given order, for measuring and predicting."""
    if len(graphs) == 1:
        return _whole(graphs)
    mine: Any = [graphs[i] for i in range(share.rank, len(graphs), share.processes)] if share.processes > 1 else graphs
    workers = config.num_workers
    return DataLoader(mine, _batch_size(config), num_workers=workers, persistent_workers=workers > 0)


def _batch_size(config: TrainConfig) -> int:
    assert config.batch_size is not None  # settled, but where one graph is trained on as a whole
    return config.batch_size


def _whole(graphs: Sequence[Data]) -> PlainLoader[Any]:
    """One graph as it is: uniting a graph with no other would copy it."""
    return PlainLoader(list(graphs), batch_size=None, collate_fn=_itself)  # type: ignore[arg-type]


def _itself(sample: Any) -> Any:
    return sample


class _EpochSampler(Sampler[Any]):
    """Batches of ids that follow from seed and epoch; Lightning calls `set_epoch` before each epoch."""

    def __init__(self, length: int, batch_size: int, seed: int, share: Share = _ALL) -> None:
        self.length, self.batch_size, self.seed, self.share, self.epoch = length, batch_size, seed, share, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(self.length, self.batch_size)
        return whole + (rest >= self.share.processes)  # a batch with no sample for some device is left out

    def _batches(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
        order = torch.randperm(self.length, generator=generator)
        for number in range(len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield batch[self.share.rank :: self.share.processes]


class GraphBatches(_EpochSampler):
    """Lists of graph ids.

    Args:
        length: Number of graphs.
        batch_size: Graphs in a batch, over all processes.
        seed: Seed of the run.
        share: The part of each batch that this process takes.

    Example:
        >>> batches = GraphBatches(5, batch_size=2, seed=0)
        >>> first = list(batches)
        >>> batches.set_epoch(1)
        >>> sorted(sum(batches, [])) == [0, 1, 2, 3, 4], list(batches) == list(batches), list(batches) == first
        (True, True, False)
    """

    @property
    def sampler(self) -> GraphBatches:
        """Itself: of a loader's batch sampler, Lightning calls the sampler's `set_epoch` and not its own."""
        return self

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self._batches())


class LinkBatches(_EpochSampler):
    """Ids of links, each batch with a seed for drawing pairs that are none; arguments as :class:`GraphBatches`'."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        for number, batch in enumerate(self._batches()):
            yield batch, epoch_seed(epoch_seed(self.seed, self.epoch), number * self.share.processes + self.share.rank)


class _Links:
    """The graph, asked about some of its links and about as many random pairs that are no links of it.

    Pairs that turn out to be links, or one node twice, are drawn again, a few times: in ogbl-ddi every eighth is one.
    """

    def __init__(self, data: Data, negatives: str) -> None:
        self.data, self.negatives, self.num_nodes = data, negatives, int(data.num_nodes or 0)
        end = torch.tensor([self.num_nodes**2])  # behind all, so that every search ends at a number
        links = torch.cat((data.pair_index, data.pair_index.flip(0)), dim=1)  # the edges may lie on another device
        self.known = torch.cat((self._numbered(links).sort().values, end))

    def __getitem__(self, asked: tuple[torch.Tensor, int]) -> Data:
        links, seed = asked
        positive = self.data.pair_index[:, links]
        negative = self._draw(positive, torch.Generator().manual_seed(seed))
        out = copy.copy(self.data)
        out.pair_index = torch.cat((positive, negative), dim=1)
        out.y = torch.cat((torch.ones(len(links), 1), torch.zeros(len(links), 1)))
        return out

    def _draw(self, positive: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        negative = positive.clone()
        wrong = torch.ones(positive.shape[1], dtype=torch.bool)
        for _ in range(_DRAWS):
            drawn = torch.randint(0, self.num_nodes, (2, int(wrong.sum())), generator=generator)
            negative[:, wrong] = torch.stack((positive[0, wrong], drawn[1])) if self.negatives == "targets" else drawn
            number = self._numbered(negative)
            wrong = (self.known[torch.searchsorted(self.known, number)] == number) | (negative[0] == negative[1])
        return negative

    def _numbered(self, pairs: torch.Tensor) -> torch.Tensor:
        return pairs[0] * self.num_nodes + pairs[1]


class _Neighbours(NeighborLoader):
    """Neighbourhoods drawn by PyG: pyg-lib reads torch's generator, which is set for each batch and put back."""

    def collate_fn(self, index: Any) -> Any:
        """The neighbourhood of a batch of nodes."""
        batches: Any = self.batch_sampler
        with torch.random.fork_rng(devices=[]):
            first = int(index[0])  # no other batch of the epoch begins with it
            torch.default_generator.manual_seed(epoch_seed(epoch_seed(batches.seed, batches.epoch), first))
            return super().collate_fn(index)


def _neighbour_loader(data: Data, config: TrainConfig, epoch: int) -> PlainLoader[Any]:
    """Neighbourhoods of the target nodes."""
    whole, target, missing = copy.copy(data), data.target_index, -1 if data.y.dtype == torch.int64 else torch.nan
    whole.y = data.y.new_full((int(data.num_nodes or 0), *data.y.shape[1:]), missing)
    whole.y[target] = data.y
    for name in ("target_index", "attention_graph"):
        if name in whole:
            del whole[name]
    batches = GraphBatches(len(target), _batch_size(config), config.seed)  # of nodes, here
    batches.set_epoch(epoch)
    return _Neighbours(
        whole,
        num_neighbors=list(config.neighbors),
        input_nodes=target,
        batch_sampler=batches,
        transform=_Seeds(transform(config.model)),
        num_workers=config.num_workers,
    )


class _Seeds:
    """Asks a sampled neighbourhood about the nodes that it was drawn around."""

    def __init__(self, step: Callable[[Data], Data]) -> None:
        self.step = step

    def __call__(self, data: Data) -> Data:
        data.target_index = torch.arange(data.batch_size)
        data.y = data.y[: data.batch_size]
        return self.step(data)


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for an epoch; seeds of neighbouring runs do not meet in neighbouring epochs, as 0 + 1 and 1 + 0 would."""
    return (seed * 1_000_003 + epoch) % 2**63
