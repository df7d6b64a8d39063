"""Well-known attentions that are nothing new: definitions in the algebra."""

from __future__ import annotations

from graphformer.patterns.hub import Global
from graphformer.patterns.pattern import Pattern
from graphformer.patterns.sampled import Random
from graphformer.patterns.window import Window


def Longformer(radius: int, num_global: int) -> Pattern:
    """A window around each query, and a few nodes that see all and are seen by all.

    `Window(radius) | Global(num_global)` (Beltagy et al., "Longformer: the long-document transformer", 2020).

    Args:
        radius: Keys seen on each side, half of the paper's window.
        num_global: Global nodes at the front of each set; the paper's are task tokens, such as the one for the class.

    Example:
        >>> Longformer(2, num_global=1)
        Window(radius=2) | Global(num_nodes=1)
    """
    return Window(radius) | Global(num_global)


def BigBird(radius: int, num_global: int, num_random: int, seed: int = 0) -> Pattern:
    """A window, a few global nodes, and a few random keys for each query.

    `Window(radius) | Global(num_global) | Random(num_random, seed)` (Zaheer et al., "Big Bird: transformers for longer
    sequences", 2020), for single nodes; the paper's code takes blocks of 64 in their place.

    Args:
        radius: Keys seen on each side.
        num_global: Global nodes at the front of each set.
        num_random: Random keys a query.
        seed: Of the random keys, any 64-bit integer.

    Example:
        >>> BigBird(2, num_global=1, num_random=3, seed=7)
        Window(radius=2) | Global(num_nodes=1) | Random(num_keys=3, seed=7)
    """
    return Window(radius) | Global(num_global) | Random(num_random, seed)
