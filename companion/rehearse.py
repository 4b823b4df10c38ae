"""The command `rehearse`: miniature data, weights and CONCH's package for a profile's rehearsal."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from string import ascii_lowercase
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from clipit_lib.compute import seeded
from clipit_lib.data.reports import own_terms
from clipit_lib.encoders import clips, registry
from clipit_lib.encoders.vision import timm_tower
from clipit_lib.errors import ClipItError
from clipit_lib.files import write_text, written_beside
from companion import rehearsal
from companion.conch import Conch
from companion.profile import FileSlides, Profile, load_profile
from companion.published import PARTS, SHAPES, SPLITS, BachData, OfThePaper
from companion.survival.cohort import Bag, write_bag
from companion.tcga import TcgaCorpus

# -- Data in the layouts of those who published them.

Images = Iterable[tuple[str, np.ndarray]]  # path and pixels [height, width, 3] uint8


def write_h5(folder: Path, part: str, kind: str, array: np.ndarray, key: str = "") -> Path:
    """One of PatchCamelyon's six files: patches `x` or labels `y` of a split as it is called."""
    path = folder / f"camelyonpatch_level_2_split_{part}_{kind}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as stream:
        chunks = (min(4, len(array)), *array.shape[1:]) if kind == "x" else None
        packing = {"chunks": chunks, "compression": "gzip"} if chunks else {}
        stream.create_dataset(key or kind, data=array, **packing)
    return path


def write_images(folder: Path, images: Images) -> None:
    """Images by their paths below a folder, as those of BACH and CRC: one folder per class."""
    for name, pixels in images:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)


def write_tcga(folder: Path, reports: Mapping[str, str], types: Mapping[str, str]) -> None:
    """TCGA-Reports as published and its table of cancer types, from texts and types by patient."""
    code = "25c0b433-5557-4165-922e-2c1eac9c26f0"  # any, of the scanned page
    texts = [(f"{patient}.{code}", text) for patient, text in reports.items()]
    for place, rows, columns in (
        (rehearsal.REPORTS["path"], texts, ["patient_filename", "text"]),
        (rehearsal.REPORTS["cancer_type_table"], types.items(), ["patient_id", "cancer_type"]),
    ):
        table = pd.DataFrame(rows, columns=columns)
        write_text(folder / Path(place).name, table.to_csv(index=False))


# -- Miniatures of them: classes differ by colour, so that there is something to learn.


def _pixels(rng: np.random.Generator, label: int, size: tuple[int, int]) -> np.ndarray:
    """An image of a class; noise on a coarse grid, as large photographs are cheaper so."""
    noise = rng.integers(0, 120, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    noise[..., label % 3] += np.uint8(30 + 10 * label)
    return noise.repeat(8, axis=0).repeat(8, axis=1)


def _pcam(folder: Path, data: OfThePaper) -> None:
    rng = np.random.default_rng(0)
    for part, split in SPLITS.items():
        labels = np.arange(data.published.images[split], dtype=np.uint8) % 2
        patches = np.stack([_pixels(rng, int(label), SHAPES["x"][:2]) for label in labels])
        write_h5(folder, part, "x", patches)
        write_h5(folder, part, "y", labels.reshape(-1, *SHAPES["y"]))


def _class_folders(folder: Path, data: OfThePaper) -> None:
    known, rng = data.published, np.random.default_rng(0)
    parts = {f"{part}/": known.images[split] for split, part in PARTS.items()}
    if isinstance(data, BachData):
        parts = {"": sum(known.images.values())}
    kinds = list(enumerate(zip(known.classes, known.prefixes, strict=True)))
    write_images(folder, (
        (f"{part}{name}/{prefix}{number:03d}.tif", _pixels(rng, label, known.image_size))
        for part, count in parts.items()
        for label, (name, prefix) in kinds
        for number in range(1, count // len(kinds) + 1)
    ))  # fmt: skip


MAKERS = {"pcam": _pcam, "bach": _class_folders, "crc": _class_folders}


def _tcga(folder: Path, corpora: Iterable[TcgaCorpus]) -> None:
    """Reports of every cancer type that is asked for, and of one that is not; some are long."""
    kinds = dict.fromkeys([kind for corpus in corpora for kind in corpus.cancer_types] + ["ACC"])
    numbers, rng = range(rehearsal.TABLE.reports), np.random.default_rng(0)
    types = {f"TCGA-{kind[:2]}-{number:04d}": kind for kind in kinds for number in numbers}
    reports = {
        patient: f"{kind}: {' '.join(rng.choice(own_terms(), 300 if n % 6 == 0 else 30))}."
        for n, (patient, kind) in enumerate(types.items())
    }
    write_tcga(folder, reports, types)


def _slides(bags: Path, clinical: Path, folds: int) -> None:
    """Slides as a survival study reads them, each a bag of features and of CONCH's embeddings."""
    table, rng = rehearsal.TABLE, np.random.default_rng(0)
    names = [f"TCGA-ZZ-{number:04d}" for number in range(table.slides)]
    for name in names:
        features, paired = np.split(rng.random((table.patches, 576), np.float32), [64], axis=1)
        write_bag(bags / f"{name}.h5", Bag(features, paired))
    numbers = np.arange(len(names))
    followed = {"slide": names, "time": 1 + numbers, "event": 1 - numbers // folds % 3 // 2,
                "fold": 1 + numbers % folds}  # fmt: skip
    write_text(clinical, pd.DataFrame(followed).to_csv(index=False))


# -- Random weights of every published model, of few blocks, in the files of their authors.


def untrained(name: str, depth: int) -> nn.Module:
    """A whole published model as its file has it, with random weights."""
    row = registry.entry(name, depth=depth)
    if row.library == "timm":
        return timm_tower(row, None)
    build = clips.LIBRARIES[row.library].build
    return Conch(depth) if row.library == "conch" else build(row, None, None)


def write_weights(path: Path, name: str) -> None:
    """A published model's file with random weights."""
    with seeded(0):
        model = untrained(name, rehearsal.TABLE.depth)
    parts = model if isinstance(model, nn.ModuleList) else [model]  # PLIP's halves are one file
    state = {key: value for part in parts for key, value in part.state_dict().items()}
    state = {key: value.contiguous() for key, value in state.items() if "decoder" not in key}
    origin = registry.published()[name]
    save: Callable[..., None] = save_file if origin.file.endswith("tensors") else torch.save
    save(state, path)
    if origin.vocabulary:  # as long as BERT's; there are letters where real ones have words, too
        letters = [begin + letter for begin in ("", "##") for letter in ascii_lowercase]
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
        pieces += [f"[unused{number}]" for number in range(len(pieces), 30522)]
        write_text(path.with_name(origin.vocabulary), "\n".join(pieces))


# -- CONCH's package, where its authors' is not installed: ours of its shape, found as theirs is.

PACKAGE = '''"""Stands in for CONCH's package in a rehearsal."""
from pathlib import Path
from types import SimpleNamespace

from companion.rehearse import create_model_from_pretrained, get_tokenizer

factory = SimpleNamespace(CFG_DIR=Path(__file__).parent)
'''
SPECIAL, TOKENS = 3, 32000  # ids: padding, start and end come first


def create_model_from_pretrained(
    config: dict[str, Any], path: str, return_transform: bool = False
) -> Conch:
    """As `conch.open_clip_custom` builds a model around its weights."""
    model = Conch(config["vision_cfg"]["layers"])
    model.load_state_dict(torch.load(path, weights_only=True), strict=False)
    return model


def get_tokenizer() -> Any:
    """OpenAI's pieces of words under other numbers, so that none is beyond CONCH's vocabulary."""
    pieces = clips.open_clip_tokenizer()

    def encode(text: str, **_: bool) -> list[int]:
        return [SPECIAL + number % TOKENS for number in pieces.encode(text)]

    return SimpleNamespace(encode=encode, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def _package(folder: Path) -> None:
    parts: dict[str, Any] = {"vision_cfg": {}, "text_cfg": {}, "multimodal_cfg": {}}
    inner = folder / "open_clip_custom"
    write_text(inner / "__init__.py", PACKAGE)
    write_text(inner / f"{clips.ARCHITECTURE}.json", json.dumps(parts))


# -- All that a rehearsal reads, made unless it is there.


def prepare(profile: Profile) -> None:
    """Make what a rehearsed profile reads."""
    for data in profile.data.values():
        assert isinstance(data, OfThePaper)
        _made(Path(data.folder), MAKERS[data.source], data)
    if reports := [each for each in profile.corpora.values() if isinstance(each, TcgaCorpus)]:
        _made(Path(reports[0].path).parent, _tcga, reports)
    if profile.survival and isinstance(slides := profile.survival.slides, FileSlides):
        _made(Path(slides.bags), _slides, Path(slides.clinical), profile.survival.folds)
    for name, folder in profile.weights.items():
        _made(Path(folder) / registry.published()[name].file, write_weights, name)
    try:
        clips.conch_package()
    except ClipItError:  # an empty folder of its name can be found, too, and is none
        _made(rehearsal.packages() / clips.CONCH_PACKAGE, _package)


def _made(target: Path, make: Callable[..., object], *about: Any) -> None:
    if not target.exists():
        with written_beside(target) as temporary:
            make(temporary, *about)


def main(options: Namespace) -> None:
    """Make the miniature data and weights that the rehearsal of a profile reads."""
    profile = load_profile(options.profile.removesuffix(rehearsal.SUFFIX) + rehearsal.SUFFIX)
    prepare(profile)
    print(f"{profile.name}: data and weights in {rehearsal.folder()}")
