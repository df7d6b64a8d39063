"""What attention will cost, told before a run."""

from graphformer.cost.estimate import Estimate, estimate

__all__ = ["Estimate", "estimate"]
