"""Checks that the settings of several models share."""

from __future__ import annotations

from typing import Any

from graphformer._checks import require, require_count, require_probability


def require_hybrid(config: Any, where: str, divides: bool = True) -> None:
    """Check what GraphGPS and Exphormer both have: widths, counts, the convolution's name, encodings and head.

    Args:
        config: The settings; `head_hidden` becomes a tuple.
        where: Who is named in errors.
        divides: Whether `heads` must divide `channels`.

    Raises:
        InputError: A value is of the wrong kind or out of range.

    Example:
        >>> from graphformer.models.config import GPSConfig
        >>> require_hybrid(GPSConfig(channels=32), "GPSConfig")
    """
    for name in ("channels", "layers", "heads", "walk_channels", "laplacian_channels"):
        require_count(getattr(config, name), where, name)
    for name in ("walk_steps", "laplacian"):
        require_count(getattr(config, name), where, name, "Pass 0 to do without.", minimum=0)
    require_probability(config.dropout, where, "dropout")
    fits = config.channels % config.heads == 0 or not divides
    rule = f"be a multiple of heads = {config.heads}"
    require(fits, where, "channels", rule, config.channels, "It is the width of all heads together.")
    walk = config.walk_channels if config.walk_steps else 0
    laplacian = config.laplacian_channels if config.laplacian else 0
    rule = f"exceed the encodings' {walk + laplacian}"
    remedy = "Lower walk_channels or laplacian_channels: features and encodings share the channels."
    require(config.channels > walk + laplacian, where, "channels", rule, config.channels, remedy)
    require(isinstance(config.conv, str), where, "conv", "be a str", repr(config.conv), "Name a convolution.")
    if config.head_hidden is not None:
        remedy = "Pass a list of widths, [] for a linear head."
        listed = isinstance(config.head_hidden, (tuple, list))
        require(listed, where, "head_hidden", "be a list of widths", repr(config.head_hidden), remedy)
        object.__setattr__(config, "head_hidden", tuple(config.head_hidden))  # lists come in from files
        for width in config.head_hidden:
            require_count(width, where, "head_hidden", remedy)


def head_widths(config: Any) -> tuple[int, ...]:
    """The hidden layers of a head: those that were given, or a half and a quarter of the channels.

    Example:
        >>> from graphformer.models.config import GPSConfig
        >>> head_widths(GPSConfig(channels=64)), head_widths(GPSConfig(head_hidden=()))
        ((32, 16), ())
    """
    if config.head_hidden is not None:
        return config.head_hidden
    return max(config.channels // 2, 1), max(config.channels // 4, 1)
