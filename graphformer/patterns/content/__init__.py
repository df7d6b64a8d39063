"""Content-based attention: patterns made anew in every layer and head, from the queries and keys themselves.

A content pattern needs vectors, so that it is no term of the algebra: `select(query, key, nodes)` gives one graph in
which every head is a copy of the nodes (:func:`fold_heads`), and `select(..., pattern=Causal())` keeps what a
structured pattern allows. The choice itself has no gradient; queries, keys and values are trained through the pairs
that were chosen.
"""

from graphformer.patterns.content.clusters import Clusters
from graphformer.patterns.content.content import Content
from graphformer.patterns.content.hash import Hash
from graphformer.patterns.content.heads import fold_heads, unfold_heads
from graphformer.patterns.content.top_k import TopK

__all__ = ["Clusters", "Content", "Hash", "TopK", "fold_heads", "unfold_heads"]
