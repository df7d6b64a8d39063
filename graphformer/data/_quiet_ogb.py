"""Import ogb without its look at the package index.

`ogb.version` starts a thread that asks the network for a newer ogb whenever the package `outdated` can be imported.
While ogb is imported here, `outdated` cannot.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from graphformer._errors import MissingPackageError


def ogb_module(name: str) -> ModuleType:
    """The module `name` of ogb, imported without any outbound attempt.

    Raises:
        MissingPackageError: ogb (or something that it needs) is not installed.
    """
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded
    absent = object()
    outdated = sys.modules.get("outdated", absent)
    sys.modules["outdated"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(f"data: ogb must be installed; got {error}. pip install ogb rdkit") from error
    finally:
        if outdated is absent:
            del sys.modules["outdated"]
        else:
            sys.modules["outdated"] = outdated  # type: ignore[assignment]
