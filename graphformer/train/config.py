"""What a training run is made of: plain values, so that reading them costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from graphformer._checks import require, require_choice
from graphformer._errors import InputError
from graphformer.models.config import GraphTransformerConfig, config_class, name_of

DEFAULT_MODEL = name_of(GraphTransformerConfig())
OF_A_FOREST = ("dataset", "root", "download", "seed", "seeds", "folder", "model")  # all that a forest's run reads


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        dataset: Name of the data set, see `graphformer.data.names`. Default: the embedded one.
        root: Folder that holds the data sets on disk; not read for the embedded one.
        download: Fetch the data set if it is not there.
        descriptors: Numbers of each molecule as a whole that the model reads beside its graph (sets of molecules only):
            RDKit's descriptors ("rdkit"), its Morgan fingerprint ("morgan"), as in [rdkit,morgan]. Default: none.
        epochs: Passes over the training split.
        patience: Epochs without a better validation measure after which the run ends; 0: it goes on to the last.
        batch_size: Graphs in a step, over all devices; links in a step for link prediction, and target nodes where
            neighbors are sampled. Default: 64; for links 65,536, as in OGB's examples, for each step passes the whole
            graph. One graph that is trained on as a whole has no batches.
        accumulate: Batches whose mean gradient makes a step.
        learning_rate: Peak of the learning rate.
        schedule: "cosine": a linear rise, then half a cosine down to zero; "constant": a linear rise, then the peak.
        optimizer: "adamw" takes the decay from the weights, "adam" adds it to the gradient, as older recipes do.
        weight_decay: Of the optimizer.
        warmup: Share of the steps in which the learning rate rises.
        average: Decay of the running mean of the weights, which is what is validated and kept; 0 keeps the last step's.
            The mean generalises better: it is not thrown about by the steps that an epoch happens to end with.
        gradient_clip: Largest norm of the gradient of a step; 0 does not clip.
        class_weight: "balanced" weighs each class by the inverse of its share of the training labels, as scikit-learn
            does; "none" counts every label once.
        label_smoothing: Share of a label that is spread evenly over the classes (classification), in [0, 1).
        neighbors: Neighbours drawn for a node at each hop, for training on neighbourhoods of one big graph. Default:
            none, the whole graph at once.
        negatives: What stands against the links in training, drawn again where it is a link: random "pairs", or links
            with other, random "targets".
        seed: Of the first weights, the order of the graphs and dropout.
        seeds: Runs, from `seed` upward; above 1, the mean and deviation of their measures are told.
        num_workers: Processes that make batches; 0 makes them in this one.
        prepare_in_workers: Make encodings and attention graphs batch by batch in these processes, not once before
            training: for sets that do not fit in memory once prepared.
        cache: Folder for prepared samples, which later runs with the same model settings read. Default: none are kept.
        precision: Arithmetic of training, in Lightning's words. Measures and predictions are always made in float32.
        devices: Processes, each with a device (or a share of the CPU), that share each batch.
        strategy: How Lightning spreads the run over them: "auto" or "ddp".
        folder: Where the run writes. Default: the first free runs/<dataset>-<n>.
        model: The settings of a model, one of `graphformer.models.config.KNOWN`. In a file, its `name` chooses which.
    """

    dataset: str = "logp"
    root: str = "dataset"
    download: bool = False
    descriptors: tuple[Literal["rdkit", "morgan"], ...] = ()
    epochs: int = 20
    patience: int = 0
    batch_size: int | None = None
    accumulate: int = 1
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    optimizer: Literal["adamw", "adam"] = "adamw"
    weight_decay: float = 1e-4
    warmup: float = 0.1
    average: float = 0.99
    gradient_clip: float = 1.0
    class_weight: Literal["none", "balanced"] = "none"
    label_smoothing: float = 0.0
    neighbors: tuple[int, ...] = ()
    negatives: Literal["pairs", "targets"] = "pairs"
    seed: int = 0
    seeds: int = 1
    num_workers: int = 0
    prepare_in_workers: bool = False
    cache: str | None = None
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    devices: int = 1
    strategy: Literal["auto", "ddp"] = "auto"
    folder: str | None = None
    model: Any = field(default_factory=GraphTransformerConfig)

    def __post_init__(self) -> None:
        """Refuse values that no run can have."""
        for name in ("descriptors", "neighbors"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists come in from files
        for name in ("epochs", "batch_size", "accumulate", "devices", "seeds"):
            value = getattr(self, name)
            require(value is None or value >= 1, "TrainConfig", name, "be at least 1", value, "Pass a positive count.")
        for name in ("weight_decay", "gradient_clip", "patience", "seed", "num_workers"):
            value = getattr(self, name)
            require(value >= 0, "TrainConfig", name, "be at least 0", value, "Pass 0 or more.")
        last = self.seed + self.seeds - 1
        require(last < 2**32, "TrainConfig", "seed", "lie below 2^32, in all seeds", last, "Pass a smaller one.")
        rate = self.learning_rate
        require(rate > 0, "TrainConfig", "learning_rate", "be positive", rate, "The default is 1e-3.")
        for name in ("warmup", "average", "label_smoothing"):
            value = getattr(self, name)
            require(0 <= value < 1, "TrainConfig", name, "lie in [0, 1)", value, "Pass a share below 1.")
        for name in ("precision", "optimizer", "schedule", "class_weight", "negatives", "strategy"):
            require_choice(getattr(self, name), get_args(get_type_hints(TrainConfig)[name]), "TrainConfig", name)
        counts = all(count == -1 or count > 0 for count in self.neighbors)
        remedy = "Give a count for each hop, -1 for all."
        require(counts, "TrainConfig", "neighbors", "hold positive counts", list(self.neighbors), remedy)
        alone = self.seeds == 1 or self.devices == 1
        require(alone, "TrainConfig", "seeds", "be 1 on several devices", self.seeds, "Run one seed after the other.")
        rule, remedy = f"be at most batch_size = {self.batch_size}", "Each takes its share of a batch."
        fits = self.batch_size is None or self.devices <= self.batch_size
        require(fits, "TrainConfig", "devices", rule, self.devices, remedy)
        needs = self.num_workers > 0 or not self.prepare_in_workers
        require(needs, "TrainConfig", "num_workers", "be positive to prepare in workers", 0, "Pass 1 or more.")


def read_config(path: str | Path) -> TrainConfig:
    """The settings in a YAML file, such as a run folder's config.yaml.

    Raises:
        InputError: No such file, no YAML, an unknown key or a value of a wrong kind.
    """
    return config_from_mapping(read_mapping(path), str(path))


def write_config(config: TrainConfig, path: str | Path) -> None:
    """Write every setting as YAML."""
    import yaml

    mapping = asdict(config)
    mapping["model"] = {"name": name_of(config.model), **mapping["model"]}
    Path(path).write_text(yaml.safe_dump(mapping, sort_keys=False), encoding="utf-8")


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML file; every key must be a setting of :class:`TrainConfig`."""
    import yaml

    try:
        mapping = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"config: {path} must be a readable YAML file; got {first}. Check its path and text."
        ) from None
    mapping = {} if mapping is None else mapping
    _check_keys(mapping, str(path))
    return mapping


def config_from_mapping(mapping: Mapping[str, Any], where: str) -> TrainConfig:
    """A :class:`TrainConfig` of these values, the rest at their defaults; values are checked and converted.

    Raises:
        InputError: An unknown key or a value of a wrong kind; `where` says in the message where it stands.
    """
    _check_keys(mapping, where)
    settings = dict(mapping)
    model = dict(settings.pop("model", {}))
    kind = config_class(model.pop("name", DEFAULT_MODEL))
    return TrainConfig(**_parse(TrainConfig, settings, where, skip={"model"}), model=kind(**_parse(kind, model, where)))


def _parse(kind: type, mapping: Mapping[str, Any], where: str, skip: set[str] | None = None) -> dict[str, Any]:
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, skip=skip)
    try:
        return parser.parse_object(dict(mapping)).as_dict()
    except ArgumentError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"config: {where} must hold values of the right kind; got {reason} Correct them.") from None


def _check_keys(mapping: Any, where: str) -> None:
    _check_mapping(mapping, where)
    names = [entry.name for entry in fields(TrainConfig)]
    for key in mapping:
        require_choice(str(key), names, "config", f"a key of {where}")
    model = mapping.get("model", {})
    _check_mapping(model, "model")
    kind = config_class(model.get("name", DEFAULT_MODEL))
    names = [f"model.{name}" for name in (*(entry.name for entry in fields(kind)), "name")]
    for key in model:
        require_choice(f"model.{key}", names, "config", f"a key of {where}")


def _check_mapping(mapping: Any, what: str) -> None:
    is_mapping = isinstance(mapping, Mapping)
    require(is_mapping, "config", what, "be a mapping of settings", type(mapping).__name__, "Write `key: value`.")
