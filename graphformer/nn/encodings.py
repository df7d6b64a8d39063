"""Encodings: what tells a node where it is, as vectors to add to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.norm import BatchNorm

from graphformer._checks import refuse, require, require_count
from graphformer._errors import InputError


def positions(*, lengths: Sequence[int] | Tensor | None = None, batch: Tensor | None = None) -> Tensor:
    """The position of each node in its own set: 0, 1, 2, ... and again from 0 in the next.

    Args:
        lengths: Number of nodes of each set, 0 or more. Shape `[B]`, integer, or a list.
        batch: The set of each node, as in a PyG batch: never falling. Shape `[N]`, integer. Give one of the two.

    Returns:
        Shape `[N]`, int64.

    Raises:
        InputError: Both or none are given, they hold other than integers from 0, or `batch` falls.

    Example:
        >>> positions(lengths=[2, 3])
        tensor([0, 1, 0, 1, 2])
        >>> positions(batch=torch.tensor([0, 0, 2]))
        tensor([0, 1, 0])
    """
    where = "positions"
    require(
        (lengths is None) != (batch is None),
        where,
        "lengths or batch",
        "be given, one of the two",
        "both" if lengths is not None else "none",
        "Pass lengths=[2, 3] or batch=data.batch.",
    )
    if batch is not None:
        batch = _as_counts(batch, "batch")
        rises = batch.numel() == 0 or bool((batch.diff() >= 0).all())
        require(rises, where, "batch", "not fall", "a falling id", "Sort the nodes by their set, as PyG's batches are.")
        lengths = torch.bincount(batch)
    lengths = _as_counts(lengths, "lengths")
    start = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum()), device=lengths.device) - torch.repeat_interleave(start, lengths)


def _as_counts(values: Any, name: str) -> Tensor:
    """Integers from 0 in one dimension, as int64."""
    where, remedy = "positions", "Pass one integer for each set in lengths, or for each node in batch."
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        refuse(where, name, "hold integers", repr(values), remedy)
    require(tensor.dim() == 1, where, name, "have one dimension", list(tensor.shape), remedy)
    # An empty list is float by torch's default; it holds no number that could be wrong.
    whole = tensor.numel() == 0 or not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    require(whole, where, name, "hold integers", tensor.dtype, remedy)
    low = int(tensor.min()) if tensor.numel() else 0
    require(low >= 0, where, name, "not be negative", low, remedy)
    return tensor.long()


class SinusoidalEncoding(torch.nn.Module):
    """Sines and cosines of the position at wavelengths from 2 pi to `base` 2 pi; no weights.

    out[n, 2c] = sin(p[n] / base^(2c / C)), out[n, 2c + 1] = cos(p[n] / base^(2c / C)).

    Args:
        channels: Width C, even.
        base: Ratio of the longest wavelength to the shortest. Default 10000, as in the paper.

    Raises:
        InputError: channels is odd or not positive.

    Example:
        >>> SinusoidalEncoding(4)(torch.tensor([0, 1])).shape
        torch.Size([2, 4])

    References:
        Vaswani et al., "Attention is all you need", 2017.
    """

    def __init__(self, channels: int, base: float = 10000.0) -> None:
        super().__init__()
        require_count(channels, "SinusoidalEncoding", "channels", "Pass an even count.")
        even = channels % 2 == 0
        require(even, "SinusoidalEncoding", "channels", "be even", channels, "Each wavelength has a sine and a cosine.")
        self.channels = channels
        self.base = base

    def forward(self, position: Tensor) -> Tensor:
        """Encode positions `[N]`, integer or floating, as `[N, channels]`, float32 (or the positions' own dtype)."""
        if not position.is_floating_point():
            position = position.to(torch.get_default_dtype())
        exponent = torch.arange(0, self.channels, 2, device=position.device, dtype=position.dtype) / self.channels
        angle = position.unsqueeze(-1) * self.base**-exponent
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)


class LearnedEncoding(torch.nn.Module):
    """A vector for each position.

    Args:
        num_positions: Number of positions.
        channels: Width C.

    Raises:
        InputError: A count is not positive.

    Example:
        >>> LearnedEncoding(10, 4)(torch.tensor([0, 9])).shape
        torch.Size([2, 4])

    References:
        Gehring et al., "Convolutional sequence to sequence learning", 2017.
    """

    def __init__(self, num_positions: int, channels: int) -> None:
        super().__init__()
        require_count(num_positions, "LearnedEncoding", "num_positions")
        require_count(channels, "LearnedEncoding", "channels")
        self.table = torch.nn.Embedding(num_positions, channels)

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        self.table.reset_parameters()

    def forward(self, position: Tensor) -> Tensor:
        """Look up positions `[N]`, int32 or int64, as `[N, channels]`.

        Raises:
            InputError: Positions are no integers, or one is out of range (on the CPU; a GPU reports it by its own
                assertion).
        """
        if position.dtype not in (torch.int32, torch.int64):
            remedy = "Convert them with .long(); SinusoidalEncoding takes real positions."
            refuse("LearnedEncoding", "position", "hold integers", position.dtype, remedy)
        try:
            return self.table(position)
        except IndexError as error:
            low, high = (int(value) for value in torch.aminmax(position))
            raise InputError(
                f"LearnedEncoding: position must lie in [0, {self.table.num_embeddings}); got {low} to {high}. "
                "Construct it with more num_positions, or cut the sets."
            ) from error


class LaplacianEncoding(torch.nn.Module):
    """A linear map of Laplacian eigenvectors, which have no sign of their own.

    In training each eigenvector of each set is flipped with probability 1/2 at every call, so that the model learns
    not to read the sign; in evaluation they are taken as they are.

    Args:
        k: Number of eigenvectors.
        channels: Width C.

    Raises:
        InputError: A count is not positive.

    Example:
        >>> from graphformer.nn.structure import laplacian_eigenvectors
        >>> eigenvectors = laplacian_eigenvectors(torch.tensor([[0, 1], [1, 2]]), num_nodes=3, k=2)
        >>> LaplacianEncoding(2, 8)(eigenvectors).shape
        torch.Size([3, 8])

    References:
        Dwivedi and Bresson, "A generalization of transformer networks to graphs", 2021.
    """

    def __init__(self, k: int, channels: int) -> None:
        super().__init__()
        require_count(k, "LaplacianEncoding", "k")
        require_count(channels, "LaplacianEncoding", "channels")
        self.lin = torch.nn.Linear(k, channels, bias=False)  # zeros, the padding of small sets, stay zeros

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        self.lin.reset_parameters()

    def forward(self, eigenvectors: Tensor, batch: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        """Encode `[N, k]` as `[N, channels]`.

        Args:
            eigenvectors: What :func:`~graphformer.nn.structure.laplacian_eigenvectors` gives; cast to the weights'
                dtype. Shape `[N, k]`.
            batch: The set of each node; None: all are one set. Shape `[N]`, int64.
            batch_size: Number of sets B; saves a look at `batch` where it is known.

        Raises:
            InputError: There are not k eigenvectors.
        """
        eigenvectors = _fit(eigenvectors, self.lin, "LaplacianEncoding", "eigenvectors")
        return self.lin(_flip_signs(eigenvectors, batch, batch_size) if self.training else eigenvectors)


class LaplacianSetEncoding(torch.nn.Module):
    """A sum over a node's Laplacian eigenvectors of a perceptron of (the node's entry, the eigenvalue).

    Eigenvectors that a small set does not have are left out of the sum. Signs are flipped in training as in
    :class:`LaplacianEncoding`.

    Args:
        channels: Width C; the hidden layer has twice as many.

    Raises:
        InputError: The width is not positive.

    Example:
        >>> from graphformer.nn.structure import laplacian_spectrum
        >>> eigenvalues, eigenvectors = laplacian_spectrum(torch.tensor([[0, 1], [1, 2]]), num_nodes=3, k=2)
        >>> LaplacianSetEncoding(8)(eigenvectors, eigenvalues.expand(3, -1)).shape
        torch.Size([3, 8])

    References:
        Rampasek et al., "Recipe for a general, powerful, scalable graph transformer", 2022 (LapPE with a DeepSet);
        Kreuzer et al., "Rethinking graph transformers with spectral attention", 2021.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        require_count(channels, "LaplacianSetEncoding", "channels")
        self.lin_in = torch.nn.Linear(2, 2 * channels)
        self.lin_out = torch.nn.Linear(2 * channels, channels)

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        self.lin_in.reset_parameters()
        self.lin_out.reset_parameters()

    def forward(
        self, eigenvectors: Tensor, eigenvalues: Tensor, batch: Tensor | None = None, batch_size: int | None = None
    ) -> Tensor:
        """Encode `[N, k]` as `[N, channels]`.

        Args:
            eigenvectors: As in :meth:`LaplacianEncoding.forward`.
            eigenvalues: Of each node's set, NaN where it has fewer than k. Shape `[N, k]`.
            batch: As in :meth:`LaplacianEncoding.forward`.
            batch_size: As in :meth:`LaplacianEncoding.forward`.

        Raises:
            InputError: The two are not of one shape `[N, k]`.
        """
        if not (eigenvectors.dim() == 2 and eigenvectors.shape == eigenvalues.shape):
            found = f"{list(eigenvectors.shape)} and {list(eigenvalues.shape)}"
            remedy = "Make them with AddLaplacianEigenvectors(k, eigenvalues=True)."
            refuse("LaplacianSetEncoding", "eigenvectors and eigenvalues", "have shape [N, k]", found, remedy)
        if self.training:
            eigenvectors = _flip_signs(eigenvectors, batch, batch_size)
        missing = eigenvalues.isnan()
        pairs = torch.stack((eigenvectors, eigenvalues.nan_to_num()), dim=-1).to(self.lin_in.weight.dtype)
        hidden = self.lin_out(self.lin_in(pairs).relu()).relu()
        return hidden.masked_fill(missing.unsqueeze(-1), 0.0).sum(1)


class RandomWalkEncoding(torch.nn.Module):
    """A normalised linear map of random-walk return probabilities.

    The later steps differ little from node to node, so a batch norm first brings the probabilities to one scale.

    Args:
        steps: Number of steps.
        channels: Width C.

    Raises:
        InputError: A count is not positive.

    Example:
        >>> from graphformer.nn.structure import random_walk_probabilities
        >>> walk = random_walk_probabilities(torch.tensor([[0, 1], [1, 0]]), num_nodes=2, steps=4)
        >>> RandomWalkEncoding(4, 8)(walk).shape
        torch.Size([2, 8])

    References:
        Dwivedi et al., "Graph neural networks with learnable structural and positional representations", 2022.
    """

    def __init__(self, steps: int, channels: int) -> None:
        super().__init__()
        require_count(steps, "RandomWalkEncoding", "steps")
        require_count(channels, "RandomWalkEncoding", "channels")
        self.norm = BatchNorm(steps, allow_single_element=True)
        self.lin = torch.nn.Linear(steps, channels)

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        self.norm.reset_parameters()
        self.lin.reset_parameters()

    def forward(self, probabilities: Tensor) -> Tensor:
        """Encode `[N, steps]`, cast to the weights' dtype, as `[N, channels]`.

        Raises:
            InputError: There are not `steps` probabilities.
        """
        return self.lin(self.norm(_fit(probabilities, self.lin, "RandomWalkEncoding", "probabilities")))


def _fit(facts: Tensor, lin: torch.nn.Linear, where: str, name: str) -> Tensor:
    """The facts of each node in the dtype of the map that reads them."""
    if not (facts.dim() == 2 and facts.shape[1] == lin.in_features):
        remedy = f"Make them with {lin.in_features} columns, as the encoding was constructed."
        refuse(where, name, f"have shape [N, {lin.in_features}]", list(facts.shape), remedy)
    return facts.to(lin.weight.dtype)


def _flip_signs(eigenvectors: Tensor, batch: Tensor | None, batch_size: int | None) -> Tensor:
    """The eigenvectors of each set with random signs; `batch_size` spares a look at `batch`."""
    if batch is None:
        return eigenvectors * _random_signs(eigenvectors, 1)
    if batch_size is None:
        batch_size = int(batch.max()) + 1 if batch.numel() else 0
    return eigenvectors * _random_signs(eigenvectors, batch_size)[batch]


def _random_signs(like: Tensor, num_rows: int) -> Tensor:
    draws = torch.randint(0, 2, (num_rows, like.shape[1]), device=like.device)
    return (2 * draws - 1).to(like.dtype)
