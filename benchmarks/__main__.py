"""`python -m benchmarks [NAME ...] [--quick] [--demo]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

import pandas as pd

from benchmarks import demo, figure, inference, input_pipeline, pairing, table, top_k, training
from benchmarks.machine import busy, machine
from benchmarks.measure import Row, Scale, threads

BENCHMARKS: dict[str, Callable[[Scale], list[Row]]] = {
    "pairing": pairing.run,
    **{pair.name: partial(training.run, pair) for pair in training.PAIRS},
    "inference": inference.run,
    "top_k": top_k.run,
    "input_pipeline": input_pipeline.run,
    "demo": demo.run,
}
USUAL = [name for name in BENCHMARKS if name != "demo"]


def main() -> None:
    """Take ratios of times; write results/benchmarks.csv, .md and figures/benchmarks.png, .svg."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--quick", action="store_true",
        help="small sizes, to see that all works; goals are meant for the full ones, so the files "
        "are named benchmarks_quick",
    )  # fmt: skip
    parser.add_argument("--demo", action="store_true", help="the whole demo too: over an hour")
    given = parser.parse_args()
    if unknown := set(given.names) - set(BENCHMARKS):
        parser.error(f"unknown {', '.join(sorted(unknown))}; known: {', '.join(BENCHMARKS)}")
    names = given.names or USUAL + ["demo"] * given.demo
    scale: Scale = "quick" if given.quick else "full"
    name = "benchmarks_quick" if given.quick else "benchmarks"
    if warning := busy():
        print(warning, file=sys.stderr)
    for each in names:
        with threads(1):
            rows = BENCHMARKS[each](scale)
        if not rows:
            continue
        new = table.table(rows, each, machine())
        frame = table.merged(table.read(name), new)
        print(new.drop(columns=["note", "machine", "benchmark"]).to_string(index=False), flush=True)
        table.save(frame, name)
        figure.save(figure.benchmarks_figure(frame), name)
    print(table.folder() / f"{name}.md")


if __name__ == "__main__":
    pd.set_option("display.width", 160)
    main()
