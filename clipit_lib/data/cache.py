"""Decoded patches: written once as plain bytes, opened as a memory map ever after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from clipit_lib import paths
from clipit_lib.data.contract import PatchDataset
from clipit_lib.data.splits import stain_features, with_validation
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, locked, write_text, written_beside
from clipit_lib.progress import progress
from clipit_lib.settings import ValidationSplit

VERSION = 1
BLOCK = 256
PIXELS, SAMPLES, MADE = "pixels.npy", "samples.parquet", "dataset.json"
Read = TypeVar("Read")


class Undecoded(NamedTuple):
    """Samples whose pixels are still to be made.

    Attributes:
        samples: one row a patch: id, split, label, group.
        decode: rows `begin` to `end` as uint8 [end - begin, side, side, 3].
    """

    samples: pd.DataFrame
    decode: Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """How to make a data set, and what tells it from every other.

    Attributes:
        declaration: all that can change the patches; another declaration is another cache.
        gather: called only when the patches are not in the cache yet.
        validation_split: None for patches that are no data set of their own (not validated).
    """

    name: str
    declaration: dict[str, Any]
    classes: tuple[str, ...]
    class_texts: tuple[str, ...]
    side: int
    gather: Callable[[], Undecoded]
    validation_split: ValidationSplit | None
    licence: str
    limits: str

    @property
    def made_by(self) -> dict[str, Any]:
        """What a kept cache must say of itself."""
        split = self.validation_split
        return {
            "version": VERSION,
            "declaration": self.declaration,
            "classes": list(self.classes),
            "side": self.side,
            "validation_split": None if split is None else split.model_dump(mode="json"),
        }

    @property
    def folder(self) -> Path:
        key = digest(canonical_json(self.made_by))
        return paths.cache() / "patches" / f"{self.name}-{key}"


def open_or_build(recipe: Recipe) -> PatchDataset:
    """Open the data set from the cache; decode it into the cache first if it is not there.

    A build that is interrupted leaves nothing. Two processes that ask for the same data set
    build it once.

    Raises:
        ClipItError: the cache cannot be written, is damaged, or was made from other settings;
            whatever `gather`, `decode` and `PatchDataset.validate` raise.
    """
    folder = recipe.folder
    if not folder.exists():
        with locked(folder):
            if not folder.exists():
                _build(folder, recipe)
    return _open(folder, recipe)


def _build(folder: Path, recipe: Recipe) -> None:
    samples, decode = recipe.gather()
    with written_beside(folder) as temporary:
        temporary.mkdir()
        shape = (len(samples), recipe.side, recipe.side, 3)
        pixels_hash = _write_pixels(temporary / PIXELS, shape, decode, recipe.name)
        pixels = np.load(temporary / PIXELS, mmap_mode="r")
        if recipe.validation_split is not None:
            samples = _split(samples, pixels, recipe)
        samples.to_parquet(temporary / SAMPLES, index=False)
        made = recipe.made_by | {
            "name": recipe.name,
            "shape": list(shape),
            "content_hash": _content_hash(pixels_hash, samples),
        }
        write_text(temporary / MADE, json.dumps(made, indent=1))
        # Before it is moved into place: a data set that does not hold is never kept.
        dataset = _dataset(recipe, samples, pixels, made)
        if recipe.validation_split is not None:
            dataset.validate()


def _write_pixels(
    path: Path, shape: tuple[int, ...], decode: Callable[[int, int], np.ndarray], name: str
) -> str:
    """Stream blocks of patches into a .npy file; return the SHA-256 of the pixels."""
    state = hashlib.sha256()
    # Written, not mapped: on a full disk a write fails with a message, a map kills the process.
    with path.open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for begin in progress(range(0, shape[0], BLOCK), f"decode {name}"):
            end = min(begin + BLOCK, shape[0])
            block = np.ascontiguousarray(decode(begin, end))
            if block.dtype != np.uint8 or block.shape != (end - begin, *shape[1:]):
                raise ValueError(f"decode gave {block.dtype} {block.shape}")
            state.update(block.data)
            stream.write(block.data)
    return state.hexdigest()


def _split(samples: pd.DataFrame, pixels: np.ndarray, recipe: Recipe) -> pd.DataFrame:
    split, stain = recipe.validation_split, None
    assert split is not None
    if split.by == "stain":
        blocks = range(0, len(pixels), BLOCK)
        stain = np.concatenate([stain_features(pixels[i : i + BLOCK]) for i in blocks])
    return with_validation(samples, split, stain, recipe.classes)


def _content_hash(pixels_hash: str, samples: pd.DataFrame) -> str:
    columns = {name: samples[name].tolist() for name in ("id", "label", "split", "group")}
    return digest(pixels_hash, canonical_json(columns))


def _open(folder: Path, recipe: Recipe) -> PatchDataset:
    made = _read(folder / MADE, lambda path: json.loads(path.read_text(encoding="utf-8")))
    expected = json.loads(canonical_json(recipe.made_by))
    if not isinstance(made, dict) or {key: made.get(key) for key in expected} != expected:
        raise _unusable(folder / MADE, "the patches were made from other settings")
    pixels = _read(folder / PIXELS, lambda path: np.load(path, mmap_mode="r"))
    size = (folder / PIXELS).stat().st_size
    if list(pixels.shape) != made.get("shape") or size != pixels.offset + pixels.nbytes:
        raise _unusable(folder / PIXELS, f"pixels {pixels.shape}, expected {made.get('shape')}")
    samples = _read(folder / SAMPLES, pd.read_parquet)
    if len(samples) != len(pixels):
        raise _unusable(folder / SAMPLES, f"{len(samples)} rows for {len(pixels)} patches")
    return _dataset(recipe, samples, pixels, made)


def _dataset(
    recipe: Recipe, samples: pd.DataFrame, pixels: np.ndarray, made: dict[str, Any]
) -> PatchDataset:
    return PatchDataset(
        recipe.name, recipe.classes, recipe.class_texts, samples, pixels,
        made["content_hash"], recipe.licence, recipe.limits,
    )  # fmt: skip


def _read(path: Path, reader: Callable[[Path], Read]) -> Read:
    try:
        return reader(path)
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:100]
        raise _unusable(path, f"missing or damaged ({reason})") from error


def _unusable(path: Path, what: str) -> ClipItError:
    return ClipItError(what, path, f"Delete the folder {path.parent} and run again")
