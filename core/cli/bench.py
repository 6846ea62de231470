"""`bench`: measures a claim against a reference."""

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from core.errors import CallError
from core.workspace import ROOT, Workspace

Rows = list[dict[str, Any]]


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `bench` takes."""
    benchmarks = sorted(path.stem for path in (ROOT / "bench").glob("[a-z]*.py"))
    names = f"one of {', '.join(benchmarks)}; gpu: all that needs a card"
    command.add_argument("benchmark", choices=benchmarks, metavar="NAME", help=names)
    command.add_argument("--seed", type=int, default=0, help="random seed")
    command.add_argument("--keep", action="store_true", help="write the results to docs/benchmarks.md")
    gpu = command.add_argument_group("for `bench gpu`")
    gpu.add_argument("--tiny", action="store_true", help="tiny models, to see that it runs: the figures say nothing")
    gpu.add_argument("--minutes", type=float, metavar="N", help="how long it may take; default: 25")
    gpu.add_argument("--part", action="append", metavar="NAME", help="only this part; can be repeated")
    gpu.add_argument("--out", type=Path, metavar="FILE", help="default: bench-gpu.json in the workspace")


def run_benchmark(options: argparse.Namespace) -> tuple[int, Rows]:
    """Run one benchmark and print its rows. The exit status is 1 where one does not hold."""
    rows = _gpu(options) if options.benchmark == "gpu" else _other(options)
    for row in rows:
        bar = f"bar {row['bar']}" if row["bar"] is not None else "no bar"
        verdict = {True: "holds", False: "NOT MET", None: ""}[row["holds"]]
        figures = f"{row['value']:>12,.3f} {row['unit']:<12} reference {row['reference']}"
        print(f"{row['name']:<44} {figures}   {bar}   {verdict}", file=sys.stderr)
    return int(any(row["holds"] is False for row in rows)), rows


def _other(options: argparse.Namespace) -> Rows:
    for name in ("tiny", "minutes", "part", "out"):
        if getattr(options, name):
            raise CallError(f"--{name} is for `bench gpu` only.")
    rows: Rows = import_module(f"bench.{options.benchmark}").main(options.seed)
    if options.keep:
        import_module("bench._keep").keep(options.benchmark, options.seed, rows)
    return rows


def _gpu(options: argparse.Namespace) -> Rows:
    if options.tiny and options.keep:
        raise CallError("--tiny and --keep exclude each other: the figures of tiny models say nothing.")
    gpu, workspace = import_module("bench.gpu"), Workspace.open(options.data_dir)
    out = options.out or workspace.path / "bench-gpu.json"
    minutes = options.minutes or gpu.MINUTES
    rows: Rows = gpu.main(options.seed, options.tiny, minutes, options.part or (), workspace, out)
    print(f"Written to {out} and {out.with_suffix('.md').name}.", file=sys.stderr)
    if options.keep:
        import_module("bench._keep").main(out)
    return rows
