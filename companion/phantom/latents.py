"""The phantom's worlds: classes, and the morphology that is drawn for each patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from clipit_lib.settings import Strict
from companion.published import PUBLISHED_DATA
from companion.reading import read_strict

# -- The phantom's three worlds: their classes and the mean morphology of each class.


class Tissue(Strict):
    """One class of a world.

    Attributes:
        mean: of each latent, 0 to 1; what is not named is absent.
        neighbours: classes that a patch may hold besides.
        names: synonyms of the class in a caption.
        diagnoses: how a report ends on it.
    """

    mean: dict[str, float]
    neighbours: tuple[str, ...]
    names: tuple[str, ...]
    diagnoses: tuple[str, ...]


class World(Strict):
    """The classes of one phantom data set.

    Attributes:
        name: of the public data set whose classes it mirrors.
        overlap: largest share that a neighbouring class may have in a patch.
        tissues: by the names of the classes; a label is an index into them.
    """

    name: str
    organ: Literal["breast", "colon"]
    overlap: float
    tissues: dict[str, Tissue]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.tissues)

    @property
    def class_texts(self) -> tuple[str, ...]:
        """How a sentence names each class, in the same order."""
        return PUBLISHED_DATA[self.name].class_texts


_READ = read_strict(Path(__file__).with_name("worlds.yaml"), tuple[World, ...])
WORLDS: dict[str, World] = {world.name: world for world in _READ}


# -- The morphology and the stain of each patch, drawn from its class and its patient.

PATCHES_PER_PATIENT = 20
# Standard deviations of latents that are neither absent nor full, and of all others.
PATIENT_SPREAD, PATCH_SPREAD, RESIDUE = 0.05, 0.15, 0.02
SPLITS = ("train", "validation", "test")
# Room for the patients of one split; ids of different splits never meet.
PATIENTS_PER_SPLIT = 10_000_000


Of = TypeVar("Of", bound="Rows")


@dataclass(frozen=True)
class Rows:
    """Arrays that have their first axis in common."""

    def take(self: Of, rows: np.ndarray | slice) -> Of:
        """What is at `rows`, an index array or a slice."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @classmethod
    def concatenate(cls: type[Of], parts: Sequence[Of]) -> Of:
        """All rows of the parts, in order."""
        return cls(
            **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)}
        )


@dataclass(frozen=True)
class Latents(Rows):
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


_NAMES = tuple(field.name for field in fields(Latents))
MORPHOLOGY = _NAMES[: _NAMES.index("haematoxylin")]


def draw(world: str, labels: np.ndarray, patients: np.ndarray, rng: np.random.Generator) -> Latents:
    """Latents of patches with these labels ([n] int) and patients ([n] int).

    The first rows do not depend on how many follow, if patients come in ascending order.
    """
    patient_rng, patch_rng, mixing_rng = rng.spawn(3)
    mean = _mixed_means(world, labels, mixing_rng.random((len(labels), 2)))
    return scattered(mean, labels, patients, patient_rng, patch_rng)


def scattered(
    mean: np.ndarray, labels: np.ndarray, patients: np.ndarray, *rngs: np.random.Generator
) -> Latents:
    """Latents around mean morphology [n, latents]; `rngs` draw what belongs to patients, and to
    patches.
    """
    ids, row = np.unique(patients, return_inverse=True)
    persons = rngs[0].standard_normal((len(ids), len(MORPHOLOGY) + 6))[row]
    noise = rngs[1].standard_normal((len(labels), len(MORPHOLOGY) + 1))
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
    classes, tissues = WORLDS[world].classes, WORLDS[world].tissues.values()
    means = class_means(world)
    around = [[classes.index(other) for other in own.neighbours] for own in tissues]
    drawn = zip(labels, uniform[:, 0], strict=True)
    other = [around[label][int(u * len(around[label]))] for label, u in drawn]
    neighbour = np.array(other, np.int64)  # there may be none
    share = WORLDS[world].overlap * uniform[:, 1:] ** 1.5
    return (1 - share) * means[labels] + share * means[neighbour]


def class_means(world: str) -> np.ndarray:
    """Mean morphology of each class, [classes, latents]."""
    tissues = WORLDS[world].tissues.values()
    return np.array([[own.mean.get(name, 0.0) for name in MORPHOLOGY] for own in tissues])


def _stain(person: np.ndarray, patch: np.ndarray) -> dict[str, np.ndarray]:
    """Stain from standard normals: six per patient ([n, 6]) and one per patch ([n])."""
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

    Classes are balanced within one patch per class. A patient has 20 patches of mixed classes and
    belongs to one split. The first patches of a split do not depend on the sizes asked for.
    """
    classes, place = len(WORLDS[world].classes), list(WORLDS).index(world)
    counts, parts = (train, validation, test), []
    for number, count in enumerate(counts):
        seeds = np.random.SeedSequence(seed, spawn_key=(place, number))
        label_rng, latent_rng = np.random.default_rng(seeds).spawn(2)
        patients = number * PATIENTS_PER_SPLIT + np.arange(count) // PATCHES_PER_PATIENT
        parts.append(draw(world, balanced_labels(count, classes, label_rng), patients, latent_rng))
    return Latents.concatenate(parts), np.repeat(np.array(SPLITS), counts)


def balanced_labels(count: int, classes: int, rng: np.random.Generator) -> np.ndarray:
    """[count] int64: one random order of all classes after another."""
    rounds = -(-count // classes)
    orders = rng.permuted(np.tile(np.arange(classes), (rounds, 1)), axis=1)
    return orders.ravel()[:count]
