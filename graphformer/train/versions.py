"""Which versions a run was made with."""

from __future__ import annotations

import platform
from importlib import metadata

import graphformer

PACKAGES = (
    "torch",
    "torch-geometric",
    "lightning",
    "numpy",
    "ogb",
    "rdkit",
    "scikit-learn",
    "torch-scatter",
    "triton",
    "timm",
)


def versions() -> dict[str, str]:
    """Versions of graphformer, Python and the packages that matter to a result; "absent" for those not installed.

    Example:
        >>> versions()["graphformer"] == graphformer.__version__
        True
    """
    found = {"graphformer": graphformer.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found
