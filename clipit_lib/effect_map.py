"""Where text helps: the gain of CLIP-IT over its controls along four axes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from clipit_lib import tables
from clipit_lib.figures.curves import Curve
from clipit_lib.knobs import curve
from clipit_lib.runs import StoredRun
from clipit_lib.settings import Profile

CONTROLS = ("lora_only", "clip_it/random_reports")
# What a control is not changed by: a run without text has no retriever and no lambda, and random
# reports need no retriever.
UNCHANGED = {"lora_only": ("retriever", "lambda"), "clip_it/random_reports": ("retriever",)}


def axes_of(stored: Sequence[StoredRun], profile: Profile) -> list[Curve]:
    """The axes with the points that were run, the profile's own point among them."""
    names = {run.spec.setting for run in stored}
    axes = [
        curve(names, "labels a class", "labels", "all"),
        curve(names, "wrong labels (%)", "label_noise", "0"),
        curve(names, "retriever", "retriever", profile.retriever),
        curve(names, "λ", "lambda", f"{profile.distillation_weight:g}"),
    ]
    return [axis for axis in axes if len(axis.points) > 1]


def map_table(stored: Sequence[StoredRun], axes: Sequence[Curve], draws: int) -> pd.DataFrame:
    """Gains at every point: axis, point, control, then the columns of `tables.gain_table`."""
    frames = []
    for axis in axes:
        for point, setting in axis.points.items():
            for control in CONTROLS:
                first = _changed(control, setting)
                two = [run for run in stored if run.spec.setting in (first, setting)]
                gains = tables.gain_table(two, [(first, setting)], draws)
                frames.append(gains.assign(axis=axis.title, point=point, control=control))
    columns = ["axis", "point", "control"]
    frame = pd.concat(frames, ignore_index=True)
    return frame[columns + [name for name in frame.columns if name not in columns]]


def _changed(control: str, setting: str) -> str:
    """The control with the same change as `setting`, unless that changes nothing for it."""
    part = setting.removeprefix("clip_it").removeprefix("/")
    unchanged = any(part.startswith(f"{name}_") for name in UNCHANGED[control])
    return control if not part or unchanged else f"{control}/{part}"
