"""Node vectors in which the features' embedding and structural encodings stand side by side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphformer.graphs import Features
from graphformer.models.heads import members, stored
from graphformer.nn.encodings import LaplacianSetEncoding, RandomWalkEncoding
from graphformer.nn.features import NodeEncoder
from graphformer.nn.structure import AddLaplacianEigenvectors, AddRandomWalk


def encodings_of(config: Any) -> list[Any]:
    """The transforms that store what :class:`JoinedEmbedding` reads beside the features.

    Example:
        >>> from graphformer.models.config import GPSConfig
        >>> encodings_of(GPSConfig(walk_steps=4, laplacian=2))
        [AddRandomWalk(steps=4), AddLaplacianEigenvectors(k=2, eigenvalues=True)]
    """
    walk = [AddRandomWalk(config.walk_steps)] if config.walk_steps else []
    laplacian = [AddLaplacianEigenvectors(config.laplacian, eigenvalues=True)] if config.laplacian else []
    return [*walk, *laplacian]


class JoinedEmbedding(torch.nn.Module):
    """The features' embedding, the random-walk encoding and the Laplacian encoding, side by side.

    Args:
        config: Settings with `channels`, `walk_steps`, `walk_channels`, `laplacian` and `laplacian_channels`.
        features: What the nodes carry.
        where: Who is named in errors.

    Example:
        >>> from torch_geometric.data import Data
        >>> from graphformer.models.config import GPSConfig
        >>> embedding = JoinedEmbedding(GPSConfig(channels=8, walk_steps=2, walk_channels=3), Features((5,)), "GPS")
        >>> data = Data(x=torch.zeros(4, 1).long(), edge_index=torch.empty(2, 0).long(), random_walk=torch.zeros(4, 2))
        >>> embedding(data).shape
        torch.Size([4, 8])

    References:
        Rampasek et al., "Recipe for a general, powerful, scalable graph transformer", 2022.
    """

    def __init__(self, config: Any, features: Features, where: str) -> None:
        super().__init__()
        self.where = where
        walk = config.walk_channels if config.walk_steps else 0
        laplacian = config.laplacian_channels if config.laplacian else 0
        self.nodes = NodeEncoder(features, config.channels - walk - laplacian)
        self.walk = RandomWalkEncoding(config.walk_steps, walk) if walk else None
        self.laplacian = LaplacianSetEncoding(laplacian) if laplacian else None

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        part: Any
        for part in (self.nodes, self.walk, self.laplacian):
            if part is not None:
                part.reset_parameters()

    def forward(self, batch: Any) -> Tensor:
        """Node vectors `[N, channels]` of a batch.

        Raises:
            InputError: Something that the settings ask for is missing, or a feature does not fit.
        """
        parts = [self.nodes(batch)]
        if self.walk is not None:
            parts.append(self.walk(stored(batch, "random_walk", self.where)))
        if self.laplacian is not None:
            facts = (stored(batch, f"laplacian_{name}", self.where) for name in ("eigenvectors", "eigenvalues"))
            parts.append(self.laplacian(*facts, *members(batch)))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
