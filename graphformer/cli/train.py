"""``graphformer train``: train a model on a data set, or resume an interrupted run."""

from __future__ import annotations

from typing import Any

from graphformer._checks import require
from graphformer.cli.parser import new_parser, parse
from graphformer.models.config import KNOWN, MODELS, config_class
from graphformer.train.config import (
    DEFAULT_MODEL,
    OF_A_FOREST,
    TrainConfig,
    config_from_mapping,
    read_config,
    read_mapping,
)
from graphformer.train.recipes import recipe_mapping, settings_for

DESCRIPTION = """Train a model on a data set and measure it on the test split at its best validation epoch.
The settings are, from weak to strong: the defaults below, the recipe (--recipe, or the one that is named after the
data set), --config, options. What came from a recipe is told at the end.
--model NAME chooses the model; --model NAME --help tells its settings."""


def run(words: list[str]) -> None:
    """Train with the settings of these words, and print what came out."""
    about_run, about_model = _split(words)
    if any(word in ("-h", "--help") for word in words):
        names = [value for option, value in zip(about_run, about_run[1:], strict=False) if option == "--model.name"]
        parse(_parser(names[-1] if names else DEFAULT_MODEL), ["--help"])
    values = parse(_parser(None), about_run)
    if values["resume"] is not None:
        _tell(_resume(values["resume"], words))
    else:
        config, origin = _config(values, about_run, about_model)
        from graphformer.train import train

        _tell(train(config), origin)


def _parser(model: str | None) -> Any:
    """The options of a run, and of this model's settings."""
    parser = new_parser("train", DESCRIPTION)
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="logp (made in memory), ogbg-molesol, ...")
    parser.add_argument("--recipe", type=str, default=None, metavar="NAME", help="one that `graphformer recipes` lists")
    parser.add_argument("--config", type=str, default=None, help="YAML file with any of these settings")
    parser.add_argument("--resume", type=str, default=None, metavar="RUN", help="continue this run; stands alone")
    parser.add_argument("--download", action="store_true", help="fetch the data set if it is not there")
    parser.add_class_arguments(TrainConfig, as_group=False, skip={"dataset", "download", "model"})
    parser.add_argument("--model.name", default=None, metavar="NAME", help=f"one of {', '.join(KNOWN)}")
    if model is not None:
        parser.add_class_arguments(config_class(model), "model", as_group=False)
    return parser


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """The words about the run, and those about the settings of its model, which can be read once the model is known."""
    about_run: list[str] = []
    about_model: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, is_whole, value = word.partition("=")
        if option not in ("--model", "--model.name") and not option.startswith("--model."):
            about_run.append(word)
            continue
        values = [value] if is_whole else [rest.pop(0)] if rest and not rest[0].startswith("--") else []
        if option in ("--model", "--model.name"):
            about_run += ["--model.name", *values]
        else:
            about_model += [option, *values]
    return about_run, about_model


def _resume(run: str, words: list[str]) -> Any:
    others = [word for word in words if word not in ("--resume", f"--resume={run}", run)]
    remedy = "A resumed run keeps its settings; leave out the rest."
    require(not others, "train", "--resume", "stand alone", " ".join(others), remedy)
    from graphformer.train import resume

    return resume(run)


def _config(values: dict[str, Any], about_run: list[str], about_model: list[str]) -> tuple[TrainConfig, str]:
    """The settings of the recipe, of --config and of the options, the later over the earlier; and what the recipe set.

    Settings of a model hold for that model only, and so do the descriptors of a recipe: where a later word chooses
    another model, they are left behind; where it chooses a forest, the settings of training too.
    """
    written: dict[str, Any] = {}
    if values["config"]:
        read_config(values["config"])  # its mistakes are told with its name
        written = read_mapping(values["config"])
    if values["recipe"]:
        weakest = recipe_mapping(values["recipe"])
        dataset = values["dataset"] or written.get("dataset", weakest["dataset"])
    else:
        dataset = values["dataset"] or written.get("dataset", TrainConfig.dataset)
        weakest = settings_for(dataset)
    merged = _over(weakest, written)
    if values["model"]["name"] is not None:
        merged = _over(merged, {"model": {"name": values["model"]["name"]}})
    if _model_of(merged) != _model_of(weakest) and "descriptors" not in written:
        merged.pop("descriptors", None)
    parser = _parser(_model_of(merged))
    given = parse(parser, about_run + about_model)
    model = {name: value for name, value in given.pop("model").items() if _gives(about_model, f"model.{name}")}
    merged = _over(merged, {name: value for name, value in given.items() if _gives(about_run, name)})
    merged["model"] = {**merged.get("model", {}), **model}
    for name in ("config", "recipe"):
        merged.pop(name, None)
    config = config_from_mapping({**merged, "dataset": dataset}, "the options of train")
    kept = ", ".join(_kept(weakest, merged))
    return config, kept and f"from the recipe {values['recipe'] or dataset}: {kept}"


def _kept(recipe: dict[str, Any], merged: dict[str, Any]) -> list[str]:
    """The settings that are as the recipe has them; those of a model that another replaced are not."""
    names = [name for name, value in recipe.items() if name not in ("dataset", "model") and merged.get(name) == value]
    model, chosen = recipe.get("model", {}), merged["model"]
    if _model_of(recipe) == _model_of(merged):
        names += [f"model.{name}" for name, value in model.items() if chosen.get(name) == value]
    return names


def _over(weak: dict[str, Any], strong: dict[str, Any]) -> dict[str, Any]:
    model, stronger = weak.get("model", {}), strong.get("model", {})
    before = _model_of(weak)
    chosen = stronger.get("name", before)
    if chosen != before:
        model = {}
    if chosen == "forest" != before:
        weak = {name: value for name, value in weak.items() if name in OF_A_FOREST}
    return {**weak, **strong, "model": {**model, **stronger}}


def _model_of(settings: dict[str, Any]) -> str:
    return settings.get("model", {}).get("name", DEFAULT_MODEL)


def _gives(words: list[str], name: str) -> bool:
    return any(word.partition("=")[0] == f"--{name}" for word in words)


def _tell(result: Any, origin: str = "") -> None:
    from graphformer.train import SeedsResult

    chosen = result.model in MODELS  # a forest has no epochs to choose from
    if isinstance(result, SeedsResult):
        spread = f"{result.test:.4f} ± {result.test_std:.4f}"
        each = ", each at its best validation epoch" if chosen else ""
        print(f"{result.dataset}: test {result.metric} {spread} over {len(result.seeds)} seeds{each}")
        print(f"(valid {result.valid:.4f} ± {result.valid_std:.4f})")
    else:
        at = f" at the best validation epoch {result.best_epoch}" if chosen else ""
        print(f"{result.dataset}: test {result.metric} {result.test:.4f}{at} (valid {result.valid:.4f})")
    if result.baseline is not None:
        ratio = result.baseline / result.test if result.test else float("inf")
        print(f"predicting the training mean: test {result.metric} {result.baseline:.4f}, {ratio:.1f} times as much")
    seeds = f"seeds {result.seeds}" if isinstance(result, SeedsResult) else f"seed {result.seed}"
    print(f"{result.parameters:,} parameters, {result.seconds:.0f} s of training, {seeds}")
    if origin:
        print(origin)
    print(f"run folder: {result.folder}")
