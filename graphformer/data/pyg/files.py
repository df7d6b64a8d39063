"""Files of data sets: looked for first, fetched only on request, read with one kind of error, made graphs kept."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.data.separate import separate

from graphformer._errors import DataError, GraphformerError

Parts = dict[str, list[Data]]
PARTS = ("train", "valid", "test")

_CACHE_VERSION = 1
_DOWNLOAD_TIMEOUT_S = 60.0


def folder_of(root: Path, name: str) -> Path:
    """The folder of that name below `root`, in whatever case it is written there; `root / name` if there is none."""
    if root.is_dir():
        for path in sorted(root.iterdir()):
            if path.is_dir() and path.name.lower() == name.lower():
                return path
    return root / name


def require_files(
    name: str, folder: Path, files: Iterable[str], download: bool, fetch: Callable[[Path], None] | None
) -> None:
    """See that ``folder/raw`` holds the files, and fetch them if the caller said so.

    Args:
        name: Of the data set, for the errors.
        folder: Of the data set.
        files: Needed in ``folder/raw``.
        download: Fetch them if they are not there.
        fetch: Puts them into the folder that it is given. None: nobody offers them.

    Raises:
        DataError: They are not there and not to be fetched, or cannot be fetched.
    """
    raw = folder / "raw"
    missing = [file for file in files if not (raw / file).exists()]
    if not missing:
        return
    found = f"a folder without {', '.join(missing)}" if raw.is_dir() else "no such folder"
    if not download or fetch is None:
        offer = ", or --download (download=True) to fetch it" if fetch else ""
        raise DataError(
            f"load: {name} must lie in {raw.absolute()}; got {found}. "
            f"Pass --root (root=) with the folder that holds {folder.name}{offer}."
        )
    if raw.exists() and (not raw.is_dir() or any(raw.iterdir())):
        raise DataError(
            f"load: {raw.absolute()} must be whole or absent to download {name}; got {found}. "
            "Remove the folder and try again."
        )
    _fetch_whole(name, raw, fetch)


def _fetch_whole(name: str, raw: Path, fetch: Callable[[Path], None]) -> None:
    """Fetch into a folder beside `raw`, and move it there when it is whole."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)
    made = [parent for parent in raw.parents if not parent.exists()]
    try:
        raw.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=raw.parent, prefix=".raw-") as passing:
            whole = Path(passing) / "raw"
            whole.mkdir()
            fetch(whole)
            if raw.exists():
                raw.rmdir()
            whole.rename(raw)
    except BaseException as error:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        if not isinstance(error, (OSError, EOFError, BadZipFile, RuntimeError)):
            raise
        raise DataError(
            f"load: {name} must be downloadable; got {type(error).__name__}: {error}. "
            f"Check the network, or place the files in {raw.absolute()} by hand."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def fetch_file(url: str, path: Path) -> None:
    """Fetch one file; a bar on stderr shows how far it is. Certificates are checked, as PyG's own fetching does not."""
    torch.hub.download_url_to_file(url, str(path))


def fetch_zip(url: str, folder: Path) -> None:
    """Fetch an archive and put its files into `folder`, whatever folders they lie in inside."""
    archive = folder / "archive.zip"
    fetch_file(url, archive)
    with ZipFile(archive) as members:
        for member in members.infolist():
            if not member.is_dir():
                with members.open(member) as source, (folder / Path(member.filename).name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    archive.unlink()


@contextmanager
def reading(name: str, where: Path, remedy: str = "Fetch the file anew.") -> Iterator[None]:
    """Whatever a damaged file makes its reader raise becomes one DataError that names the file."""
    try:
        yield
    except (GraphformerError, MemoryError):
        raise
    except Exception as error:
        raise DataError(
            f"load: {name}'s files must be readable; got {type(error).__name__}: {' '.join(str(error).split())[:200]} "
            f"while reading {where}. {remedy}"
        ) from error


def cached(name: str, folder: Path, sources: Iterable[Path], make: Callable[[], Parts], made_by: str = "") -> Parts:
    """The graphs that `make` gives, kept in ``folder/processed/graphformer.pt`` for the next time.

    The file holds tensors and plain numbers only, integers in the narrowest type that holds them. It is made anew when
    a source changes its size or time, and is left out where the folder cannot be written.

    Args:
        name: Of the data set, for the errors.
        folder: Of the data set.
        sources: Files that the graphs follow from.
        make: Makes the graphs.
        made_by: What else they follow from, such as the version of a library.

    Raises:
        DataError: The file is there and cannot be read.
    """
    path = folder / "processed" / "graphformer.pt"
    facts = [(source.name, source.stat().st_size, source.stat().st_mtime_ns) for source in sources]
    stamp = [_CACHE_VERSION, made_by, *(list(fact) for fact in facts)]
    if path.exists():
        with reading(name, path, "Remove this file and try again."):
            kept = torch.load(path, weights_only=True)
            if kept["stamp"] == stamp:
                return {part: _unpack(kept[part]) for part in PARTS}
    parts = make()
    _write(path, {"stamp": stamp, **{part: _pack(parts[part]) for part in PARTS}})
    return parts


def _write(path: Path, content: dict[str, Any]) -> None:
    """All of the file or nothing of it, also where several processes write it."""
    try:
        path.parent.mkdir(exist_ok=True)
        passing = tempfile.TemporaryDirectory(dir=path.parent, prefix=".graphformer-")
    except OSError:  # a folder for reading only
        return
    with passing as folder:
        torch.save(content, Path(folder) / path.name)
        os.replace(Path(folder) / path.name, path)


def _pack(graphs: list[Data]) -> dict[str, Any]:
    data, slices = InMemoryDataset.collate(graphs)
    narrow = {key: _narrow(value) for key, value in data.to_dict().items()}
    return {"count": len(graphs), "slices": slices, "data": narrow}


def _unpack(packed: dict[str, Any]) -> list[Data]:
    data = Data.from_dict({key: _wide(value) for key, value in packed["data"].items()})
    slices = packed["slices"]
    return [separate(Data, data, i, slices, decrement=False) for i in range(packed["count"])]


def _narrow(values: Tensor) -> Tensor:
    if values.is_floating_point() or values.numel() == 0:
        return values
    low, high = int(values.min()), int(values.max())
    for kind in (torch.uint8, torch.int16, torch.int32):
        if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max:
            return values.to(kind)
    return values


def _wide(values: Tensor) -> Tensor:
    return values if values.is_floating_point() else values.long()
