"""Every registered question beside every other: results/registered.csv, a figure, the docs' table.

From the predictions that came with the repository; a test says when one of them is out of date.
"""

from __future__ import annotations

import os

from clipit_lib.files import write_text  # isort: skip  # its kernels come before numpy's

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from companion import paths, registration, tables
from companion.archived import noted
from companion.figures import style
from companion.profile import Workbench, load_profile
from companion.statistics import JUDGED, MARGIN, each_interval, judgement

# Each question in the order of the table: on the figure, in words ("" for those of the row above)
# and where it was asked.
REPORT = "Is the matched report worth more than a random one?"
FEW = "... where four patches per class have labels (and training is six steps)?"
ASKED = {
    "positive_control": (
        "own report, where text helps (phantom)",
        "Does a patch's own report help, where text helps by construction?", "phantom"),
    "colon_steps": ("matched report (real patches)", REPORT, "real patches"),
    "four_steps": ("matched report (two phantoms)", "", "two phantoms"),
    "colon_noise_30": (
        "30% of labels wrong (real patches)",
        "... where 30% of the labels are wrong?", "real patches"),
    "wrong_labels": (
        "40% wrong (two phantoms)",
        "... where 40% are wrong?", "two phantoms"),
    "noise_curve": (
        "40% of the next class (phantom)", "... where 40% are those of the next class?", "phantom"),
    "most_labels_wrong": ("60% wrong (phantom)", "... where 60% are wrong?", "phantom"),
    "colon_noise": ("60% wrong (real patches)", "", "real patches"),
    "colon_noise_again": ("60% wrong, asked again (real)", "", "real patches, asked again"),
    "few_labels": ("4 labels per class (phantom)", FEW, "phantom"),
    "unlabelled": (
        "4 labels, others distilled (phantom)",
        "... and those without labels are distilled, too?", "phantom"),
    "few_labels_as_many_steps": (
        "4 labels, as many steps (phantom)",
        "... or training makes as many steps as from all labels?", "phantom"),
    "colon_few_labels": (
        "over its branch, 4 labels (real)",
        "Does the text do more than the branch that reads it, where four patches per class have "
        "labels?", "real patches"),
    "colon_unlabelled": (
        "over noise, 4 labels, others distilled (real)",
        "... more than noise, where patches without labels are distilled, too?", "real patches"),
    "colon_image_centroids": (
        "over image clusters, 16 labels, likewise (real)",
        "... more than as few clusters of images, where sixteen have labels, and the others are "
        "distilled?", "real patches"),
    "brakes": (
        "over the best brake, 40% wrong (phantom)",
        "Is it worth more than the brake that validation chose, where 40% are wrong?", "phantom"),
    "colon_brakes": (
        "over the best brake (real patches)",
        "... or than the brake that validation chose, with labels as they are?", "real patches"),
    "colon_oracle": (
        "right prompts over chance (real)",
        "Is a prompt of the right class worth more than one that is right by chance?",
        "real patches"),
    "colon_oracle_again": (
        "... whose stage one reads as often (real)",
        "... where stage one reads prompts as often as reports?", "real patches"),
    "colon_one_label": (
        "over LoRA only, 1 label, others distilled (real)",
        "Does CLIP-IT gain over LoRA only, where one patch per class has a label, and the others "
        "are distilled?", "real patches"),
    "colon_many_labels": (
        "... 64 labels, others distilled (real)",
        "... where sixty-four patches per class have labels?", "real patches"),
    "wrong_organ": (
        "CLIP-IT over LoRA only, other organs (real)",
        "Does CLIP-IT gain over LoRA only, where no report is of the right organ?",
        "real tissue, 37 patients"),
}  # fmt: skip
BEGIN, END = "<!-- written by workflow/registered.py -->\n", "<!-- to here -->"


def answered() -> pd.DataFrame:
    """One row per question: gain with its interval and word, p, by Holm's rule too, its runs."""
    rows = []
    for name in ASKED:
        registered = registration.load(name)
        asked = registered.question
        stored = registration.runs_for(registered, Workbench(load_profile(asked.profile)))
        (pair,) = asked.primary.values()
        gain = tables.pooled_gain(stored, pair.first, pair.second)
        known = noted(paths.repository() / "results" / asked.profile, [run.key for run in stored])
        doubtful = sum(run["doubtful"] is True for run in known.values())
        row = {"question": name, **dict(zip(JUDGED, judgement(gain, asked.margin), strict=True))}
        rows.append(row | {"p": gain.p, "runs": len(stored), "doubtful": doubtful})
    found = pd.DataFrame(rows)
    return found.assign(p_holm=tables.holm(found["p"].to_numpy(dtype=float))).round(4)


def table(found: pd.DataFrame) -> str:
    """To read, as Markdown."""
    shown = pd.DataFrame(
        [ASKED[name][1:] for name in found["question"]], columns=["question", "where"]
    ).assign(
        points=each_interval(found).map(str),
        word=[f"**{word}**" for word in found["word"]],
        **{"p by Holm": ["< 0.001" if p < 0.001 else f"{p:.2g}" for p in found["p_holm"]]},
        **{"runs, doubtful": [f"{r.runs}, {r.doubtful}" for r in found.itertuples()]},
    )
    return tables.markdown(shown)


@style.styled()
def figure_of(found: pd.DataFrame) -> Figure:
    """One line per question, with the margin of equivalence as a band."""
    figure, axis = plt.subplots(figsize=(6.4, 1.1 + 0.22 * len(found)))
    axis.axvspan(-MARGIN, MARGIN, color="0.93", lw=0, zorder=0)
    names = [ASKED[name][0] for name in found["question"]]
    style.forest(axis, found, names=names, said=found["word"])
    axis.set_xlabel("points of balanced accuracy (95% interval)")
    axis.set_title("What the matched report is worth over a random one,\nor over what is named")
    style.legend_below(figure, style.meanings(found))
    return figure


def main() -> None:
    """Write them all."""
    here = paths.repository()
    os.environ["CLIPIT_PREDICTIONS"] = str(here / "results")
    found = answered()
    write_text(here / "results" / "registered.csv", found.to_csv(index=False, float_format="%.4f"))
    page = here / "docs" / "results.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    write_text(page, f"{before}{BEGIN}{table(found)}\n{END}{after}")
    figure = figure_of(found)
    for kind in ("svg", "png"):
        style.write(figure, here / "figures" / f"registered.{kind}")
    style.in_a_column(figure)
    style.write(figure, here / "figures" / "registered_85mm.pdf")


if __name__ == "__main__":
    main()
