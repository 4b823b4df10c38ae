"""What a profile will run, what of it is done, and about what the rest takes."""

from __future__ import annotations

import argparse
import os

import torch

from clipit_lib import studies
from clipit_lib.plan.disk import disk
from clipit_lib.plan.effort import seconds_of, shared_seconds
from clipit_lib.plan.jobs import jobs, untrained
from clipit_lib.plan.models import facts
from clipit_lib.plan.sizes import sizes
from clipit_lib.plan.speed import LARGE, TERAFLOPS, assumed, speeds
from clipit_lib.plan.words import overview, space, table, time_assumed, time_here
from clipit_lib.settings import load_profile


def main(arguments: list[str]) -> None:
    """`plan --profile NAME [--runs] [--teraflops T]`: print runs, time and disk."""
    parser = argparse.ArgumentParser(prog="python -m clipit_lib plan", description=main.__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--runs", action="store_true", help="list every run, a line a setting")
    parser.add_argument(
        "--teraflops", type=float, metavar="T",
        help="what your accelerator sustains, in 10^12 operations a second",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.teraflops is not None and not options.teraflops > 0:
        parser.error(f"--teraflops is {options.teraflops}; give a number above 0")
    profile = load_profile(options.profile)
    every = jobs(profile)
    todo = [job for job in every if not job.done]
    asked = [name for name in studies.STUDIES if studies.asked(profile, name)]
    print(overview(profile, every, asked, untrained(profile)))
    if not todo:
        return
    torch.set_num_threads(1)
    counts = {name: sizes(profile, name) for name in profile.data}
    names = dict.fromkeys(job.backbone for job in todo if job.base != "text")
    known = {name: facts(name, profile) for name in names}
    here = speeds(known, profile)
    # Cores would take weeks: say as well what accelerators may take.
    large = not torch.cuda.is_available() and any(f.multiply_adds > LARGE for f in known.values())
    teraflops = options.teraflops or (TERAFLOPS if large else None)
    there = here if teraflops is None else assumed(known, here, teraflops)
    each = seconds_of(todo, profile, counts, there)
    if options.runs:
        print(table(every, each))
    print(space(disk(todo, profile, counts, known)))
    total = sum(each.values()) + shared_seconds(todo, profile, counts, there)
    if teraflops is not None:
        print(time_assumed(total, teraflops))
        each = seconds_of(todo, profile, counts, here)
        total = sum(each.values()) + shared_seconds(todo, profile, counts, here)
    workers = torch.cuda.device_count() or os.cpu_count() or 1
    print(time_here(total, workers, large))
