"""``graphformer export``: a run's model as one small file."""

from __future__ import annotations

import shlex

from graphformer.cli.parser import new_parser, parse


def run(words: list[str]) -> None:
    """Write the model, and tell its size and how to use it."""
    parser = new_parser("export", "Write a finished run's model into one file, which predicts without the run.")
    parser.add_argument("run", metavar="RUN", help="folder of the run, for instance runs/logp-1")
    parser.add_argument("--out", type=str, default="model.safetensors", help="file. Default: model.safetensors")
    values = parse(parser, words)
    from graphformer.train.exported import export, load_exported, reads_molecules

    path = export(values["run"], values["out"])
    print(f"model: {path} ({path.stat().st_size / 1000:,.0f} kB)")
    if reads_molecules(load_exported(path)):
        print(f'predict with it: graphformer predict "CCO" --model {shlex.quote(str(path))}')
    else:
        print(f"load it: from graphformer.train.exported import load_exported; module = load_exported({str(path)!r})")
