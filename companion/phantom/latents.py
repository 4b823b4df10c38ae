"""The phantom's worlds: classes, and the morphology that is drawn for each patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from clipit_lib.errors import ClipItError

# -- The phantom's three worlds: their classes and the mean morphology of each class.


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


# -- All randomness of a patch, drawn at once from the patch's own seed.
#
# Everything after this is arithmetic, so a patch has the same bytes in whatever block it is drawn.


GLANDS, RING, SITES, LYMPHOID, EPITHELIAL, STROMAL = 9, 34, 9, 256, 144, 64


@dataclass(frozen=True)
class Chance:
    """Random numbers of a block of b patches, float32; uniform in [0, 1) unless said otherwise.

    Attributes:
        coarse: [b, 7, 7, 7] standard normals on lattices over the field.
        medium: [b, 2, 18, 18] standard normals.
        fine: [b, 2, 64, 64] in [-1, 1).
        streaks: [b, 96] standard normals, the profile across fibres.
        layout: [b, 8], orientation and offset of fibres and lattices.
        glands: [b, GLANDS, 6].
        sites: [b, SITES, 3], fat cells.
        ring: [b, GLANDS, RING, 7], nuclei in the wall of a gland.
        lymphoid, epithelial, stromal: [b, LYMPHOID or EPITHELIAL or STROMAL, 7], other nuclei.
    """

    coarse: np.ndarray
    medium: np.ndarray
    fine: np.ndarray
    streaks: np.ndarray
    layout: np.ndarray
    glands: np.ndarray
    sites: np.ndarray
    ring: np.ndarray
    lymphoid: np.ndarray
    epithelial: np.ndarray
    stromal: np.ndarray


def draw_chance(seed: int, patches: Sequence[int]) -> Chance:
    """The random numbers of these patch indices."""
    drawn = [_one(np.random.SeedSequence(seed, spawn_key=(index,))) for index in patches]
    return Chance(*(np.stack(parts) for parts in zip(*drawn, strict=True)))


def _one(seeds: np.random.SeedSequence) -> tuple[np.ndarray, ...]:
    rng = np.random.Generator(np.random.SFC64(seeds))

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    def uniform(*shape: int) -> np.ndarray:
        return rng.random(shape, dtype=np.float32)

    return (
        normal(7, 7, 7),
        normal(2, 18, 18),
        2 * uniform(2, 64, 64) - 1,
        normal(96),
        uniform(8),
        uniform(GLANDS, 6),
        uniform(SITES, 3),
        uniform(GLANDS, RING, 7),
        uniform(LYMPHOID, 7),
        uniform(EPITHELIAL, 7),
        uniform(STROMAL, 7),
    )


# -- The morphology and the stain of each patch, drawn from its class and its patient.


PATCHES_PER_PATIENT = 20
# Standard deviations of latents that are neither absent nor full, and of all others.
PATIENT_SPREAD, PATCH_SPREAD, RESIDUE = 0.05, 0.15, 0.02
SPLITS = ("train", "validation", "test")
# Room for the patients of one split; ids of different splits never meet.
PATIENTS_PER_SPLIT = 10_000_000


@dataclass(frozen=True)
class Latents:
    """What is known about each patch; every array is [n].

    Morphology, float32 from 0 (absent or least) to 1 (all or most): cellularity, nuclear_size,
    pleomorphism, glands (extent of gland formation), regularity (of glands and their borders),
    filling (of ducts by cells), invasion (nests and single cells in the stroma), fibres, muscle
    (parallel bundles), fat, mucin, necrosis, lymphocytes, blank (bare glass).

    Stain, float32: haematoxylin and eosin (strength, 1 is usual), haematoxylin_hue and eosin_hue
    (0 is usual, positive is bluer), thickness (1 is usual), tint (of the scanner, positive is
    warmer). Stain belongs to the patient, says nothing about the class, and only thickness varies
    between the patches of a patient.

    label and patient are int64.
    """

    cellularity: np.ndarray
    nuclear_size: np.ndarray
    pleomorphism: np.ndarray
    glands: np.ndarray
    regularity: np.ndarray
    filling: np.ndarray
    invasion: np.ndarray
    fibres: np.ndarray
    muscle: np.ndarray
    fat: np.ndarray
    mucin: np.ndarray
    necrosis: np.ndarray
    lymphocytes: np.ndarray
    blank: np.ndarray
    haematoxylin: np.ndarray
    eosin: np.ndarray
    haematoxylin_hue: np.ndarray
    eosin_hue: np.ndarray
    thickness: np.ndarray
    tint: np.ndarray
    label: np.ndarray
    patient: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: np.ndarray | slice) -> Latents:
        """The patches at `rows`, an index array or a slice."""
        return Latents(**{name: getattr(self, name)[rows] for name in _NAMES})

    @staticmethod
    def concatenate(parts: Sequence[Latents]) -> Latents:
        """All patches of the parts, in order."""
        return Latents(
            **{name: np.concatenate([getattr(p, name) for p in parts]) for name in _NAMES}
        )


_NAMES = tuple(field.name for field in fields(Latents))
MORPHOLOGY = _NAMES[: _NAMES.index("haematoxylin")]


def world_named(name: str) -> World:
    """The world of this name.

    Raises:
        ClipItError: there is none.
    """
    if name not in WORLDS:
        raise ClipItError(f"no world {name!r}", "phantom", f"Known: {', '.join(WORLDS)}")
    return WORLDS[name]


def draw(world: str, labels: np.ndarray, patients: np.ndarray, rng: np.random.Generator) -> Latents:
    """Latents of patches with these labels ([n] int) and patients ([n] int).

    The first rows do not depend on how many follow, if patients come in ascending order.

    Raises:
        ClipItError: the world is unknown or a label lies outside its classes.
    """
    size = len(world_named(world).classes)
    if len(labels) and not (0 <= labels.min() and labels.max() < size):
        raise ClipItError(f"labels outside 0..{size - 1}", f"phantom {world}", "Mend the labels")
    patient_rng, patch_rng, mixing_rng = rng.spawn(3)
    ids, row = np.unique(patients, return_inverse=True)
    persons = patient_rng.standard_normal((len(ids), len(MORPHOLOGY) + 6))[row]
    noise = patch_rng.standard_normal((len(labels), len(MORPHOLOGY) + 1))
    mean = _mixed_means(world, labels, mixing_rng.random((len(labels), 2)))
    # What is absent from a class stays nearly absent, and what fills it nearly full.
    room = 2 * np.sqrt(mean * (1 - mean))
    scatter = PATCH_SPREAD * noise[:, :-1] + PATIENT_SPREAD * persons[:, 6:]
    values = mean + room * scatter + RESIDUE * noise[:, :-1]
    morphology = np.clip(values, 0, 1).astype(np.float32)
    columns = {name: morphology[:, k].copy() for k, name in enumerate(MORPHOLOGY)}
    return Latents(
        **columns,
        **_stain(persons[:, :6], noise[:, -1]),
        label=labels.astype(np.int64),
        patient=patients.astype(np.int64),
    )


def _mixed_means(world: str, labels: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Mean morphology [n, latents]: the class's own, mixed with a neighbour's."""
    classes, overlap = WORLDS[world].classes, WORLDS[world].overlap
    means = np.array([[MEANS[world][c].get(name, 0.0) for name in MORPHOLOGY] for c in classes])
    around = [[classes.index(other) for other in NEIGHBOURS[world][c]] for c in classes]
    neighbour = np.array(
        [
            around[label][int(u * len(around[label]))]
            for label, u in zip(labels, uniform[:, 0], strict=True)
        ],
        dtype=np.int64,
    )
    share = overlap * uniform[:, 1:] ** 1.5
    return (1 - share) * means[labels] + share * means[neighbour]


def _stain(person: np.ndarray, patch: np.ndarray) -> dict[str, np.ndarray]:
    """Stain from standard normals: six a patient ([n, 6]) and one a patch ([n])."""
    values = {
        "haematoxylin": np.exp(0.16 * person[:, 0]),
        "eosin": np.exp(0.20 * person[:, 1]),
        "haematoxylin_hue": person[:, 2],
        "eosin_hue": person[:, 3],
        "thickness": np.exp(0.08 * person[:, 4] + 0.05 * patch),
        "tint": person[:, 5],
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def draw_dataset(
    world: str, train: int, validation: int, test: int, seed: int
) -> tuple[Latents, np.ndarray]:
    """Latents of a whole data set and the split of each patch ([n] str), split by split.

    Classes are balanced within one patch a class. A patient has 20 patches of mixed classes and
    belongs to one split. The first patches of a split do not depend on the sizes asked for.

    Raises:
        ClipItError: the world is unknown.
    """
    worlds = list(WORLDS)
    classes = len(world_named(world).classes)
    parts = []
    counts = (train, validation, test)
    for number, count in enumerate(counts):
        seeds = np.random.SeedSequence(seed, spawn_key=(worlds.index(world), number))
        rng = np.random.default_rng(seeds)
        label_rng, latent_rng = rng.spawn(2)
        patients = number * PATIENTS_PER_SPLIT + np.arange(count) // PATCHES_PER_PATIENT
        parts.append(draw(world, balanced_labels(count, classes, label_rng), patients, latent_rng))
    return Latents.concatenate(parts), np.repeat(np.array(SPLITS), counts)


def balanced_labels(count: int, classes: int, rng: np.random.Generator) -> np.ndarray:
    """[count] int64: one random order of all classes after another."""
    rounds = -(-count // classes)
    orders = rng.permuted(np.tile(np.arange(classes), (rounds, 1)), axis=1)
    return orders.ravel()[:count]
