"""The curves of the ablations, from the settings that were run."""

from __future__ import annotations

import pandas as pd

from clipit_lib.figures.curves import Curve
from clipit_lib.settings import Profile


def knobs(runs: pd.DataFrame, profile: Profile) -> list[Curve]:
    """Words dropped, rank of the report, lambda and LoRA rank, each with the profile's own point.

    Curves without a further point are left out.
    """
    names = set(runs["setting"])
    curves = [
        curve(names, "words dropped (%)", "word_dropout", "0"),
        curve(names, "rank of the paired report", "report_rank", "1"),
        curve(names, "λ", "lambda", f"{profile.distillation_weight:g}"),
        curve(names, "LoRA rank", "lora_rank", str(profile.lora.rank)),
    ]
    if "clip_it/random_reports" in names:
        ranks = curves[1]
        points = {**ranks.points, "random": "clip_it/random_reports"}
        curves[1] = Curve(ranks.title, points)
    return [each for each in curves if len(each.points) > 1]


def curve(names: set[str], title: str, change: str, own: str) -> Curve:
    """CLIP-IT along one change, in ascending order; `own` is the profile's value of it."""
    whole = f"clip_it/{change}_"
    points = {name.removeprefix(whole): name for name in names if name.startswith(whole)}
    points[own] = "clip_it"
    return Curve(title, dict(sorted(points.items(), key=_size)))


def _size(item: tuple[str, str]) -> tuple[float, str]:
    """Numbers by size, then everything else by name."""
    try:
        return float(item[0]), ""
    except ValueError:
        return float("inf"), item[0]
