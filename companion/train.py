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


def train(profile: str, names: Sequence[str], **only: int | str) -> list[str]:
    """Run what is missing of studies; return the keys.

    Args:
        only: of one `seed`, `dataset` or `backbone`.

    Raises:
        ClipItError: the profile has no such study, or the studies no such part.
    """
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
    only = dict(options.p)
    if unknown := set(only) - set(KNOWN):
        parser.error(f"unknown parameter {', '.join(sorted(unknown))}; known: {', '.join(KNOWN)}")
    if "seed" in only:
        if not only["seed"].isdigit():
            parser.error(f"seed is {only['seed']!r}; give a whole number")
        only["seed"] = int(only["seed"])
    profile = only.pop("profile", options.profile)
    keys = train(profile, options.study.split(","), **only)
    if options.output is not None and parallel.processes().is_main_process:
        write_text(options.output, "\n".join(keys) + "\n")
    parallel.processes().destroy_process_group()
