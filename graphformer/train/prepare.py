"""What a sample passes before training: its encodings and its attention graph, made once, and kept if asked to."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

import graphformer
from graphformer._errors import DataError
from graphformer.data import AddDescriptors
from graphformer.data.molecule import rdkit_module
from graphformer.graphs import carrier_class
from graphformer.models import transform
from graphformer.models.config import name_of
from graphformer.train.config import TrainConfig
from graphformer.train.folder import rank
from graphformer.train.progress import progress_bar

ASKED = ("target_index", "pair_index", "y")  # what parts of a data set that share one graph differ in


class Transformed(Sequence[Data]):
    """Samples that pass a transform each time they are asked for, so that a loader's workers do the work.

    Args:
        graphs: The samples.
        step: The transform.
    """

    def __init__(self, graphs: Sequence[Data], step: Callable[[Data], Data]) -> None:
        self.graphs, self.step = graphs, step

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, index: Any) -> Any:
        return self.step(self.graphs[index])


def prepare(
    splits: dict[str, Sequence[Data]], config: TrainConfig, device: torch.device | None = None
) -> dict[str, Sequence[Data]]:
    """The samples with their encodings and attention graphs.

    A graph that several splits share is prepared once. Where the settings say so, samples are prepared in the loader's
    workers each time, or read from the cache.

    Args:
        splits: Samples of each split, by its name.
        config: The run.
        device: Where a graph that several splits share goes, which is then there once. Default: it stays where it is.

    Raises:
        DataError: The cache cannot be written.
    """
    step = transform(config.model)
    if config.descriptors:
        step = Compose([AddDescriptors(config.descriptors), step])
    if config.prepare_in_workers:
        return {split: Transformed(graphs, step) for split, graphs in splits.items()}
    if _is_one_graph(splits):
        first = next(iter(splits.values()))[0]
        prepared = _all(step, [_asking(first, Data())], "the graph", config)[0]  # cached alike, whichever part asks
        prepared = prepared if device is None else prepared.to(device)
        return {split: [_asking(prepared, graphs[0])] for split, graphs in splits.items()}
    return {split: _all(step, graphs, split, config) for split, graphs in splits.items()}


def _is_one_graph(splits: dict[str, Sequence[Data]]) -> bool:
    firsts = [graphs[0] for graphs in splits.values() if len(graphs) == 1]
    return len(firsts) == len(splits) and all(graph.edge_index is firsts[0].edge_index for graph in firsts)


def _asking(prepared: Data, asking: Data) -> Data:
    """The prepared graph with what another split asks of it."""
    out = copy.copy(prepared)
    for name in ASKED:
        if name in asking:
            out[name] = asking[name]
        elif name in out:
            del out[name]
    return out


def _all(step: Callable[[Data], Data], graphs: Sequence[Data], what: str, config: TrainConfig) -> list[Data]:
    path = _cached_path(graphs, config) if config.cache else None
    if path is not None and path.exists():
        return _read(path)
    silent = len(graphs) == 1 or rank() > 0  # a bar would only flicker, or double
    bar = progress_bar(graphs, desc=f"Preparing {what}", unit="graph", disable=silent)
    prepared = [step(graph) for graph in bar]
    if path is not None:
        _write(prepared, path)
    return prepared


def _cached_path(graphs: Sequence[Data], config: TrainConfig) -> Path:
    """A file named after all that its content depends on: the samples' tensors, the model's settings, the version."""
    about: list[Any] = [name_of(config.model), config.model, config.descriptors, graphformer.__version__]
    if config.descriptors:
        about.append(rdkit_module("rdBase").rdkitVersion)
    digest = hashlib.sha256(repr(about).encode())
    for graph in graphs:
        for key, value in sorted(graph.to_dict().items()):
            digest.update(key.encode())
            digest.update(_bytes(value))
    assert config.cache is not None
    return Path(config.cache).expanduser() / f"{config.dataset}-{digest.hexdigest()[:16]}.pt"


def _bytes(value: Any) -> bytes:
    if not isinstance(value, Tensor):
        return repr(value).encode()
    content = value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return repr((value.dtype, value.shape)).encode() + content


def _read(path: Path) -> list[Data]:
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    torch.serialization.add_safe_globals([Data, carrier_class(Data), DataEdgeAttr, DataTensorAttr, GlobalStorage])
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes the reader raise
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"train: {path} must be a whole file of prepared samples; got {reason}. Remove it.") from error


def _write(prepared: list[Data], path: Path) -> None:
    passing = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(prepared, passing)
        os.replace(passing, path)
    except (OSError, RuntimeError) as error:  # torch's own where the disk is full
        raise DataError(f"train: cache must be a folder that can be written; got {error}. Pass another.") from error
