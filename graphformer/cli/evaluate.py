"""``graphformer evaluate``: measure a run on a split of its data set."""

from __future__ import annotations

from graphformer.cli.parser import new_parser, parse


def run(words: list[str]) -> None:
    """Print the data set's measure of the run's best checkpoint."""
    parser = new_parser("evaluate", "Measure a run's best checkpoint with the official evaluator of its data set.")
    parser.add_argument("run", metavar="RUN", help="folder of the run, for instance runs/logp-1")
    parser.add_argument("--split", type=str, default="test", help="train, valid or test")
    parser.add_argument("--root", type=str, default=None, help="folder of the data sets, if it is not the run's own")
    values = parse(parser, words)
    from graphformer.train import evaluate

    measured = evaluate(values["run"], values["split"], values["root"])
    rows = f"{measured.rows:,} {'pair' if measured.level == 'link' else measured.level}s"
    print(f"{measured.dataset}: {measured.split} {measured.metric} {measured.value:.4f} ({rows})")
