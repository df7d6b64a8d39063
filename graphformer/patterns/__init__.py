"""Patterns: symbolic rules for which queries attend to which keys, their algebra, and their lowering to graphs.

A pattern lowers to terms, :class:`RunTerm` (for each query, runs of keys) and :class:`PairTerm` (explicit pairs), and
:meth:`Pattern.on` enumerates them into an attention graph. The terms are the seam for large node sets: a million rows
of a window are a million runs, made in well under a second, so that a kernel that takes runs as they are can be fed
from :meth:`Pattern.lower` and never needs the edges.
"""

from graphformer.patterns.axial import Axial, Strided
from graphformer.patterns.between import Between
from graphformer.patterns.blocks import Blocks, ShiftedWindows
from graphformer.patterns.content import Clusters, Content, Hash, TopK, fold_heads, unfold_heads
from graphformer.patterns.definitions import BigBird, Longformer
from graphformer.patterns.dense import Bipartite, Causal, Full
from graphformer.patterns.edges import Edges
from graphformer.patterns.expander import Expander
from graphformer.patterns.given import NetworkX, Pairs
from graphformer.patterns.grid import Grid
from graphformer.patterns.hops import Hops
from graphformer.patterns.hub import Global, VirtualNode
from graphformer.patterns.joint import join_parts, split_parts
from graphformer.patterns.parse import parse
from graphformer.patterns.pattern import Pattern
from graphformer.patterns.relations import Distance, EdgeType, Offset2d, ShortestPath
from graphformer.patterns.sampled import Random
from graphformer.patterns.space import Nearest, Within
from graphformer.patterns.terms import PairTerm, Relation, RunTerm
from graphformer.patterns.tree import Tree
from graphformer.patterns.where import Where
from graphformer.patterns.window import Window

__all__ = [
    "Axial",
    "Between",
    "BigBird",
    "Bipartite",
    "Blocks",
    "Causal",
    "Clusters",
    "Content",
    "Distance",
    "EdgeType",
    "Edges",
    "Expander",
    "Full",
    "Global",
    "Grid",
    "Hash",
    "Hops",
    "Longformer",
    "Nearest",
    "NetworkX",
    "Offset2d",
    "PairTerm",
    "Pairs",
    "Pattern",
    "Random",
    "Relation",
    "RunTerm",
    "ShiftedWindows",
    "ShortestPath",
    "Strided",
    "TopK",
    "Tree",
    "VirtualNode",
    "Where",
    "Window",
    "Within",
    "fold_heads",
    "join_parts",
    "parse",
    "split_parts",
    "unfold_heads",
]
