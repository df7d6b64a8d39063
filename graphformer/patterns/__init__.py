"""Patterns: symbolic rules for which queries attend to which keys, their algebra, and their lowering to graphs.

A pattern lowers to terms, :class:`RunTerm` (for each query, runs of keys) and :class:`PairTerm` (explicit pairs), and
:meth:`Pattern.on` enumerates them into an attention graph. The terms are the seam for large node sets: a million rows
of a window are a million runs, made in well under a second, so that a kernel that takes runs as they are can be fed
from :meth:`Pattern.lower` and never needs the edges.
"""

from graphformer.patterns.blocks import Blocks
from graphformer.patterns.content import Clusters, Content, Hash, TopK, fold_heads, unfold_heads
from graphformer.patterns.dense import Bipartite, Causal, Full
from graphformer.patterns.edges import Edges
from graphformer.patterns.hops import Hops
from graphformer.patterns.hub import Global
from graphformer.patterns.parse import parse
from graphformer.patterns.pattern import Pattern
from graphformer.patterns.sampled import Random
from graphformer.patterns.terms import PairTerm, RunTerm
from graphformer.patterns.window import Window

__all__ = [
    "Bipartite",
    "Blocks",
    "Causal",
    "Clusters",
    "Content",
    "Edges",
    "Full",
    "Global",
    "Hash",
    "Hops",
    "PairTerm",
    "Pattern",
    "Random",
    "RunTerm",
    "TopK",
    "Window",
    "fold_heads",
    "parse",
    "unfold_heads",
]
