"""Locality-sensitive hashing: near vectors fall into one bucket."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.patterns.content.content import Content
from graphformer.patterns.content.groups import pairs_of_one_label
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_count, check_seed

_CHUNK = 2**22  # projections that are held at a time


@dataclass(frozen=True)
class Hash(Content):
    """Each query attends to the keys that fall into its bucket, in any of several rounds (Reformer).

    A vector x falls into bucket argmax([xR, -xR]), where the columns of R are random directions, drawn for each head
    and round: the bucket says which of the directions and their opposites is nearest by angle, so that vectors at a
    small angle mostly share it. Queries and keys see the same R, and their lengths do not matter. A pair that meets in
    several rounds counts once.

    A query whose buckets hold no key has an empty row, and its output is 0; where queries are the keys, as in Reformer,
    each meets at least itself. Buckets are ragged and taken whole: input that is constant falls into one bucket and is
    attended to in full, at N * M pairs. Otherwise memory is that of the pairs of all rounds, about
    rounds * N * M / num_buckets a head.

    Args:
        num_buckets: Buckets a round, an even number.
        rounds: How often to hash, each time by other directions; more rounds miss fewer near pairs. Default 1.
        seed: Of the directions, any 64-bit integer; which are the same in every call.

    Raises:
        InputError: An argument is out of range.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [2.0, 0.0]]).view(3, 1, 2)
        >>> Hash(num_buckets=2).select(x, x, 3).edge_index
        tensor([[0, 2, 1, 0, 2],
                [0, 0, 1, 2, 2]])

    References:
        Kitaev, Kaiser and Levskaya, "Reformer: The Efficient Transformer", ICLR 2020.
    """

    num_buckets: int
    rounds: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_count(self, "num_buckets")
        even = self.num_buckets % 2 == 0
        require(even, "Hash", "num_buckets", "be even", self.num_buckets, "Each direction has an opposite.")
        check_count(self, "rounds")
        check_seed(self)

    def _pairs(self, query: Tensor, key: Tensor, sets: NodeSets, pattern: Pattern | None) -> tuple[Tensor, Tensor]:
        query_bucket, key_bucket = self._buckets(query), self._buckets(key)
        found = []
        for turn in range(self.rounds):
            row, column = pairs_of_one_label(query_bucket[turn], key_bucket[turn], self.num_buckets, sets)
            for earlier in range(turn):
                new = query_bucket[earlier].flatten()[row] != key_bucket[earlier].flatten()[column]
                row, column = row[new], column[new]
            found.append((row, column))
        if len(found) == 1:
            return found[0]  # many pairs, so no copy of them
        rows, columns = zip(*found, strict=True)
        return torch.cat(rows), torch.cat(columns)

    def _buckets(self, x: Tensor) -> Tensor:
        """The bucket of each vector in each round. Shape `[rounds, H, N]`, int64."""
        num_nodes, heads, width = x.shape
        half = self.num_buckets // 2
        generator = torch.Generator().manual_seed(self.seed)
        # Drawn on the CPU in float32, so that a seed means the same directions everywhere.
        directions = torch.randn(self.rounds, heads, width, half, generator=generator).to(x)
        out = torch.empty(self.rounds, heads, num_nodes, dtype=torch.int64, device=x.device)
        step = max(_CHUNK // (self.rounds * heads * half), 1)
        for start in range(0, num_nodes, step):
            part = torch.einsum("nhd,rhdb->rhnb", x[start : start + step], directions)
            (high, nearest), (low, farthest) = part.max(-1), part.min(-1)
            out[:, :, start : start + step] = torch.where(high >= -low, nearest, half + farthest)
        return out
