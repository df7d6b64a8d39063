"""``graphformer train``: train a model on a data set, or resume an interrupted run."""

from __future__ import annotations

from typing import Any

from graphformer._checks import require
from graphformer.cli.parser import new_parser, parse
from graphformer.train.config import TrainConfig, config_from_mapping, read_config, read_mapping, recipe_mapping

DESCRIPTION = """Train a graph transformer and measure it on the test split at its best validation epoch.
The settings are, from weak to strong: the defaults below, the built-in recipe of the data set, --config, options."""


def run(words: list[str]) -> None:
    """Train with the settings of these words, and print what came out."""
    parser = new_parser("train", DESCRIPTION)
    parser.add_argument(
        "dataset", nargs="?", metavar="DATASET", help="logp, made in memory, or an OGB set: ogbg-molesol"
    )
    parser.add_argument("--config", type=str, default=None, help="YAML file with any of these settings")
    parser.add_argument("--resume", type=str, default=None, metavar="RUN", help="continue this run; stands alone")
    parser.add_argument("--download", action="store_true", help="fetch the data set if it is not there")
    parser.add_class_arguments(TrainConfig, as_group=False, skip={"dataset", "download"})
    values = parse(parser, words)
    if values["resume"] is not None:
        _tell(_resume(values["resume"], words))
    else:
        config = _config(values, words)
        from graphformer.train import train

        _tell(train(config))


def _resume(run: str, words: list[str]) -> Any:
    others = [word for word in words if word not in ("--resume", f"--resume={run}", run)]
    remedy = "A resumed run keeps its settings; leave out the rest."
    require(not others, "train", "--resume", "stand alone", " ".join(others), remedy)
    from graphformer.train import resume

    return resume(run)


def _config(values: dict[str, Any], words: list[str]) -> TrainConfig:
    """The settings of the recipe, of --config and of the options, the later over the earlier."""
    written = {}
    if values["config"]:
        read_config(values["config"])  # its mistakes are told with its name
        written = _flat(read_mapping(values["config"]))
    given = {name: value for name, value in _flat(values).items() if _gives(words, name)}
    given.pop("config", None)
    dataset = values["dataset"] or written.get("dataset", TrainConfig.dataset)
    merged = {**_flat(recipe_mapping(dataset)), **written, **given, "dataset": dataset}
    return config_from_mapping(_nested(merged), "the options of train")


def _gives(words: list[str], name: str) -> bool:
    """Whether the words hold the option, or the one of its group (`--model` gives all of `--model.*`)."""
    options = {word.partition("=")[0] for word in words}
    return f"--{name}" in options or f"--{name.partition('.')[0]}" in options


def _flat(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if key == "__path__":  # jsonargparse's note of the file that `--model FILE` read
            continue
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, name = key.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = value
    return nested


def _tell(result: Any) -> None:
    print(
        f"{result.dataset}: test {result.metric} {result.test:.4f} at the best validation epoch {result.best_epoch}"
        f" (valid {result.valid:.4f})"
    )
    if result.baseline is not None:
        ratio = result.baseline / result.test if result.test else float("inf")
        print(f"predicting the training mean: test {result.metric} {result.baseline:.4f}, {ratio:.1f} times as much")
    print(f"{result.parameters:,} parameters, {result.seconds:.0f} s of training, seed {result.seed}")
    print(f"run folder: {result.folder}")
