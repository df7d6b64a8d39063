"""Full, truncated, local and graph attention are one call over different attention graphs.

You will see five patterns on the same nodes, with their number of pairs and the largest difference between `attend`
over the pattern and dense masked attention, which is the same thing with N^2 memory. Takes a few seconds.
Last line: "sparse and dense agree".
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch_geometric.data import Data

import graphformer as gf
from graphformer.patterns import Blocks, Causal, Edges, Full, Global, Pattern, Random, Window


@dataclass(frozen=True)
class Config:
    """Sizes of the demonstration."""

    num_nodes: int = 512
    heads: int = 4
    width: int = 16


def difference(pattern: Pattern, data: Data, config: Config) -> tuple[int, float]:
    """Number of pairs of the pattern, and how far sparse and dense attention over it are apart."""
    shape = (config.num_nodes, config.heads, config.width)
    query, key, value = (torch.randn(shape) for _ in range(3))

    # The three lines that matter: a pattern, the graph it gives, attention over it.
    graph = pattern.on(data)
    sparse = gf.attend(query, key, value, graph)
    weights = gf.attention_weights(query, key, graph)

    i = torch.arange(config.num_nodes)
    mask = pattern.allows(i[:, None], i, data)  # the predicate view of the same pattern
    dense = scaled_dot_product_attention(*(t.transpose(0, 1) for t in (query, key, value)), attn_mask=mask)
    assert weights.shape == (int(mask.sum()), config.heads)
    return graph.num_edges, float((sparse - dense.transpose(0, 1)).abs().max())


def main(argv: list[str] | None = None) -> None:
    """Compare every pattern with its dense mask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small sizes, for a quick check")
    config = Config(num_nodes=48) if parser.parse_args(argv).smoke else Config()

    torch.manual_seed(0)
    ring = torch.stack((torch.arange(config.num_nodes), torch.arange(config.num_nodes).roll(1)))
    data = Data(num_nodes=config.num_nodes, edge_index=ring)
    patterns = [
        Full(),
        Window(radius=8) & Causal(),
        Window(radius=3, dilation=4) | Global(2),
        Blocks(16) | Random(3, seed=0),
        Edges(self_loops=True),
    ]
    worst = 0.0
    for pattern in patterns:
        num_pairs, error = difference(pattern, data, config)
        worst = max(worst, error)
        print(f"{pattern!r:52} {num_pairs:8,} pairs   largest difference {error:.1e}")
    assert worst < 1e-5
    print("sparse and dense agree")


if __name__ == "__main__":
    main()
