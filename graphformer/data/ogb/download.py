"""Fetching a data set through ogb: only where the caller said so, asking nothing, and whole or not at all."""

from __future__ import annotations

import io
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

from graphformer._checks import require
from graphformer._errors import DataError
from graphformer.data.ogb.layout import Layout

_TIMEOUT_S = 60.0


def what_is_there(folder: Path, missing: list[str]) -> str:
    """What is found in place of the whole data set, in words."""
    return f"a folder without {', '.join(missing)}" if folder.is_dir() else "no such folder"


def fetch(layout: Layout, folder: Path, load: Callable[[Path], object]) -> None:
    """Let ogb fetch the data set into a folder beside `folder`, and move it there when it is whole.

    Args:
        layout: The files of the data set.
        folder: Where it shall lie.
        load: Makes ogb's object for a data set below the root it is given, and so downloads it.

    Raises:
        DataError: Something lies in `folder`, or the download failed; then nothing is left behind.
    """
    require(
        not folder.exists() or (folder.is_dir() and not any(folder.iterdir())),
        "load",
        str(folder.absolute()),
        f"be whole or absent to download {layout.name}",
        what_is_there(folder, layout.missing(folder)),
        "Remove the folder and try again.",
        DataError,
    )
    made = [parent for parent in (folder.parent, *folder.parent.parents) if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as passing:
            with _consent(), redirect_stdout(io.StringIO()):  # the bar of the download is on stderr
                load(Path(passing))
            if folder.exists():
                folder.rmdir()
            shutil.move(Path(passing) / folder.name, folder)
    except BaseException as error:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        if not isinstance(error, Exception):
            raise
        raise DataError(
            f"load: {layout.name} must be downloadable; got {type(error).__name__}: {error}. "
            f"Check the network, or place the data set in {folder.absolute()} by hand."
        ) from error


@contextmanager
def _consent() -> Iterator[None]:
    """Ogb asks about downloads over 1 GB, and the caller has said yes; a silent server is not waited for long."""
    stdin, timeout = sys.stdin, socket.getdefaulttimeout()
    sys.stdin = io.StringIO("y\n")
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        yield
    finally:
        sys.stdin = stdin
        socket.setdefaulttimeout(timeout)
