"""Distances as features that fade out at a cutoff, with as many derivatives as forces and their training need."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphformer._checks import refuse, require, require_count

_LEAST = 1e-4  # in cutoffs; nearer nodes look as if they were this far apart, so that nothing is divided by zero


class RadialBasis(torch.nn.Module):
    r"""Sine waves of a distance that end at a cutoff, under an envelope that takes them there smoothly; no weights.

    With x = distance / cutoff and n = 1 .. `num`,

        out[e,n] = sqrt(2 / cutoff) u(x) sin(n pi x) / distance,    u(x) = 1 - 28 x^6 + 48 x^7 - 21 x^8

    and zero from the cutoff on, where u and its first two derivatives vanish. As `edge_attr` of an attention layer,
    with :meth:`log_envelope` as its `edge_bias` and :class:`~graphformer.patterns.Within` as its pattern, these make
    energies that change smoothly where a neighbour comes or goes, as long as each node also attends to itself. Waves
    stay clear of numbers so small that processors are slow with them, which Gaussians far from their centres do not.

    Args:
        num: Number of waves; the shortest is 2 cutoff / num long.
        cutoff: In the units of the distances; positive.

    Raises:
        InputError: num is no positive integer, or cutoff no positive number.

    Example:
        >>> basis = RadialBasis(8, cutoff=5.0)
        >>> basis(torch.tensor([1.0, 2.5, 5.0])).shape
        torch.Size([3, 8])
        >>> basis.log_envelope(torch.tensor([0.0, 2.5, 5.0])).exp()
        tensor([1.0000, 0.8555, 0.0000])

    References:
        Gasteiger et al., "Directional message passing for molecular graphs", 2020.
    """

    def __init__(self, num: int, cutoff: float) -> None:
        super().__init__()
        require_count(num, "RadialBasis", "num")
        real = isinstance(cutoff, (int, float)) and not isinstance(cutoff, bool)
        fits = real and math.isfinite(cutoff) and cutoff > 0
        require(fits, "RadialBasis", "cutoff", "be a positive number", repr(cutoff), "Pass that of Within.")
        self.num = num
        self.cutoff = cutoff

    def forward(self, distance: Tensor) -> Tensor:
        """Encode distances `[E]`, floating, 0 or more, as `[E, num]` of their dtype.

        Raises:
            InputError: Distances are not floating, or have more than one dimension.
        """
        near = self._near(distance).clamp(_LEAST, 1).unsqueeze(1)
        order = torch.arange(1, self.num + 1, device=near.device, dtype=near.dtype)
        scale = math.sqrt(2 / self.cutoff) / self.cutoff
        return scale * (1 - near) ** 3 * _cofactor(near) * (near * order * math.pi).sin() / near

    def log_envelope(self, distance: Tensor) -> Tensor:
        """log u of distances `[E]`; -inf, which removes a pair, from the cutoff on. Shape `[E]`.

        Raises:
            InputError: Distances are not floating, or have more than one dimension.
        """
        near = self._near(distance)
        beyond = near >= 1
        near = near.masked_fill(beyond, 0)  # whose logarithm has a derivative
        return (3 * torch.log1p(-near) + _cofactor(near).log()).masked_fill(beyond, -torch.inf)

    def _near(self, distance: Tensor) -> Tensor:
        fits = isinstance(distance, Tensor) and distance.dim() == 1 and distance.is_floating_point()
        if not fits:
            got = f"{list(distance.shape)}, {distance.dtype}" if isinstance(distance, Tensor) else repr(distance)
            refuse("RadialBasis", "distance", "be floating, of shape [E]", got, "One distance for each pair.")
        return distance / self.cutoff

    def extra_repr(self) -> str:
        """What the module's repr tells."""
        return f"{self.num}, cutoff={self.cutoff}"


def _cofactor(near: Tensor) -> Tensor:
    """u / (1 - x)^3, which is never negative, where the written-out u is lost in rounding near 1."""
    total = torch.zeros_like(near)
    for power in (5, 4, 3, 2, 1, 0):
        total = total * near + math.comb(power + 2, 2)
    return total
