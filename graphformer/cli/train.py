"""``graphformer train``: train a model on a data set, or resume an interrupted run."""

from __future__ import annotations

from typing import Any

from graphformer._checks import require
from graphformer.cli.parser import new_parser, parse
from graphformer.train.config import TrainConfig, config_from_mapping, read_mapping, recipe_mapping

DESCRIPTION = """Train a graph transformer and measure it on the test split at its best validation epoch.
The settings are, from weak to strong: the defaults below, the built-in recipe of the data set, --config, options."""


def run(words: list[str]) -> None:
    """Train with the settings of these words, and print what came out."""
    parser = new_parser("train", DESCRIPTION)
    parser.add_argument("name", nargs="?", metavar="DATASET", help="logp (made in memory), or an OGB set: ogbg-molesol")
    parser.add_argument("--config", type=str, default=None, help="YAML file with any of the settings below")
    parser.add_argument("--resume", type=str, default=None, metavar="RUN", help="continue this run; stands alone")
    parser.add_class_arguments(TrainConfig, as_group=False)
    values = parse(parser, words)
    if values["resume"] is not None:
        others = " ".join(word for word in words if word not in ("--resume", values["resume"]))
        alone = len(words) == (1 if words[0].startswith("--resume=") else 2)
        remedy = "A resumed run keeps its settings; leave out the rest."
        require(alone, "train", "--resume", "stand alone", others, remedy)
        from graphformer.train import resume

        _tell(resume(values["resume"]))
        return
    written = read_mapping(values["config"]) if values["config"] else {}
    dataset = values["name"] or (values["dataset"] if _gives(words, "dataset") else written.get("dataset", "logp"))
    given = {name: value for name, value in _flat(values).items() if _gives(words, name)}
    layers = (_flat(recipe_mapping(dataset)), _flat(written), given, {"dataset": dataset})
    config = config_from_mapping(_nested({key: value for layer in layers for key, value in layer.items()}), "train")
    from graphformer.train import train

    _tell(train(config))


def _gives(words: list[str], name: str) -> bool:
    return any(word == f"--{name}" or word.startswith(f"--{name}=") for word in words)


def _flat(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
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
        ratio = result.baseline / result.test
        print(f"predicting the training mean: test {result.metric} {result.baseline:.4f}, {ratio:.1f} times as much")
    print(f"{result.parameters:,} parameters, {result.seconds:.0f} s of training, seed {result.seed}")
    print(f"run folder: {result.folder}")
