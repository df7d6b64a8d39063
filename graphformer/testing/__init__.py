"""Random graphs, a row-by-row oracle, laws and tolerances: for our tests, and for yours.

Needs torch only, so that a pattern, a layer or a backend of your own can be checked by the same means as ours.
"""

from graphformer.testing.content import check_content
from graphformer.testing.graphs import DEGENERATE_GRAPHS, random_graph
from graphformer.testing.laws import assert_matches_oracle, assert_permutation_equivariant
from graphformer.testing.oracle import attend_row_by_row
from graphformer.testing.patterns import check_pattern
from graphformer.testing.tolerance import assert_close

__all__ = [
    "DEGENERATE_GRAPHS",
    "assert_close",
    "assert_matches_oracle",
    "assert_permutation_equivariant",
    "attend_row_by_row",
    "check_content",
    "check_pattern",
    "random_graph",
]
