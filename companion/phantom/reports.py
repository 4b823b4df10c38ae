"""Reports and captions of the phantom, written from latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clipit_lib.data.reports import Corpus, ReportCorpus
from clipit_lib.files import digest
from clipit_lib.settings import Positive
from companion.phantom.latents import (
    MORPHOLOGY,
    PATCHES_PER_PATIENT,
    PATIENTS_PER_SPLIT,
    SPLITS,
    WORLDS,
    Latents,
    balanced_labels,
    draw,
    world_named,
)
from companion.phantom.patches import render


class PhantomCorpus(Corpus):
    """Reports of phantom patches of one organ."""

    source: Literal["phantom"]
    organ: Literal["breast", "colon"]
    reports: Positive
    seed: int = 0

    def open(self, name: str) -> ReportCorpus:
        return report_corpus(self, name)


# -- Phrases of pathology reports that say little or nothing about morphology, and diagnoses.


@dataclass(frozen=True)
class Phrases:
    """What the reports of one organ are made of, besides findings.

    `{}` stands for a number or a letter. `diagnoses` are by world and class.
    """

    specimens: tuple[str, ...]
    histories: tuple[str, ...]
    gross: tuple[str, ...]
    asides: tuple[str, ...]
    diagnoses: dict[str, dict[str, tuple[str, ...]]]


HEADERS = (
    "SURGICAL PATHOLOGY REPORT. Case {}-{}. Date of procedure: [date].",
    "Final pathology report. Accession S{}-{}. Ordering physician: [name].",
    "Path report, page 1 of {}. Specimen number {}. Age: [age].",
    "SPECIMENS SUBMITTED: part {}. Received [date]. Lab no {}.",
    "Patient: [name]. MRN: [removed]. Report status: final. {} slides, {} blocks.",
    "Pathology consultation, copy no {}. Criteria: [yes] [no]. Initials: [initials]. Form {}.",
)
BLOCKS = (
    "Block key: A1-A{} tumor, B{} adjacent tissue.",
    "Representative sections are submitted in cassettes {} through 1{}.",
    "Sections: B1 margin, B2-B1{} lesion, C{} nodes.",
    "Inked black; sectioned at {} mm intervals; block {} held for study.",
)
CLOSINGS = (
    "Electronically signed by the attending pathologist.",
    "The attending pathologist reviewed all slides and agrees with this report.",
    "Immunostains were performed with appropriate controls.",
    "Results were discussed with the surgeon by telephone.",
    "Intraoperative consultation: see frozen section form.",
    "An addendum will follow.",
)
UNDECIDED = (
    "see microscopic description",
    "see comment",
    "pending further studies",
    "as described",
)

BREAST = Phrases(
    specimens=(
        "left breast, mastectomy",
        "right breast, lumpectomy with needle localization",
        "left breast and axillary contents, modified radical mastectomy",
        "right breast, excisional biopsy",
        "sentinel lymph node and breast, excision",
    ),
    histories=(
        "Clinical history: palpable mass in the upper outer quadrant.",
        "Clinical history: abnormal mammogram with microcalcifications.",
        "Preoperative diagnosis: breast lesion, {} o'clock.",
        "Postmenopausal woman with a lesion of {} mm on ultrasound.",
        "No history of prior biopsy is given.",
    ),
    gross=(
        "Received in formalin is a breast specimen measuring 1{} x 1{} x {} cm.",
        "The specimen weighs {}20 grams and is covered by an unremarkable skin ellipse.",
        "Cut surfaces show a firm gray-white area of 2.{} x 1.{} cm.",
        "The nipple and areola are unremarkable.",
        "The remaining parenchyma is yellow and lobulated.",
        "A biopsy cavity of {} cm is identified.",
    ),
    asides=(
        "Margins of resection are free; the closest is deep at {} mm.",
        "Inked margins cannot be assessed.",
        "Estrogen receptor {}0 percent, progesterone receptor {}0 percent.",
        "HER2 is pending; block A{} is suitable.",
        "{} of 1{} axillary nodes examined.",
        "The skin and nipple are not involved.",
        "Microcalcifications are present.",
        "Pathologic stage: pT2, pNX.",
        "Lymphovascular space invasion is not identified.",
    ),
    diagnoses={
        "pcam": {
            "no_tumor": (
                "lymph node, negative for malignancy",
                "reactive lymph node",
                "benign node",
            ),
            "tumor": (
                "metastatic carcinoma involving a lymph node",
                "lymph node positive for tumor",
                "nodal metastasis of mammary carcinoma",
            ),
        },
        "bach": {
            "Benign": ("fibrocystic change with adenosis", "benign proliferative change"),
            "InSitu": (
                "ductal carcinoma in situ, intermediate nuclear grade",
                "intraductal carcinoma, solid and comedo pattern",
            ),
            "Invasive": (
                "infiltrating ductal carcinoma, moderately differentiated",
                "invasive mammary carcinoma, Nottingham score 7",
            ),
            "Normal": ("no significant pathologic abnormality", "unremarkable breast parenchyma"),
        },
    },
)

COLON = Phrases(
    specimens=(
        "sigmoid colon, segmental resection",
        "right colon, hemicolectomy",
        "rectum, low anterior resection",
        "cecum and terminal ileum, resection",
        "left colon with mesocolon, resection",
    ),
    histories=(
        "Clinical history: change of bowel habit and anemia.",
        "Clinical history: colon mass at {}0 cm on colonoscopy.",
        "Preoperative diagnosis: obstructing lesion.",
        "History of polyps, {} removed earlier.",
        "No clinical information is provided.",
    ),
    gross=(
        "Received fresh is a segment of large bowel measuring 2{} cm in length and {} cm across.",
        "The serosa is smooth and glistening.",
        "Opening reveals an ulcerated lesion of {} x 3.{} cm.",
        "The wall is up to 1.{} cm thick.",
        "The pericolic tissue is dissected for nodes.",
        "The appendix measures {} cm and is unremarkable.",
    ),
    asides=(
        "Proximal and distal margins are negative; the radial margin is {} mm away.",
        "Mesenteric margin not involved.",
        "{} of 1{} regional nodes examined.",
        "Pathologic stage: pT3, pNX, pMX.",
        "Mismatch repair proteins are retained.",
        "Perineural invasion is not identified.",
        "Tumor budding: {} per field.",
        "KRAS testing on block A{} is pending.",
        "The anastomotic rings are free of tumor.",
    ),
    diagnoses={
        "crc": {
            "ADI": ("extension into pericolic fat", "subserosal adipose tissue involved"),
            "BACK": ("scant material, limited evaluation", "insufficient tissue on the slide"),
            "DEB": ("largely necrotic tumor", "ulcer with necrotic debris"),
            "LYM": ("prominent lymphoid reaction", "lymphoid aggregates, Crohn-like reaction"),
            "MUC": ("tumor with mucinous features", "mucinous component with mucin pools"),
            "MUS": ("tumor reaches the muscularis propria", "bowel wall with muscularis propria"),
            "NORM": ("unremarkable colonic mucosa", "colonic mucosa, no dysplasia"),
            "STR": ("prominent desmoplastic reaction", "fibrosis and desmoplastic tumor stroma"),
            "TUM": (
                "invasive adenocarcinoma, moderately differentiated",
                "colonic adenocarcinoma, low grade",
            ),
        }
    },
)
PHRASES = {"breast": BREAST, "colon": COLON}


# -- The words that captions and reports share: graded findings with synonyms, and tissue names.


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


# -- One-line image captions, as in the figures that pathology CLIPs learn from.


SHORTEST_CAPTION, LONGEST_CAPTION = 8, 25
NAMED, OMITTED_IN_CAPTION = 0.6, 0.25
FRAMES = (
    "{}",
    "H&E section showing {}",
    "microscopy of {}",
    "histology with {}",
    "high power view of {}",
    "photomicrograph, {}",
    "tissue section with {}",
)
LONG_FRAMES = (
    "photomicrograph of a hematoxylin and eosin stained tissue section showing {}",
    "high magnification view of a routine H&E stained section with {}",
)


def captions(world: str, latents: Latents, rng: np.random.Generator) -> list[str]:
    """One caption a patch, of 8 to 25 words.

    A caption names some of the findings, each left out now and then, and in six of ten the kind
    of tissue, by the text of its class or a synonym.

    Raises:
        ClipItError: the world is unknown.
    """
    kinds = world_named(world)
    names = [
        (text, *TISSUES[world][name])
        for name, text in zip(kinds.classes, kinds.class_texts, strict=True)
    ]
    return [_caption(names[latents.label[k]], latents, k, rng) for k in range(len(latents))]


def _caption(names: tuple[str, ...], latents: Latents, row: int, rng: np.random.Generator) -> str:
    parts = [pick(rng, names)] if rng.random() < NAMED else []
    parts += findings(field_of(latents, row), rng, OMITTED_IN_CAPTION)[: 2 + int(rng.integers(4))]
    frame = pick(rng, FRAMES)
    while _words(frame.format(joined(parts))) > LONGEST_CAPTION:
        parts.pop()
    if _words(frame.format(joined(parts))) < SHORTEST_CAPTION:
        frame = pick(rng, LONG_FRAMES)
    return frame.format(joined(parts))


def joined(parts: list[str]) -> str:
    """Phrases as an enumeration."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


def _words(text: str) -> int:
    return len(text.split())


# -- The grammar of a pathology report on the phantom.


SHORTEST_REPORT, LONGEST_REPORT = 60, 250
OMITTED_IN_REPORT, UNDECIDED_SHARE = 0.3, 0.25
DOMINANT = (
    "Microscopic examination shows {}.",
    "Sections show {}.",
    "Histology: {}.",
    "The slides demonstrate {}.",
    "Microscopic description: {}.",
    "Most of the material consists of {}.",
)
FURTHER = ("Also noted: {}.", "Further findings are {}.", "Also present: {}.")
OTHER = ("Other sections contain {}.", "In other blocks: {}.", "Additional blocks show {}.")
BESIDE = (
    "The adjacent tissue shows {}.",
    "Elsewhere, {}.",
    "At the periphery: {}.",
    "A separate fragment has {}.",
)


def write_report(organ: str, rng: np.random.Generator) -> str:
    """One report of 60 to 250 words on a case drawn from the worlds of this organ.

    A case is four fields: two of its dominant kind and two of other kinds.
    """
    phrases = PHRASES[organ]
    worlds = [world for world in WORLDS.values() if world.organ == organ]
    kinds = [(world.name, label) for world in worlds for label in range(len(world.classes))]
    world, label = kinds[int(rng.integers(len(kinds)))]
    fields = _case(world, label, rng)
    sections = [
        _filled(pick(rng, HEADERS), rng),
        f"{pick(rng, ('Specimen', 'Source', 'Procedure'))}: {pick(rng, phrases.specimens)}.",
        *_some(phrases.histories, 1, rng),
        *_some(phrases.gross, int(rng.integers(1, 4)), rng),
        *_some(BLOCKS, 1, rng),
        *_microscopy(fields, rng),
        *_some(phrases.asides, int(rng.integers(1, 4)), rng),
        _diagnosis(phrases, world, label, rng),
        *_some(CLOSINGS, 1, rng),
    ]
    return _within_length(sections, phrases, rng)


def _case(world: str, label: int, rng: np.random.Generator) -> list[Field]:
    others = [k for k in range(len(WORLDS[world].classes)) if k != label]
    labels = np.array([label, label, *rng.choice(others, 2)])
    latents = draw(world, labels, np.zeros(4, np.int64), rng)
    return [field_of(latents, row) for row in range(4)]


def _microscopy(fields: list[Field], rng: np.random.Generator) -> list[str]:
    """Sentences on the dominant kind, then, less fully, on what else is there."""
    first, second = (
        findings(fields[0], rng, OMITTED_IN_REPORT),
        findings(fields[1], rng, 2 * OMITTED_IN_REPORT),
    )
    sentences = [pick(rng, DOMINANT).format(joined(first[:3]))]
    if first[3:]:
        sentences.append(pick(rng, FURTHER).format(joined(first[3:6])))
    repeated = set(first)
    rest = [phrase for phrase in second if phrase not in repeated]
    if rest:
        sentences.append(pick(rng, OTHER).format(joined(rest[:3])))
    for field in fields[2:]:
        if rng.random() >= OMITTED_IN_REPORT:
            sentences.append(
                pick(rng, BESIDE).format(joined(findings(field, rng, OMITTED_IN_REPORT)[:2]))
            )
    return sentences


def _diagnosis(phrases: Phrases, world: str, label: int, rng: np.random.Generator) -> str:
    known = phrases.diagnoses[world][WORLDS[world].classes[label]]
    text = pick(rng, UNDECIDED if rng.random() < UNDECIDED_SHARE else known)
    head = pick(rng, ("DIAGNOSIS", "Final diagnosis", "Diagnosis", "Impression"))
    return f"{head}: {_filled(text, rng)}."


def _some(options: tuple[str, ...], count: int, rng: np.random.Generator) -> list[str]:
    """`count` different sentences, in their order, with their numbers filled in."""
    rows = sorted(rng.permutation(len(options))[:count])
    return [_filled(options[row], rng) for row in rows]


def _filled(text: str, rng: np.random.Generator) -> str:
    return text.format(*(int(n) for n in rng.integers(1, 10, text.count("{}"))))


def _within_length(sections: list[str], phrases: Phrases, rng: np.random.Generator) -> str:
    """The sections as one text: padded with asides if short, cut if long."""
    while len(" ".join(sections).split()) < SHORTEST_REPORT:
        sections.insert(-1, _some(phrases.asides, 1, rng)[0])
    return " ".join(" ".join(sections).split()[:LONGEST_REPORT])


# -- Texts on the phantom: report corpora, and image-caption pairs to train its CLIP on.


# First spawn keys of the seed streams kept apart from those of data sets, which start with the
# number of a world: so no seed can make the patients of one appear in another.
PRETRAINING, REPORTS = 1000, 2000
ORGANS = ("breast", "colon")
# "world/class", in the order of the class ids of `pretraining_pairs`.
PRETRAINING_CLASSES = tuple(f"{w.name}/{c}" for w in WORLDS.values() for c in w.classes)
LICENCE = "generated by this library; MIT, as the library"


def report_corpus(settings: PhantomCorpus, name: str) -> ReportCorpus:
    """`settings.reports` different reports on one organ; the first do not depend on how many."""
    ids = tuple(f"phantom-{settings.organ}-{k + 1:04d}" for k in range(settings.reports))
    texts: dict[str, None] = {}
    for number in range(settings.reports):
        key = (REPORTS, ORGANS.index(settings.organ), number)
        rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=key))
        while len(texts) == number:
            texts[write_report(settings.organ, rng)] = None
    return ReportCorpus(
        name=name,
        ids=ids,
        texts=tuple(texts),
        organ=settings.organ,
        content_hash=digest(*ids, *texts),
        licence=LICENCE,
    )


def pretraining_pairs(
    images: int, side: int, seed: int
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Image-caption pairs from all worlds, for encoders that know no data set.

    Their patients are in no data set: latents, captions and pixels come from the seed stream
    (seed, PRETRAINING), which no data set uses whatever its seed.

    Returns:
        pixels [n, side, side, 3] uint8, n captions, and class ids [n] int64 into
        `PRETRAINING_CLASSES`.
    """
    seeds = np.random.SeedSequence(seed, spawn_key=(PRETRAINING,))
    label_seeds, pixel_seeds, *world_seeds = seeds.spawn(2 + len(WORLDS))
    ids = balanced_labels(images, len(PRETRAINING_CLASSES), np.random.default_rng(label_seeds))
    parts, texts, rows, start = [], [], [], 0
    for world, child in zip(WORLDS.values(), world_seeds, strict=True):
        stop = start + len(world.classes)
        here = np.flatnonzero((ids >= start) & (ids < stop))
        latent_rng, text_rng = np.random.default_rng(child).spawn(2)
        patients = PATIENTS_PER_SPLIT * len(SPLITS) + np.arange(len(here)) // PATCHES_PER_PATIENT
        part = draw(world.name, ids[here] - start, patients, latent_rng)
        parts.append(part)
        texts += captions(world.name, part, text_rng)
        rows.append(here)
        start = stop
    order = np.argsort(np.concatenate(rows))
    pixels = render(
        Latents.concatenate(parts).take(order), side, int(pixel_seeds.generate_state(1)[0])
    )
    return pixels, [texts[k] for k in order], ids
