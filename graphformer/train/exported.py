"""A run's model as one small file that needs no run, and back: plain tensors and text, nothing that is executed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from graphformer._checks import refuse, require
from graphformer._errors import GraphformerError, RunError
from graphformer.data import molecule_features
from graphformer.models.config import name_of
from graphformer.train.config import config_from_mapping
from graphformer.train.fit import load_module
from graphformer.train.folder import RunFolder, write_whole
from graphformer.train.module import GraphModule, TaskFacts
from graphformer.train.results import RunResult
from graphformer.train.weights import ENDING, path_of

_KEYS = ("config", "task", "result")


def export(run: str | Path, out: str | Path) -> Path:
    """Write the model of a finished run, as it predicts, into one safetensors file.

    The file holds the averaged weights of the best epoch and the objective's buffers, and as JSON text the settings
    that predictions depend on ("config"), what the data set is ("task") and what the run measured ("result").

    Args:
        run: The run's folder.
        out: The file; ".safetensors" is added where it is missing.

    Returns:
        The file that was written.

    Raises:
        RunError: No run, an unfinished one, a damaged checkpoint, or a file that cannot be written.
    """
    from safetensors.torch import save

    folder = RunFolder.open(run)
    module = load_module(folder, folder.best)
    finished, remedy = folder.result.exists(), f"Go on with: graphformer train --resume {folder.path}"
    require(finished, "export", "the run", "be finished", f"{folder.path} without a result.json", remedy, RunError)
    config = module.config
    model = {"name": name_of(config.model), **asdict(config.model)}
    result = {key: value for key, value in asdict(RunResult.read(folder.result)).items() if key != "folder"}
    about = {
        # batches of another size would change the last bits
        "config": {
            "dataset": config.dataset,
            "batch_size": config.batch_size,
            "descriptors": config.descriptors,
            "model": model,
        },
        "task": asdict(module.facts),
        "result": result,
    }
    path = Path(out).expanduser()
    path = path if path.name.endswith(ENDING) else path.with_name(path.name + ENDING)
    metadata = {key: json.dumps(value) for key, value in about.items()}
    tensors = {key: value.detach().clone() for key, value in _state(module).items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda passing: passing.write_bytes(save(tensors, metadata)))
    except OSError as error:
        refuse("export", "--out", "be a file that can be written", error, "Pass another path.", RunError)
    return path


def load_exported(path: str | Path) -> GraphModule:
    """The module in a file that :func:`export` wrote, ready to predict: its `predict_batch` takes prepared batches.

    Raises:
        RunError: The file is missing, damaged, or not one of these.
    """
    tensors, about = _read(path)
    try:
        config = config_from_mapping(about["config"], str(path))
        module = GraphModule(config, TaskFacts.read(about["task"]))
        module.model.load_state_dict(_below("model.", tensors))
        module.averaged.module.load_state_dict(_below("model.", tensors))
        module.objective.load_state_dict(_below("objective.", tensors))
    except (GraphformerError, RuntimeError, TypeError, KeyError, ValueError) as error:
        refuse("predict", str(path), "hold a whole model", " ".join(str(error).split())[:200], _REMEDY, RunError)
    return module.eval()


def open_module(run: str | Path | None, model: str | None, where: str) -> GraphModule:
    """The module of a run's best checkpoint, or of an exported model, that predicts molecules.

    Args:
        run: The run's folder, or None.
        model: Name of a model that comes with the package, or the path of an exported one, or None.
        where: Who asks.

    Raises:
        InputError: Both are given, or none; no model of that name.
        RunError: No run; one of no molecules; a damaged file.
    """
    both, remedy = run is not None and model is not None, "Pass the folder of a run, or the name of a model."
    one = (run is None) != (model is None)
    require(one, where, "run", "be given, or a model, and not both", "both" if both else "neither", remedy)
    if model is not None:
        module = load_exported(path_of(model))
    else:
        assert run is not None
        folder = RunFolder.open(run)
        module = load_module(folder, folder.best)
    rule, remedy = "have learnt from molecules", "Measure it on its own data with: graphformer evaluate."
    asked, got = "run" if model is None else "model", f"that of {module.facts.name}"
    require(reads_molecules(module), where, asked, rule, got, remedy, RunError)
    return module


def reads_molecules(module: GraphModule) -> bool:
    """Whether it predicts what is told as SMILES."""
    facts = module.facts
    return facts.level == "graph" and replace(facts.features, graph_channels=0) == molecule_features()


_REMEDY = "Pass a file that this version's `graphformer export` wrote."


def _state(module: GraphModule) -> dict[str, Tensor]:
    parts = {"model.": module.averaged.module, "objective.": module.objective}
    return {start + key: value for start, part in parts.items() for key, value in part.state_dict().items()}


def _below(start: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - a file is no mapping
        return tensors, {key: json.loads(metadata[key]) for key in _KEYS}
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        got = f"a file without {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        return refuse("predict", str(path), "be an exported model", got, _REMEDY, RunError)
