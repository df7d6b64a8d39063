"""What finished runs found: one, several seeds of one, and a table of many."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from graphformer._errors import RunError
from graphformer.train.folder import RunFolder


@dataclass(frozen=True)
class RunResult:
    """What a finished run found; its result.json.

    Attributes:
        folder: The run's folder.
        dataset: Name of the data set.
        model: Name of the model.
        metric: Name of the measure.
        best_epoch: Epoch of the best validation measure, counted from 1; 0 for a forest, which has no epochs.
        valid: The measure on the validation split at that epoch.
        test: The measure on the test split at that epoch.
        baseline: The measure on the test split of predicting the training labels' mean; None for classification.
        parameters: Trained numbers of the model; nodes of all trees for a forest.
        seconds: Time of all epochs, with validation; of fitting and measuring for a forest.
        seed: Seed of the run.
    """

    folder: str
    dataset: str
    model: str
    metric: str
    best_epoch: int
    valid: float
    test: float
    baseline: float | None
    parameters: int
    seconds: float
    seed: int

    @classmethod
    def read(cls, path: Path) -> RunResult:
        """The result that a run wrote.

        Raises:
            RunError: The file cannot be read as one.
        """
        return _read(path, cls)


@dataclass(frozen=True)
class SeedsResult:
    """What runs with several seeds found together; the result.json of their folder.

    Attributes:
        folder: Folder of the runs.
        dataset: Name of the data set.
        model: Name of the model.
        metric: Name of the measure.
        seeds: Seeds of the runs.
        valid: Mean of the measure on the validation split, each at its best epoch.
        valid_std: Its standard deviation over the seeds (of a sample, as OGB reports it); 0 for one seed.
        test: Mean of the measure on the test split at those epochs.
        test_std: Its standard deviation.
        baseline: The measure of predicting the training labels' mean; None for classification.
        parameters: Trained numbers of the model.
        seconds: Mean time of a run.
    """

    folder: str
    dataset: str
    model: str
    metric: str
    seeds: list[int]
    valid: float
    valid_std: float
    test: float
    test_std: float
    baseline: float | None
    parameters: int
    seconds: float

    @classmethod
    def of(cls, folder: str, runs: Sequence[RunResult]) -> SeedsResult:
        """The mean and deviation of these runs."""
        valid, test = [run.valid for run in runs], [run.test for run in runs]
        first = runs[0]
        return cls(
            folder=folder,
            dataset=first.dataset,
            model=first.model,
            metric=first.metric,
            seeds=[run.seed for run in runs],
            valid=statistics.fmean(valid),
            valid_std=_deviation(valid),
            test=statistics.fmean(test),
            test_std=_deviation(test),
            baseline=first.baseline,
            parameters=first.parameters,
            seconds=round(statistics.fmean(run.seconds for run in runs), 1),
        )

    @classmethod
    def write(cls, folder: RunFolder, runs: Sequence[RunResult]) -> SeedsResult:
        """Put these runs together, in their folder's result.json too."""
        result = cls.of(str(folder.path), runs)
        folder.write_result(asdict(result))
        return result


def find_results(folders: Iterable[str | Path]) -> list[SeedsResult]:
    """The results of all runs below these folders, in the order of their paths; those of one series as one.

    A series that is not finished counts with the seeds that are. A folder without a finished run gives nothing.

    Args:
        folders: Folders of runs, of series of seeds, or above them; a run that lies below several counts once.

    Raises:
        RunError: No such folder, or a result.json that cannot be read.
    """
    found: dict[Path, list[RunResult]] = {}
    seen: set[Path] = set()
    for folder in folders:
        top = Path(folder).expanduser()
        if not top.is_dir():
            raise RunError(f"results: {top} must be a folder of runs; got no such folder. Pass the folders of runs.")
        for path in sorted(top.rglob("result.json")):
            if path.resolve() in seen or _is_series(path):
                continue
            seen.add(path.resolve())
            parent = path.parent.parent
            series = (
                parent if path.parent.name.startswith("seed-") and (parent / "config.yaml").exists() else path.parent
            )
            found.setdefault(series, []).append(RunResult.read(path))
    return [
        SeedsResult.of(str(series), sorted(runs, key=lambda run: run.seed)) for series, runs in sorted(found.items())
    ]


def as_table(results: Sequence[SeedsResult]) -> str:
    """A Markdown table of results, a row each; after the model's name stand the settings that are not its defaults.

    Example:
        >>> runs = [RunResult("runs/a/seed-0", "cora", "gps", "acc", 3, 0.8, 0.7, None, 1000, 2.0, 0)]
        >>> print(as_table([SeedsResult.of("runs/a", runs)]))
        | data set | model | parameters | seeds | valid | test | s/run | folder |
        |---|---|---|---|---|---|---|---|
        | cora | gps | 1,000 | 1 | acc 0.8000 | 0.7000 | 2 | runs/a |
    """
    lines = ["| data set | model | parameters | seeds | valid | test | s/run | folder |", "|" + "---|" * 8]
    for result in results:
        several = len(result.seeds) > 1
        valid = f"{result.metric} {result.valid:.4f}" + (f" ± {result.valid_std:.4f}" if several else "")
        test = f"{result.test:.4f}" + (f" ± {result.test_std:.4f}" if several else "")
        cells = [result.dataset, _told(result), f"{result.parameters:,}", str(len(result.seeds)), valid, test]
        lines.append(f"| {' | '.join([*cells, f'{result.seconds:.0f}', result.folder])} |")
    return "\n".join(lines)


def _told(result: SeedsResult) -> str:
    """The model with what else it reads and those of its settings that are not the defaults, if the folder tells."""
    try:
        config = RunFolder(result.folder).read_config()
    except RunError:
        return result.model
    model, default = config.model, type(config.model)()
    settings = {entry.name: getattr(model, entry.name) for entry in fields(model)}
    plain = {name: value for name, value in settings.items() if isinstance(value, str | int | float)}
    told = [f"{name}={value}" for name, value in plain.items() if value != getattr(default, name)]
    told += ["descriptors=" + "+".join(config.descriptors)] if config.descriptors else []
    return f"{result.model} ({', '.join(told)})" if told else result.model


def _is_series(path: Path) -> bool:
    return "seeds" in _load(path)


def _read(path: Path, kind: Any) -> Any:
    content = _load(path)
    names = {entry.name for entry in fields(kind)}
    if set(content) != names:
        wrong = ", ".join(sorted(names ^ set(content)))
        raise RunError(f"results: {path} must hold the result of a run; got other keys ({wrong}). Train anew.")
    return kind(**content)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"results: {path} must be readable; got {error}. Remove it and resume the run.") from error
    return content if isinstance(content, dict) else {}


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
