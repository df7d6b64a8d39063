"""Three ways to a pattern of your own, in about five lines each: a formula, a list of edges, a class.

All three say the same: the log-sparse attention of Li et al. (2019), in which a step of a time series attends to
itself and to the steps 1, 2, 4, 8, ... before it, so that log2(N) layers see the whole past. You will see that each
pattern keeps the laws of patterns, what it costs at length, and that a mask_mod of FlexAttention is a pattern as it is.
Takes a few seconds. Last line: "three ways, one graph: True".
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from graphformer.graphs.runs import KeyRuns
from graphformer.patterns import Causal, Pairs, Pattern, RunTerm, Where
from graphformer.patterns.node_sets import NodeSets
from graphformer.testing import check_pattern


# 1. A formula: places of queries and keys in, a bool for each pair out.
def log_sparse(query: Tensor, key: Tensor) -> Tensor:
    """Whether the key lies 0, 1, 2, 4, 8, ... steps before the query."""
    back = query - key
    return (back >= 0) & (back & (back - 1) == 0)


# 2. An edge function: the size of a set in, its edges out; row 0 holds keys, row 1 queries.
def log_sparse_edges(num_nodes: int) -> Tensor:
    """The edges of one set."""
    step = torch.arange(num_nodes)
    backs = (0, *(2**power for power in range(num_nodes.bit_length())))
    return torch.cat([torch.stack((step[: max(num_nodes - back, 0)], step[back:])) for back in backs], dim=1)


# 3. A class: its terms and its formula, which check each other. It has a repr, and may have arguments.
@dataclass(frozen=True, repr=False)
class LogSparse(Pattern):
    """As above, in runs of keys for all sets of a batch at once."""

    def _lower(self, sets: NodeSets) -> list[RunTerm]:
        backs = (0, *(2**power for power in range(sets.num_keys.bit_length())))
        runs = (sets.runs(sets.local_query - back, sets.local_query - back + 1) for back in backs)
        return [RunTerm(reduce(KeyRuns.union, runs))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        return log_sparse(sets.local_query[query], sets.local_key[key])


def look_back(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
    """A mask_mod as FlexAttention takes it."""
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 16)


@dataclass(frozen=True)
class Config:
    """Length of the series for the timing."""

    num_steps: int = 8192


def main(argv: list[str] | None = None) -> None:
    """Compare the three ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a short series, for a quick check")
    config = Config(num_steps=300) if parser.parse_args(argv).smoke else Config()

    ways = [Where(log_sparse), Pairs(log_sparse_edges), LogSparse()]
    for pattern in ways:
        check_pattern(pattern)  # the laws that the library's own patterns keep
        start = time.perf_counter()
        num_pairs = pattern.count(config.num_steps)
        took = time.perf_counter() - start
        print(f"{pattern!r:26} {num_pairs:8,} pairs of {config.num_steps:,} steps, made in {took:6.3f} s")

    # They compose like any other: asked only about the pairs that the other pattern leaves.
    recent = Causal() & Where(look_back)
    print(f"{recent | LogSparse()!r}: {(recent | LogSparse()).count(config.num_steps):,} pairs")
    batch = [40, 7, 25]
    print(f"three ways, one graph: {ways[0].on(batch) == ways[1].on(batch) == ways[2].on(batch)}")


if __name__ == "__main__":
    main()
