"""The words that captions and reports share: graded findings with synonyms, and tissue names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipit_lib.data.phantom.latents import MORPHOLOGY, Latents

Field = dict[str, float]


@dataclass(frozen=True)
class Finding:
    """How one latent is put into words.

    Attributes:
        limits: value from which each grade is used; below the first nothing is said.
        grades: synonyms of each grade, from least to most.
        weight: how readily it is mentioned before others.
        needs: latents of which one must be seen for this one to be worth a word.
    """

    limits: tuple[float, ...]
    grades: tuple[tuple[str, ...], ...]
    weight: float = 1.0
    needs: tuple[str, ...] = ()


_EPITHELIUM = ("glands", "invasion")
_EXTENT = (0.15, 0.40, 0.65)
_DEGREE = (0.0, 0.30, 0.55)

FINDINGS: dict[str, Finding] = {
    "cellularity": Finding(
        (0.0, 0.35, 0.60),
        (
            ("low cellularity", "sparse cells", "hypocellular tissue"),
            ("moderate cellularity", "moderately cellular tissue"),
            ("high cellularity", "crowded nuclei", "hypercellular tissue", "closely packed cells"),
        ),
        weight=0.5,
    ),
    "nuclear_size": Finding(
        (0.0, 0.38, 0.58),
        (
            ("small nuclei", "small round nuclei"),
            ("nuclei of intermediate size", "mildly enlarged nuclei"),
            ("large nuclei", "enlarged vesicular nuclei", "markedly enlarged nuclei"),
        ),
        weight=0.5,
        needs=_EPITHELIUM,
    ),
    "pleomorphism": Finding(
        _DEGREE,
        (
            ("bland cytology", "uniform monomorphic nuclei", "minimal nuclear atypia"),
            ("moderate nuclear pleomorphism", "moderate cytologic atypia"),
            ("marked nuclear pleomorphism", "severe cytologic atypia", "high grade nuclei"),
        ),
        weight=0.7,
        needs=_EPITHELIUM,
    ),
    "glands": Finding(
        _EXTENT,
        (
            ("occasional glands", "few glandular structures", "focal tubule formation"),
            ("several glands", "moderate gland formation", "scattered tubules and glands"),
            ("numerous glands", "abundant gland formation", "closely set glandular structures"),
        ),
    ),
    "regularity": Finding(
        (0.0, 0.40, 0.65),
        (
            ("irregular angulated glands", "distorted architecture", "disorganized glands"),
            ("mildly irregular glands", "slightly distorted architecture"),
            ("round evenly spaced glands", "preserved architecture", "well organized glands"),
        ),
        weight=0.6,
        needs=("glands",),
    ),
    "filling": Finding(
        (0.22, 0.42, 0.65),
        (
            ("mild epithelial hyperplasia", "slightly thickened ductal epithelium"),
            ("ducts partly filled by cells", "moderate intraductal proliferation"),
            (
                "expanded ducts filled with cells",
                "solid intraductal proliferation with smooth borders",
                "distended ducts with an intact basement membrane",
            ),
        ),
        needs=("glands",),
    ),
    "invasion": Finding(
        _EXTENT,
        (
            ("rare single cells in the stroma", "few small infiltrating nests"),
            ("infiltrating nests", "irregular nests within the stroma"),
            (
                "sheets of infiltrating tumor cells",
                "extensive stromal invasion",
                "infiltrating cords and solid nests",
            ),
        ),
    ),
    "fibres": Finding(
        (0.12, 0.40, 0.62),
        (
            ("loose stroma", "delicate edematous stroma"),
            ("fibrous stroma", "moderate stromal fibrosis"),
            ("dense collagenous stroma", "marked fibrosis", "thick wavy collagen bundles"),
        ),
        weight=0.7,
    ),
    "muscle": Finding(
        (0.20, 0.40, 0.65),
        (
            ("few muscle strands", "thin strands of smooth muscle"),
            ("some smooth muscle", "loosely arranged muscle bundles"),
            (
                "parallel smooth muscle bundles",
                "thick muscle fascicles with spindle nuclei",
                "muscularis propria",
            ),
        ),
    ),
    "fat": Finding(
        (0.12, 0.35, 0.62),
        (
            ("rare fat cells", "focal fat"),
            ("some adipose tissue", "islands of fat cells"),
            (
                "abundant mature adipose tissue",
                "lobules of fat with large empty vacuoles",
                "fatty tissue with thin septa",
            ),
        ),
    ),
    "mucin": Finding(
        (0.12, 0.35, 0.60),
        (
            ("focal mucin", "occasional goblet cells"),
            ("moderate mucin production", "small mucin pools"),
            ("abundant extracellular mucin", "large mucin pools", "extensive mucinous lakes"),
        ),
    ),
    "necrosis": Finding(
        (0.12, 0.32, 0.58),
        (
            ("focal necrosis", "rare necrotic cells"),
            ("patchy necrosis", "moderate necrotic debris"),
            ("extensive necrosis", "abundant granular necrotic debris", "confluent necrosis"),
        ),
    ),
    "lymphocytes": Finding(
        (0.14, 0.38, 0.62),
        (
            ("scattered lymphocytes", "mild chronic inflammation"),
            ("moderate lymphocytic infiltrate", "patchy lymphoid infiltrate"),
            (
                "dense lymphoid infiltrate",
                "sheets of small dark lymphocytes",
                "prominent lymphoid tissue",
            ),
        ),
    ),
    "blank": Finding(
        (0.15, 0.40, 0.65),
        (
            ("a small empty area", "focal tissue loss"),
            ("partly empty glass", "large areas without tissue"),
            ("mostly empty glass", "blank slide with hardly any tissue", "scant tissue"),
        ),
    ),
}

TISSUES: dict[str, dict[str, tuple[str, ...]]] = {
    "pcam": {
        "no_tumor": ("benign lymph node", "lymph node without tumor", "reactive nodal tissue"),
        "tumor": ("metastatic carcinoma in a lymph node", "nodal metastasis", "tumor deposit"),
    },
    "bach": {
        "Benign": (
            "fibrocystic change",
            "benign proliferative breast tissue",
            "sclerosing adenosis",
        ),
        "InSitu": ("ductal carcinoma in situ", "intraductal carcinoma", "DCIS"),
        "Invasive": (
            "infiltrating ductal carcinoma",
            "invasive carcinoma",
            "invasive mammary tumor",
        ),
        "Normal": ("unremarkable breast parenchyma", "normal ducts and lobules"),
    },
    "crc": {
        "ADI": ("pericolic fat", "fatty tissue"),
        "BACK": ("empty background", "glass without tissue"),
        "DEB": ("necrotic debris", "tumor necrosis"),
        "LYM": ("lymphoid aggregate", "lymphoid tissue"),
        "MUC": ("mucin pool", "extracellular mucin"),
        "MUS": ("muscularis propria", "muscle layer"),
        "NORM": ("unremarkable colonic mucosa", "normal crypts"),
        "STR": ("desmoplastic stroma", "tumor stroma"),
        "TUM": ("colonic adenocarcinoma", "malignant glands", "moderately differentiated tumor"),
    },
}


def field_of(latents: Latents, row: int) -> Field:
    """The morphology of one patch, by name."""
    return {name: float(getattr(latents, name)[row]) for name in MORPHOLOGY}


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def grade(name: str, value: float) -> int:
    """Which grade of a finding a value belongs to; -1 below the first."""
    return sum(value >= limit for limit in FINDINGS[name].limits) - 1


def findings(field: Field, rng: np.random.Generator, omission: float) -> list[str]:
    """What there is to say of a field, most prominent first, each left out with `omission`.

    At least one finding is always left.
    """
    ranked = []
    for name, finding in FINDINGS.items():
        level = grade(name, field[name])
        seen = not finding.needs or max(field[need] for need in finding.needs) > 0.18
        if level >= 0 and seen:
            prominence = finding.weight * (0.35 + field[name]) + 0.15 * rng.standard_normal()
            ranked.append((prominence, pick(rng, finding.grades[level])))
    ranked.sort(reverse=True)
    kept = [phrase for _, phrase in ranked if rng.random() >= omission]
    return kept or [ranked[0][1]]
