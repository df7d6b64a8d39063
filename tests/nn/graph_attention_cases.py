"""What the tests of GraphAttention share: sizes and edges."""

import torch

N, M, C, C_OUT, H, F = 7, 5, 6, 12, 3, 4


def some_edges(num_sources=N, num_targets=N, num_edges=17, seed=0):
    """Random pairs, duplicates possible, that leave the last target without a key."""
    draw = torch.Generator().manual_seed(seed)
    source = torch.randint(0, num_sources, (num_edges,), generator=draw)
    target = torch.randint(0, num_targets - 1, (num_edges,), generator=draw)
    return torch.stack((source, target))


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
