"""What the paper reports, and its protocol beside that of the released code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from clipit_lib.encoders import registry
from clipit_lib.settings import Protocol
from companion.reading import read_strict

# -- The paper's numbers as data (arXiv 2504.16181; WACV 2026 text of Tables 1 and 2).

HERE = Path(__file__).parent

# Which data set of the paper one of ours is, or as a phantom mirrors. Beside a phantom the paper's
# numbers stand for orientation only: its accuracy is not comparable with tissue.
MIRRORS = {name: name.rsplit("-", 1)[-1].upper() for name in (
    "pcam", "bach", "crc", "phantom-pcam", "phantom-bach", "phantom-crc",
)}  # fmt: skip


def printed(name: str) -> pd.DataFrame:
    """The numbers that the paper prints; accuracies in percent, as `mean` and `sd` of three runs.

    table1: dataset, backbone, setting, mean, sd (the released code's balanced accuracy).
    table2: the same, of CLIPs.
    table5: backbone, parameters_M (millions, as printed, without heads).
    table6: the text classifier on different texts: dataset, setting, accuracy.
    table7: on PCAM: backbone, setting (unimodal, or reports_retriever), accuracy. The paper swaps
        the labels of ViT-S16 and ViT-B16 relative to its Table 1; they are kept and marked so.
    figure5: what section 5 prints of it (UNI on PCAM): setting, accuracy. Other bars are pixels.
    compute: ways to deploy CONCH (section 5): variant, gflops (multiply-adds, which the paper
        calls FLOPs), latency_ms (batch 1 on an RTX A6000).
    """
    return pd.read_csv(HERE / f"{name}.csv")


def gains() -> pd.Series:
    """CLIP-IT minus unimodal in points, by the data set and backbone of each cell of Table 1."""
    cells = printed("table1").pivot(index=["dataset", "backbone"], columns="setting", values="mean")
    return cells["clip_it"] - cells["unimodal"]


# Table 7's settings as ours; a retriever is named as the paper names it.
OF_CORPUS = "/corpus_synthetic"
OF_TABLE7 = {"tcga_clip": "clip_it/retriever_CLIP", "tcga_quilt": "clip_it/retriever_QUILTNet",
             "tcga_conch": "clip_it", "synthetic_conch": f"clip_it{OF_CORPUS}"}  # fmt: skip


def differences(table: str, gains: pd.DataFrame) -> list[float]:
    """The printed `second` minus `first` for each row of `tables.gain_table`, in points.

    It is that of the data set and the backbone that ours are or stand for (Figure 5 has one
    backbone, Table 6 one text encoder); NaN where the table does not print both settings.
    """
    cells = printed(table).rename(columns={"mean": "accuracy"}).replace({"setting": OF_TABLE7})
    cells = cells if "dataset" in cells else cells.assign(dataset="PCAM")
    keys = [name for name in ("dataset", "backbone") if name in cells]
    stand_for = {name: row.namesake for name, row in registry.ENCODERS.items()}
    names = {rf"/retriever_{name}$": f"/retriever_{other}" for name, other in stand_for.items()}
    own = gains[["first", "second"]].replace(names | {"/corpus_.*": OF_CORPUS}, regex=True)
    own["dataset"], own["backbone"] = (
        gains["dataset"].map(MIRRORS),
        gains["backbone"].map(stand_for),
    )
    second, first = (
        own.merge(cells, "left", left_on=[*keys, which], right_on=[*keys, "setting"])["accuracy"]
        for which in ("second", "first")
    )
    return (second - first).tolist()


def pareto_points() -> pd.DataFrame:
    """Cells of Tables 1 and 2 with the parameters that Table 5 prints: dataset, backbone, setting,
    mean, low, high (one standard deviation either side; percent), parameters (single numbers).

    Table 5 prints millions without heads, so settings of one backbone cost the same here; a
    contrastive model holds both towers.
    """
    cells = pd.concat([printed("table1"), printed("table2")], ignore_index=True)
    held = printed("table5").set_index("backbone")["parameters_M"].to_dict()
    tower = cells["backbone"] + "_vision"
    one_tower = tower.isin(held.keys()) & (cells["setting"] != "contrastive")
    model = tower.where(one_tower, cells["backbone"])
    low, high = cells["mean"] - cells["sd"], cells["mean"] + cells["sd"]
    return cells.assign(low=low, high=high, parameters=1e6 * model.map(held)).drop(columns="sd")


# -- The paper's protocol, and the released code's: which of its switches meet on which data.

SWITCHES = read_strict(HERE / "switches.yaml", dict[str, dict[str, Any]])
PAPER = Protocol()
# Those that are met on one data set of the paper only, and those that stand in place of another.
ONLY_ON = {"letters_lost": "PCAM", "tiny_validation": "BACH", "class_text": "CRC"}
ALTERNATIVES = ("clip_normalisation", "random_vision_head")


def protocol_named(name: str, mirrored: str | None = None) -> Protocol:
    """`paper`, or `released` on the data set of the paper that is used or mirrored."""
    if name == "paper":
        return PAPER
    values: dict[str, Any] = {}
    for switch, changes in SWITCHES.items():
        if switch not in ALTERNATIVES and ONLY_ON.get(switch, mirrored) == mirrored:
            values |= changes
    return PAPER.model_copy(update=values)


def switched(name: str) -> Protocol:
    """The paper's protocol with one switch set; KeyError if there is none of this name."""
    return PAPER.model_copy(update=SWITCHES[name])


PROTOCOLS: dict[str, Protocol] = {"paper": PAPER, "released": protocol_named("released")}
