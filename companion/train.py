"""The runs of some studies, or a part of them, without a notebook around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipit_lib import parallel, runs
from clipit_lib.errors import ClipItError
from clipit_lib.files import write_text
from companion import studies
from companion.profile import Workbench, load_profile
from companion.reading import parser_of

KNOWN = ("profile", "seed", "dataset", "backbone")


def train(
    profile: str,
    names: Sequence[str],
    seed: int | None = None,
    dataset: str | None = None,
    backbone: str | None = None,
) -> list[str]:
    """Run what is missing of studies (of one seed, data set, backbone, if given); return the keys.

    Raises:
        ClipItError: the profile has no such study, or the studies no such part.
    """
    asked_for = {"seed": seed, "dataset": dataset, "backbone": backbone}
    only = {name: value for name, value in asked_for.items() if value is not None}
    main = parallel.processes().is_main_process  # before any tensor goes to a GPU
    bench = Workbench(load_profile(profile))
    for name in names:
        studies.asked(bench.profile, name)
    wanted = {spec.key: spec for name in names for spec in studies.runs_of(bench, name)}
    asked = [
        spec
        for spec in wanted.values()
        if all(getattr(spec, name) == value for name, value in only.items())
    ]
    if not asked:
        part = " and ".join(f"{name} {value}" for name, value in only.items())
        where = f"study {', '.join(names)}"
        raise ClipItError(f"no run has {part}", where, f"See profile {profile}")
    for number, spec in enumerate(asked, start=1):
        run = runs.get_or_run(spec, bench)
        cell = f"{spec.dataset} {spec.backbone} {spec.setting} seed {spec.seed}"
        if main:
            print(f"{number} of {len(asked)}: {cell}: {run.done()['seconds']} s", flush=True)
            for note in run.notes:
                print(f"  doubtful: {note}", flush=True)
    return [spec.key for spec in asked]


def main(arguments: list[str]) -> None:
    """Train what is missing of some studies, or of a part of them: -p seed 0, for example.

    By `accelerate launch --num_processes N -m companion train ...` N processes train each run.
    """
    parser = parser_of("train", main.__doc__, profile=False)
    parser.add_argument("study", help=f"STUDY[,STUDY ...] of {', '.join(studies.STUDIES)}")
    parser.add_argument("--profile", metavar="NAME", default="demo", help="as -p profile NAME")
    parser.add_argument("--output", type=Path, help="where to list the runs' keys")
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
        help=f"KEY is {', '.join(KNOWN)}",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    given = dict(options.p)
    if unknown := set(given) - set(KNOWN):
        parser.error(f"unknown parameter {', '.join(sorted(unknown))}; known: {', '.join(KNOWN)}")
    seed = given.pop("seed", None)
    if seed is not None and not seed.isdigit():
        parser.error(f"seed is {seed!r}; give a whole number")
    profile = given.pop("profile", options.profile)
    keys = train(profile, options.study.split(","), None if seed is None else int(seed), **given)
    if options.output is not None and parallel.processes().is_main_process:
        write_text(options.output, "\n".join(keys) + "\n")
    parallel.processes().destroy_process_group()
