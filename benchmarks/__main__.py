"""``python -m benchmarks``: measure; ``tables``: write the tables from what was measured; ``gpu``: measure on a GPU."""

from __future__ import annotations

import argparse
import os
import sys
from fnmatch import fnmatch
from pathlib import Path

HERE = Path(__file__).parent
FAMILIES = (
    "irregular",
    "layers",
    "window",
    "full",
    "molecules",
    "training",
    "memory",
    "build",
    "patterns",
    "drop-in",
)


def main(words: list[str] | None = None) -> int:
    """Run the command; the exit status is 1 where one of our own rows is wrong or failed."""
    words = sys.argv[1:] if words is None else words
    if words[:1] == ["gpu"]:
        from benchmarks.gpu.command import main as on_gpu

        return on_gpu(words[1:])
    return _tables(words[1:]) if words[:1] == ["tables"] else _measure(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds; ends in under 3 minutes")
    parser.add_argument(
        "--family", nargs="+", choices=FAMILIES, default=FAMILIES, metavar="NAME", help=", ".join(FAMILIES)
    )
    parser.add_argument("--case", nargs="+", metavar="FAMILY/NAME", help="cases; * stands for anything")
    parser.add_argument("--provider", nargs="+", metavar="NAME", help="whom to measure; ratios need native among them")
    parser.add_argument("--threads", type=int, default=_cores(), help="default: the cores this process may use")
    parser.add_argument("--repeats", type=int, help="rounds; default 30, or 7 with --quick")
    parser.add_argument("--root", help="folder with OGB's ogbg_molhiv, for the training family; nothing is fetched")
    parser.add_argument("--base", type=Path, metavar="FILE.json", help="an earlier result to compare with")
    parser.add_argument("--out", type=Path, default=HERE / "results", metavar="DIR", help="default: benchmarks/results")
    return parser


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _measure(words: list[str]) -> int:
    args = _parser().parse_args(words)
    import torch

    from benchmarks.cases import all_cases
    from benchmarks.compare import report
    from benchmarks.inputs import has_molhiv
    from benchmarks.measure import measure_peaks
    from benchmarks.providers import OURS, PROVIDERS
    from benchmarks.record import Record, describe_machine, describe_run, load, place, save
    from benchmarks.runner import run_case

    base = load(args.base) if args.base else None
    unknown = set(args.provider or ()) - set(PROVIDERS)
    if unknown:
        _parser().error(f"--provider must be of {', '.join(PROVIDERS)}; got {', '.join(sorted(unknown))}.")
    cases = [case for case in all_cases(args.quick, args.root) if case.family in args.family]
    if args.case:
        cases = [case for case in cases if any(fnmatch(case.key, f) or case.name == f for f in args.case)]
    if not cases:
        _parser().error(f"--case must name a case; got {' '.join(args.case or ())}. For example irregular/rmat.")
    torch.set_num_threads(args.threads)
    repeats = args.repeats or (7 if args.quick else 30)
    peaks = measure_peaks(args.quick)
    run = describe_run(args.threads, repeats, args.quick) | {"peaks": peaks._asdict()}
    record = Record(describe_machine(), run, [])
    path = place(args.out, record)
    for case in cases:
        if case.needs_data and not has_molhiv(args.root):
            print(f"{case.key}: skipped, needs --root with the folder that holds ogbg_molhiv")
            continue
        asked = [PROVIDERS[name] for name in case.providers if not args.provider or name in args.provider]
        if not asked:
            continue
        record.rows += run_case(case, asked, peaks, repeats=repeats, quick=args.quick, threads=args.threads)
        save(record, path)  # case by case: a run that is stopped leaves what it has
    print(f"written to {path}")
    if base is not None:
        print(report(record, base))
    return int(any(row.provider in OURS and row.status in ("wrong", "failed") for row in record.rows))


def _tables(words: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks tables", description="Write TABLES.md and the pictures.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.json", help="default: all, each case's newest")
    parser.add_argument("--out", type=Path, default=HERE / "results", metavar="DIR", help="where the results lie")
    parser.add_argument("--to", type=Path, default=HERE / "TABLES.md", metavar="FILE.md", help="what to write")
    args = parser.parse_args(words)
    from benchmarks.record import load
    from benchmarks.tables import newest, write

    records = {path: load(path) for path in args.files} or newest(args.out)
    if not records:
        parser.error(f"{args.out} must hold results; got none. Run python -m benchmarks first.")
    write(records, args.to)
    print(f"written to {args.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
