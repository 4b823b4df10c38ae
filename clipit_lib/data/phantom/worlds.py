"""The phantom's three worlds: their classes and the mean morphology of each class."""

from __future__ import annotations

from dataclasses import dataclass

Profile = dict[str, float]


@dataclass(frozen=True)
class World:
    """The classes of one phantom data set.

    Attributes:
        name: of the public data set whose classes it mirrors.
        organ: "breast" or "colon".
        classes: class names; a label is an index into them.
        class_texts: how a sentence names each class, in the same order.
        overlap: largest share that a neighbouring class may have in a patch.
    """

    name: str
    organ: str
    classes: tuple[str, ...]
    class_texts: tuple[str, ...]
    overlap: float


WORLDS: dict[str, World] = {
    "pcam": World(
        "pcam",
        "breast",
        ("no_tumor", "tumor"),
        ("normal lymph node tissue", "lymph node metastasis of breast carcinoma"),
        overlap=0.48,
    ),
    "bach": World(
        "bach",
        "breast",
        ("Benign", "InSitu", "Invasive", "Normal"),
        (
            "benign breast lesion",
            "in situ carcinoma of the breast",
            "invasive breast carcinoma",
            "normal breast tissue",
        ),
        overlap=0.50,
    ),
    "crc": World(
        "crc",
        "colon",
        ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"),
        (
            "adipose tissue",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        overlap=0.68,
    ),
}

# Mean of each latent, 0 to 1; what is not named is absent. Judged by eye against atlas images.
MEANS: dict[str, dict[str, Profile]] = {
    "pcam": {
        "no_tumor": dict(
            lymphocytes=0.72, cellularity=0.30, fibres=0.30, nuclear_size=0.30, pleomorphism=0.15,
            regularity=0.50, fat=0.08, invasion=0.08,
        ),
        "tumor": dict(
            invasion=0.68, cellularity=0.72, nuclear_size=0.62, pleomorphism=0.52, glands=0.15,
            regularity=0.30, lymphocytes=0.32, fibres=0.35, necrosis=0.04,
        ),
    },
    "bach": {
        "Benign": dict(
            glands=0.62, regularity=0.62, fibres=0.60, cellularity=0.50, nuclear_size=0.40,
            pleomorphism=0.25, filling=0.22, fat=0.08, lymphocytes=0.06,
        ),
        "InSitu": dict(
            glands=0.50, filling=0.80, regularity=0.70, cellularity=0.68, nuclear_size=0.55,
            pleomorphism=0.45, necrosis=0.12, fibres=0.50, lymphocytes=0.08,
        ),
        "Invasive": dict(
            invasion=0.70, cellularity=0.72, nuclear_size=0.60, pleomorphism=0.60, glands=0.18,
            regularity=0.15, fibres=0.55, lymphocytes=0.14, necrosis=0.04,
        ),
        "Normal": dict(
            glands=0.32, regularity=0.85, fibres=0.50, fat=0.30, cellularity=0.32,
            nuclear_size=0.30, pleomorphism=0.10, filling=0.08,
        ),
    },
    "crc": {
        "ADI": dict(fat=0.85, fibres=0.30, cellularity=0.18, nuclear_size=0.25, regularity=0.5),
        "BACK": dict(blank=0.95, fibres=0.20, cellularity=0.10, regularity=0.5),
        "DEB": dict(
            necrosis=0.75, cellularity=0.25, nuclear_size=0.40, pleomorphism=0.40, mucin=0.08,
            lymphocytes=0.10, fibres=0.20, regularity=0.4,
        ),
        "LYM": dict(
            lymphocytes=0.85, cellularity=0.30, nuclear_size=0.25, fibres=0.25, regularity=0.5
        ),
        "MUC": dict(mucin=0.80, cellularity=0.20, nuclear_size=0.35, fibres=0.25, regularity=0.4),
        "MUS": dict(
            muscle=0.85, fibres=0.75, cellularity=0.42, nuclear_size=0.35, regularity=0.5
        ),
        "NORM": dict(
            glands=0.88, regularity=0.85, mucin=0.28, cellularity=0.48, nuclear_size=0.35,
            pleomorphism=0.12, lymphocytes=0.18, fibres=0.25,
        ),
        "STR": dict(
            fibres=0.78, muscle=0.12, cellularity=0.38, nuclear_size=0.40, pleomorphism=0.20,
            lymphocytes=0.14, regularity=0.4,
        ),
        "TUM": dict(
            glands=0.50, regularity=0.22, invasion=0.42, cellularity=0.78, nuclear_size=0.68,
            pleomorphism=0.62, necrosis=0.10, fibres=0.35, filling=0.15, lymphocytes=0.06,
        ),
    },
}  # fmt: skip

# What a patch of a class may hold besides, as at the border between two annotated regions.
NEIGHBOURS: dict[str, dict[str, tuple[str, ...]]] = {
    "pcam": {"no_tumor": ("tumor",), "tumor": ("no_tumor",)},
    "bach": {
        "Benign": ("Normal", "InSitu", "Invasive"),
        "InSitu": ("Benign", "Invasive"),
        "Invasive": ("InSitu", "Benign"),
        "Normal": ("Benign",),
    },
    "crc": {
        "ADI": ("STR", "BACK"),
        "BACK": ("ADI", "MUC"),
        "DEB": ("TUM", "MUC", "STR"),
        "LYM": ("NORM", "STR", "TUM"),
        "MUC": ("DEB", "NORM", "STR"),
        "MUS": ("STR",),
        "NORM": ("TUM", "LYM"),
        "STR": ("MUS", "ADI", "TUM", "DEB"),
        "TUM": ("NORM", "DEB", "STR"),
    },
}
