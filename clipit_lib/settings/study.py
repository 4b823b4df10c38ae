"""What one table or figure beyond Table 1 asks for."""

from __future__ import annotations

from clipit_lib.settings.base import Seed, Strict


class Study(Strict):
    """Cells, settings and seeds of one study; what is empty is the profile's or the study's own.

    A setting may be changed further, part by part: `clip_it/lambda_0.3` (see `clipit_lib.specs`).
    """

    datasets: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    seeds: tuple[Seed, ...] = ()
