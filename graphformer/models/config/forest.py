"""The settings of a random forest on Morgan fingerprints, the baseline without a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphformer._checks import require, require_choice, require_count


@dataclass(frozen=True)
class ForestConfig:
    """The settings of :func:`graphformer.train.forest.fit_forest`.

    A Morgan fingerprint (Rogers and Hahn, "Extended-connectivity fingerprints", 2010) says which neighbourhoods of
    atoms a molecule has; a random forest (Breiman, "Random forests", 2001) predicts each label from it.

    Args:
        trees: Trees for each label.
        radius: Bonds from its central atom to which a neighbourhood reaches.
        bits: Length of the fingerprint, onto which neighbourhoods are hashed.
        counts: How often each neighbourhood occurs (default), not only whether it does.
        max_depth: Largest depth of a tree; 0 (default): grown until the leaves are pure.
        min_leaf: Fewest training molecules in a leaf.
        max_features: Share of the fingerprint that each split of a tree chooses from, in (0, 1]; 0 (default) takes the
            square root of its length for classification and a third for regression, as is usual.
        class_weight: "balanced" weighs each class by the inverse of its share of the training labels; "none" (default)
            counts every molecule once. Not used for regression.

    Raises:
        InputError: A value is of the wrong kind or out of range, or a name is unknown.

    Example:
        >>> ForestConfig(trees=100).bits
        2048
    """

    trees: int = 1000
    radius: int = 2
    bits: int = 2048
    counts: bool = True
    max_depth: int = 0
    min_leaf: int = 1
    max_features: float = 0.0
    class_weight: Literal["none", "balanced"] = "none"

    def __post_init__(self) -> None:
        where = "ForestConfig"
        for name in ("trees", "bits", "min_leaf"):
            require_count(getattr(self, name), where, name)
        for name in ("radius", "max_depth"):
            require_count(getattr(self, name), where, name, "Pass 0 or more.", minimum=0)
        share, remedy = self.max_features, "Pass a share, or 0 for the usual one."
        require(0 <= share <= 1, where, "max_features", "lie in [0, 1]", share, remedy)
        require(isinstance(self.counts, bool), where, "counts", "be a bool", repr(self.counts), "Pass True or False.")
        require_choice(self.class_weight, ("none", "balanced"), where, "class_weight")
