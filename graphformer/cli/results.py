"""``graphformer results``: a table of what runs found."""

from __future__ import annotations

from graphformer._checks import require
from graphformer.cli.parser import new_parser, parse


def run(words: list[str]) -> None:
    """Print a Markdown table with a row for each finished run, and one for each series of seeds."""
    parser = new_parser("results", "Print a table of finished runs; those of one series of seeds are one row.")
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="runs, series or folders of them. Default: runs")
    values = parse(parser, words)
    from graphformer.train import as_table, find_results

    folders = values["folders"] or ["runs"]
    results = find_results(folders)
    remedy = "Pass the folders of runs that came to their end."
    require(bool(results), "results", "FOLDER", "hold a finished run", f"none below {', '.join(folders)}", remedy)
    print(as_table(results))
