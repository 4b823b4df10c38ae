"""The runs of one study, or a part of them, without a notebook around them."""

from __future__ import annotations

import argparse
from pathlib import Path

from clipit_lib import runs, studies
from clipit_lib.errors import ClipItError
from clipit_lib.files import write_text
from clipit_lib.settings import load_profile
from clipit_lib.workbench import Workbench


def train(profile: str, study: str, seed: int | None = None) -> list[str]:
    """Run what is missing of a study (of one seed, if given); return the keys of its runs.

    Raises:
        ClipItError: the profile has no such study, or the study no such seed.
    """
    bench = Workbench(load_profile(profile))
    asked = [s for s in studies.runs_of(bench, study) if seed is None or s.seed == seed]
    if not asked:
        raise ClipItError(f"no run has seed {seed}", f"study {study}", f"See profile {profile}")
    for number, spec in enumerate(asked, start=1):
        run = runs.get_or_run(spec, bench)
        cell = f"{spec.dataset} {spec.backbone} {spec.setting} seed {spec.seed}"
        print(f"{number} of {len(asked)}: {cell}: {run.done()['seconds']} s", flush=True)
    return [spec.key for spec in asked]


def main(arguments: list[str]) -> None:
    """`train STUDY [-p profile NAME] [-p seed N] [--output FILE]`: train what is missing."""
    parser = argparse.ArgumentParser(prog="python -m clipit_lib train", description=main.__doc__)
    parser.add_argument("study", choices=studies.STUDIES)
    parser.add_argument("--output", type=Path, help="where to list the runs' keys")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"))
    options = parser.parse_args(arguments)
    given = dict(options.p)
    if unknown := set(given) - {"profile", "seed"}:
        parser.error(f"unknown parameter {', '.join(sorted(unknown))}; known: profile, seed")
    seed = given.get("seed")
    if seed is not None and not seed.isdigit():
        parser.error(f"seed is {seed!r}; give a whole number")
    keys = train(given.get("profile", "demo"), options.study, None if seed is None else int(seed))
    if options.output is not None:
        write_text(options.output, "\n".join(keys) + "\n")
