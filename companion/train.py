"""The runs of some studies, or a part of them, without a notebook around them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from importlib.util import find_spec

from accelerate.tracking import TensorBoardTracker, WandBTracker

from clipit_lib import parallel, paths, runs
from clipit_lib.errors import ClipItError
from clipit_lib.files import write_text
from clipit_lib.runs import StoredRun
from companion import studies
from companion.profile import Workbench, load_profile


def tracked(run: StoredRun, tracker: str, profile: str) -> None:
    """Show the looks at validation of a finished run in TensorBoard or W&B, by accelerate."""
    spec = run.spec
    name = " ".join([spec.dataset, spec.backbone, spec.setting.replace("/", "-"), run.key])
    made = (
        TensorBoardTracker(name, paths.results(profile) / "tensorboard")
        if tracker == "tensorboard"
        else WandBTracker(f"clipit-{profile}", name=name, config=spec.model_dump(mode="json"))
    )
    made.start()
    for look, row in run.history().iterrows():
        made.log(row.to_dict(), step=look)
    made.finish()


def train(
    profile: str, names: Sequence[str], track: str | None = None, **only: int | str
) -> list[str]:
    """Run what is missing of studies; return the keys.

    Args:
        track: `tensorboard` or `wandb`, in which runs are shown, each once it is there.
        only: of one `seed`, `dataset` or `backbone`.

    Raises:
        ClipItError: the profile has no such study, or the studies no such part; the package that
            tracks them is not installed.
    """
    if track and find_spec(track) is None:
        raise ClipItError("not installed", f"--track {track}", f"Run `pip install {track}`")
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
            if track:
                tracked(run, track, bench.profile.name)
    return [spec.key for spec in asked]


def main(options: Namespace) -> None:
    """Train what is missing of some studies, or of a part of them."""
    parts = {name: getattr(options, name) for name in ("seed", "dataset", "backbone")}
    only = {name: value for name, value in parts.items() if value is not None}
    keys = train(options.profile, options.study.split(","), options.track, **only)
    if options.output is not None and parallel.processes().is_main_process:
        write_text(options.output, "\n".join(keys) + "\n")
    parallel.processes().destroy_process_group()
