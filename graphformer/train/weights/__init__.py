"""Trained models that come with the package, one safetensors file each beside this one."""

from __future__ import annotations

from pathlib import Path

from graphformer._checks import require_choice

FOLDER = Path(__file__).parent
ENDING = ".safetensors"


def names() -> list[str]:
    """Names of the models that come with the package.

    Example:
        >>> "no such model" in names()
        False
    """
    return sorted(path.stem for path in FOLDER.glob(f"*{ENDING}"))


def path_of(model: str) -> Path:
    """The file of a model: one of :func:`names`, or the path of a file that `graphformer export` wrote.

    Raises:
        InputError: No model of that name; near names are suggested.

    Example:
        >>> path_of("models/mine.safetensors").name
        'mine.safetensors'
    """
    if str(model).endswith(ENDING):
        return Path(model).expanduser()
    require_choice(model, names(), "predict", "model", f"Or pass the path of a {ENDING} file of `graphformer export`.")
    return FOLDER / f"{model}{ENDING}"
