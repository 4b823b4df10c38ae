"""One look for every figure: readable at column width, safe for colour-blind readers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from clipit_lib import paths
from clipit_lib.files import write_text, written_beside
from companion.specs import label as label
from companion.tables import doubtful

# Okabe and Ito; markers differ too, so that nothing rests on colour alone.
COLOURS = {
    "unimodal": "#6E6E6E",
    "lora_only": "#E69F00",
    "clip_it": "#0072B2",
    "clip_it/architecture_only": "#009E73",
    "clip_it/random_reports": "#CC79A7",
}
MARKERS = {
    "unimodal": "o",
    "lora_only": "s",
    "clip_it": "D",
    "clip_it/architecture_only": "^",
    "clip_it/random_reports": "v",
}
# For what is no setting: colours and markers of up to seven things, in this order.
CYCLE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#6E6E6E")
MARKER_CYCLE = ("o", "s", "D", "^", "v", "P", "X")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "svg.hashsalt": "clip-it",
    "svg.fonttype": "none",
    "legend.frameon": False,
}


@contextmanager
def styled() -> Iterator[None]:
    """The look, within a block."""
    with plt.rc_context(STYLE):
        yield


def plain(text: str) -> str:
    """Text from data: a dollar sign in it starts no formula."""
    return text.replace("$", r"\$")


def save(figure: Figure, profile: str, name: str, runs: Sequence[str] = ()) -> Path:
    """Write NAME.png, NAME.svg and the run keys behind them; return the png's path.

    Below the figure stands which of the runs have a doubtful course.
    """
    folder = paths.figures(profile)
    if said := plain(doubtful(profile, runs).replace("**", "").replace("`", "")):
        figure.text(0, -0.02, fill(said, 110), fontsize=7, color="#D55E00", va="top")
    for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
        with written_beside(folder / f"{name}{suffix}") as temporary, plt.rc_context(STYLE):
            figure.savefig(temporary, format=suffix[1:], bbox_inches="tight", metadata=metadata)
    write_text(folder / f"{name}.runs.json", json.dumps(sorted(runs), indent=1) + "\n")
    plt.close(figure)
    return folder / f"{name}.png"
