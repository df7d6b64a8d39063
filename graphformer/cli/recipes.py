"""``graphformer recipes``: the built-in recipes and what was measured with them."""

from __future__ import annotations

from graphformer.cli.parser import new_parser, parse
from graphformer.models.config import name_of
from graphformer.train.recipes import measured, names, recipe


def run(words: list[str]) -> None:
    """Print a Markdown table with a row for each recipe."""
    parse(new_parser("recipes", "List the built-in recipes; train one with graphformer train --recipe NAME."), words)
    print("| recipe | data set | model | parameters | seeds | measured (test) | s/run |")
    print("|" + "---|" * 7)
    for name in names():
        config, told = recipe(name), measured(name)
        cells = [name, config.dataset, name_of(config.model)]
        if told:
            spread = f"{told['metric']} {told['test']:.4f} ± {told['test_std']:.4f}"
            cells += [f"{told['parameters']:,}", str(len(told["seeds"])), spread, f"{told['seconds']:.0f}"]
        else:
            cells += ["", "", "not measured yet", ""]
        print(f"| {' | '.join(cells)} |")
