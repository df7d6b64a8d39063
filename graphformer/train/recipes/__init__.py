"""Recipes: settings that were chosen for a data set, in YAML beside this file, with what they gave in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from graphformer._checks import require_choice
from graphformer.train.config import TrainConfig, config_from_mapping, read_mapping

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of the built-in recipes.

    Example:
        >>> "ogbg-molesol" in names()
        True
    """
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def recipe(name: str) -> TrainConfig:
    """The settings of a built-in recipe, or, for a data set without a recipe of its name, the defaults.

    Example:
        >>> recipe("ogbg-molesol").dataset, recipe("logp").dataset
        ('ogbg-molesol', 'logp')
    """
    return config_from_mapping(settings_for(name), f"the recipe {name}")


def measured(name: str) -> dict[str, Any]:
    """What was measured with a built-in recipe: the fields of :class:`graphformer.train.SeedsResult`; empty if nothing.

    Example:
        >>> measured("no such recipe")
        {}
    """
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def recipe_mapping(name: str) -> dict[str, Any]:
    """What a built-in recipe sets; its data set is the one that it is named after, unless it says another.

    Raises:
        InputError: No recipe of that name; near names are suggested.
    """
    require_choice(name, names(), "recipe", "name")
    return {"dataset": name, **read_mapping(FOLDER / f"{name}.yaml")}


def settings_for(dataset: str) -> dict[str, Any]:
    """What the recipe named after a data set sets; the data set alone where there is no such recipe.

    Example:
        >>> settings_for("logp")
        {'dataset': 'logp'}
    """
    return recipe_mapping(dataset) if dataset in names() else {"dataset": dataset}
