"""Patches with labels: the data set contract, splits, the cache of pixels, transforms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from threadpoolctl import threadpool_limits
from torch import Tensor

from clipit_lib import files, paths
from clipit_lib.compute import on_device
from clipit_lib.errors import ClipItError
from clipit_lib.files import canonical_json, digest, progress, whole, write_text
from clipit_lib.settings import Fraction, Strict


class ValidationSplit(Strict):
    """How validation samples are taken when the data set brings none, see `with_validation`."""

    by: Literal["official", "stratified", "group", "stain"] = "official"
    fraction: Fraction = 0.1
    seed: int = 0


class PatchData(Strict):
    """How a data set is declared; a kind of data set is a subclass that has a recipe for it.

    Attributes:
        corpus: name of the report corpus that it is paired with.
    """

    corpus: str

    def recipe(self, name: str) -> Recipe:
        """How its patches are made, from a look at its files that decodes none.

        Raises:
            ClipItError: files are missing, damaged or do not fit the settings.
        """
        raise NotImplementedError

    def open(self, name: str) -> PatchDataset:
        """The data set, decoded or drawn into the cache if need be; see `open_or_build`."""
        return open_or_build(self.recipe(name))

    @property
    def paper_name(self) -> str | None:
        """The data set of the paper that this is or mirrors: PCAM, BACH, CRC, or None."""
        return None


# -- What every data set offers, whatever its files look like.


Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class PatchDataset:
    """Decoded patches with labels and splits.

    Attributes:
        name: as the profile calls it.
        classes: class names; a label is an index into them.
        class_texts: how a sentence names each class, in the same order.
        samples: one row a patch: id (str), split, label (int), group (str, "" if unknown).
        pixels: [n, side, side, 3] uint8, memory-mapped, in the order of `samples`.
        content_hash: digest of pixels, labels, splits and groups.
        licence: terms of the images, to be shown before use.
        limits: what a reader of any result on these data must know.
        notes: what was passed over or is unusual in the files, and is no error; one line each.
    """

    name: str
    classes: tuple[str, ...]
    class_texts: tuple[str, ...]
    samples: pd.DataFrame
    pixels: np.ndarray
    content_hash: str
    licence: str = "not stated"
    limits: str = ""
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> np.ndarray:
        """[n] int64."""
        return self.samples["label"].to_numpy()

    def indices(self, split: Split) -> np.ndarray:
        """Row numbers of one split, [m] int64, ascending."""
        return np.flatnonzero((self.samples["split"] == split).to_numpy())

    def validate(self) -> None:
        """Raise, as ClipItError, at the first thing that every consumer relies on and is not so."""
        shape = (len(self.samples), self.pixels.shape[1], self.pixels.shape[1], 3)
        self._require(self.pixels.dtype == np.uint8, f"pixels are {self.pixels.dtype}, not uint8")
        self._require(self.pixels.shape == shape, f"pixels {self.pixels.shape}, expected {shape}")
        self._require(len(self.class_texts) == len(self.classes), "class_texts and classes differ")
        self._require(self.samples["id"].is_unique, "sample ids are not unique")
        inside = self.samples["label"].between(0, len(self.classes) - 1)
        self._require(bool(inside.all()), f"labels outside 0..{len(self.classes) - 1}")
        for split in ("train", "validation", "test"):
            present = set(self.samples.loc[self.samples["split"] == split, "label"])
            missing = [self.classes[c] for c in range(len(self.classes)) if c not in present]
            self._require(not missing, f"no {split} patches of {', '.join(missing)}")
        spread = self.samples[self.samples["group"] != ""].groupby("group")["split"].nunique()
        shared = spread[spread > 1]
        fix = "Put every group into one split only"
        self._require(shared.empty, f"group {shared.index.min()} is in several splits", fix)

    def _require(self, holds: bool, what: str, fix: str = "Fix the data or its settings") -> None:
        if not holds:
            raise ClipItError(what, f"data set {self.name}", fix)


# -- Validation samples for data sets that bring none; the test split is never touched.


CLUSTERS = 9
# Units among which pairs are tried for an exchange: enough for any share, and memory is bounded.
EXCHANGED = 300
# Optical density of each byte value; one is added so that black stays finite.
OPTICAL_DENSITY = -np.log((np.arange(256) + 1) / 256)


def with_validation(
    samples: pd.DataFrame, split: ValidationSplit, stain: np.ndarray | None = None,
    classes: Sequence[str] = (),
) -> pd.DataFrame:  # fmt: skip
    """Move about `fraction` of the train samples to validation; a split that exists is kept.

    `stratified` draws patches in each class, `group` whole groups (a patch without one counts as
    one of its own), and `stain` whole clusters of stain colour in each class, for data without
    slide ids: patches of a slide share its stain, so a random split can be answered by colour alone
    (in crc5 colour answers 94% of a random split and 54% of the test).

    Args:
        samples: one row a patch: id, split, label, group.
        stain: [n, 6] of every row, see `stain_features`; for `stain` only.
        classes: names for messages; without them classes are numbered.

    Raises:
        ClipItError: `official` without validation samples; `group` without groups, any other draw
            with them; a class or the train split cannot be divided.
    """
    if (samples["split"] == "validation").any():
        return samples
    train = np.flatnonzero(samples["split"] == "train")
    labels, groups = (samples[name].to_numpy()[train] for name in ("label", "group"))
    rng = np.random.default_rng(split.seed)
    if split.by == "official":
        raise _error("the data set brings no validation samples", "Use stratified, group or stain")
    if split.by == "group":
        held = _by_group(groups, labels, split.fraction, rng)
    else:
        several = pd.Series(groups[groups != ""]).value_counts() > 1
        if several.any():
            what = f"{split.by} would divide {several.sum()} groups that are known"
            raise _error(what, "Write `validation_split: {by: group, fraction: 0.2}`")
        held = np.zeros(len(train), bool)
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            colours = None if stain is None else stain[train[rows]]
            name = classes[label] if classes else str(label)
            held[rows] = _within_class(len(rows), split, colours, rng, f"class {name} has a single")
    column = samples["split"].to_numpy(dtype=object, copy=True)
    column[train[held]] = "validation"
    return samples.assign(split=column)


def stain_features(pixels: np.ndarray) -> np.ndarray:
    """Mean and standard deviation [n, 6] of each channel's optical density, of pixels uint8
    [n, side, side, 3].
    """
    moments = []
    for begin in range(0, len(pixels), BLOCK):
        block = pixels[begin : begin + BLOCK]
        counts = [[np.bincount(c.ravel(), minlength=256) for c in p.T] for p in block]
        share = np.array(counts) / (pixels.shape[1] * pixels.shape[2])
        mean = share @ OPTICAL_DENSITY
        variance = share @ OPTICAL_DENSITY**2 - mean**2
        moments.append(np.concatenate([mean, np.sqrt(variance.clip(min=0))], axis=1))
    return np.concatenate(moments)


def _within_class(
    count: int, split: ValidationSplit, stain: np.ndarray | None, rng: np.random.Generator,
    single: str,
) -> np.ndarray:  # fmt: skip
    """Which of the `count` patches of one class are held out, by chance or by colour."""
    if split.by == "stratified":
        if count < 2:
            raise _error(f"{single} train patch", "Add patches of it")
        held = np.zeros(count, bool)
        held[rng.permutation(count)[: min(max(1, round(split.fraction * count)), count - 1)]] = True
        return held
    assert stain is not None
    clusters = _clusters(stain, split.seed)
    counts = np.bincount(clusters)[:, None]
    if len(counts) < 2:
        raise _error(f"{single} stain colour", "Use stratified")
    return _hold_out(counts, split.fraction, rng)[clusters]


def _by_group(
    groups: np.ndarray, labels: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray:
    if (groups == "").all():
        raise _error("no train patch has a group", "Use stratified or stain, or add groups")
    # No name that a file could hold.
    groups = np.where(groups == "", [f"\0{row}" for row in range(len(groups))], groups)
    if len(np.unique(groups)) < 2:
        raise _error("all train patches are of one group", "Use stratified or stain")
    counts = pd.crosstab(groups, labels)
    chosen = _improved(_hold_out(counts.to_numpy(), fraction, rng), counts.to_numpy(), fraction)
    return np.isin(groups, counts.index[chosen].to_numpy())


def _clusters(features: np.ndarray, seed: int) -> np.ndarray:
    """Cluster number of each row, [n]."""
    from sklearn.cluster import KMeans  # slow to import, and seldom needed

    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    count = min(CLUSTERS, len(np.unique(scaled, axis=0)))
    # Sums in another order round differently: one thread keeps the split the same everywhere.
    with threadpool_limits(1):
        found = KMeans(count, n_init=10, random_state=seed).fit_predict(scaled)
    return np.unique(found, return_inverse=True)[1]


def _hold_out(counts: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Choose whole units, in random order, while they bring every class nearer to `fraction`.

    Of counts [units, classes]: [units] bool, at least one and not all.
    """
    target = fraction * counts.sum(axis=0)
    chosen = np.zeros(len(counts), bool)
    held = np.zeros_like(target)
    for unit in rng.permutation(len(counts)):
        if np.abs(held + counts[unit] - target).sum() < np.abs(held - target).sum():
            chosen[unit] = True
            held += counts[unit]
    if not chosen.any():
        chosen[np.abs(counts - target).sum(axis=1).argmin()] = True
    if chosen.all():
        chosen[counts.sum(axis=1).argmax()] = False
    return chosen


def _improved(chosen: np.ndarray, counts: np.ndarray, fraction: float) -> np.ndarray:
    """Exchange or move single units while that brings the classes nearer to `fraction`.

    A single pass can leave one class far off. The squared distance falls at every step: this ends.
    """
    target = fraction * counts.sum(axis=0)
    # Moving unit i across changes the held counts by +counts[i] or -counts[i]; the last is no move.
    while True:
        movable = np.where(chosen[:EXCHANGED, None], -counts[:EXCHANGED], counts[:EXCHANGED])
        change = np.vstack([movable, np.zeros_like(counts[:1])])
        off = counts[chosen].sum(axis=0) - target
        distance = ((off + change[:, None] + change[None]) ** 2).sum(axis=2)
        np.fill_diagonal(distance, np.inf)
        first, second = np.unravel_index(distance.argmin(), distance.shape)
        if distance[first, second] >= (off**2).sum() - 1e-9:
            return chosen
        moved = chosen.copy()
        for unit in (first, second):
            if unit < len(movable):
                moved[unit] = ~moved[unit]
        if moved.all() or not moved.any():
            return chosen
        chosen = moved


def _error(what: str, fix: str) -> ClipItError:
    return ClipItError(what, "validation_split", fix)


# -- Decoded patches: written once as plain bytes, opened as a memory map ever after.


VERSION = 1
BLOCK = 256
PIXELS, SAMPLES, MADE = "pixels.npy", "samples.parquet", "dataset.json"


class Undecoded(NamedTuple):
    """Samples (id, split, label, group) whose pixels are still to be made.

    `decode` makes rows `begin` to `end` as uint8 [end - begin, side, side, 3]; `notes` is called
    once all are decoded, see `PatchDataset.notes`.
    """

    samples: pd.DataFrame
    decode: Callable[[int, int], np.ndarray]
    notes: Callable[[], list[str]] = list


@dataclass(frozen=True)
class Recipe:
    """How to make a data set, and what tells it from every other.

    Attributes:
        declaration: all that can change the patches; another declaration is another cache.
        gather: called only when the patches are not in the cache yet.
        validation_split: None for patches that are no data set of their own (not validated).
        notes: seen before anything is decoded; see `PatchDataset.notes`.
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
    notes: tuple[str, ...] = ()

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

    Raises:
        ClipItError: the cache cannot be written, is damaged, or was made from other settings;
            whatever `gather`, `decode` and `PatchDataset.validate` raise.
    """
    return _open(files.kept(recipe.folder, lambda beside: _build(beside, recipe)), recipe)


def _build(folder: Path, recipe: Recipe) -> None:
    samples, decode, found = recipe.gather()
    folder.mkdir()
    shape = (len(samples), recipe.side, recipe.side, 3)
    pixels_hash = _write_pixels(folder / PIXELS, shape, decode, recipe.name)
    split, notes = recipe.validation_split, found()
    if split is not None:
        if split.by == "group" and not (samples["split"] == "validation").any():
            alone = ((samples["split"] == "train") & (samples["group"] == "")).sum()
            said = f"{alone} train patches have no group: each was drawn as one of its own"
            notes += [said] if alone else []
        pixels = np.load(folder / PIXELS, mmap_mode="r")
        stain = stain_features(pixels) if split.by == "stain" else None
        samples = with_validation(samples, split, stain, recipe.classes)
    samples.to_parquet(folder / SAMPLES, index=False)
    columns = {name: samples[name].tolist() for name in ("id", "label", "split", "group")}
    made = recipe.made_by | {
        "name": recipe.name,
        "shape": list(shape),
        "content_hash": digest(pixels_hash, canonical_json(columns)),
        "notes": notes,
    }
    write_text(folder / MADE, json.dumps(made, indent=1))
    dataset = _open(folder, recipe)
    if split is not None:  # before it is moved into place: what does not hold is never kept
        dataset.validate()
    for note in dataset.notes:
        print(f"{recipe.name}: {note}", flush=True)


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


def _open(folder: Path, recipe: Recipe) -> PatchDataset:
    fix = f"Delete the folder {folder} and run again"
    with whole(folder / MADE, fix):
        made = json.loads((folder / MADE).read_text(encoding="utf-8"))
    expected = json.loads(canonical_json(recipe.made_by))
    if not isinstance(made, dict) or {key: made.get(key) for key in expected} != expected:
        raise ClipItError("the patches were made from other settings", folder / MADE, fix)
    with whole(folder / PIXELS, fix):
        pixels = np.load(folder / PIXELS, mmap_mode="r")
        size = (folder / PIXELS).stat().st_size
    if list(pixels.shape) != made.get("shape") or size != pixels.offset + pixels.nbytes:
        what = f"pixels {pixels.shape}, expected {made.get('shape')}"
        raise ClipItError(what, folder / PIXELS, fix)
    with whole(folder / SAMPLES, fix):
        samples = pd.read_parquet(folder / SAMPLES)
    if len(samples) != len(pixels):
        what = f"{len(samples)} rows for {len(pixels)} patches"
        raise ClipItError(what, folder / SAMPLES, fix)
    return PatchDataset(
        recipe.name, recipe.classes, recipe.class_texts, samples, pixels,
        made["content_hash"], recipe.licence, recipe.limits,
        (*recipe.notes, *made.get("notes", ())),
    )  # fmt: skip


# -- Patches as network input, and light augmentation, on tensors in batches.


Patches = UInt8[Tensor, "b s s 3"] | Float[Tensor, "b s s 3"]


@dataclass(frozen=True)
class Transform:
    """Resize to `size` pixels, then normalise by the mean and deviation of each channel."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def __call__(self, pixels: Patches | np.ndarray) -> Float[Tensor, "b 3 size size"]:
        """Network input, float32, of patches as uint8 or as floats from 0 to 1; made on the
        accelerator, to which bytes are sent.
        """
        # A copy of an array: torch warns about read-only maps.
        patches = torch.from_numpy(np.array(pixels)) if isinstance(pixels, np.ndarray) else pixels
        patches = on_device(patches)
        scale = 255.0 if patches.dtype == torch.uint8 else 1.0
        images = patches.permute(0, 3, 1, 2).float().div(scale)
        if images.shape[-1] != self.size:
            shape = (self.size, self.size)
            # Bicubic overshoots at edges, beyond what a pixel can be.
            images = F.interpolate(
                images, shape, mode=self.interpolation, antialias=True, align_corners=False
            ).clamp(0, 1)
        mean, std = on_device(torch.tensor((self.mean, self.std))).view(2, 3, 1, 1)
        return (images - mean) / std


def augment(pixels: Patches, generator: torch.Generator, jitter: float = 0.1) -> Patches:
    """Turn, mirror and restain each patch at random; same shape, dtype and range as given.

    Args:
        pixels: uint8, or floats from 0 to 1.
        jitter: relative spread of each channel's optical density; half of it, as optical density,
            is the spread of brightness.
    """
    count = len(pixels)

    def normal(channels: int) -> Tensor:
        drawn = torch.randn(count, 1, 1, channels, generator=generator, device=generator.device)
        return drawn.to(pixels.device, non_blocking=True).clamp(-3, 3)

    # One of the eight symmetries of the square for each patch, all equally likely.
    drawn = torch.rand(3, count, 1, 1, 1, generator=generator, device=generator.device)
    upside_down, mirrored, transposed = (drawn < 0.5).to(pixels.device, non_blocking=True)
    turned = torch.where(upside_down, pixels.flip(1), pixels)
    turned = torch.where(mirrored, turned.flip(2), turned)
    turned = torch.where(transposed, turned.transpose(1, 2), turned)
    values = turned.float() if pixels.dtype == torch.uint8 else turned * 255
    density = -torch.log((values + 1) / 256)
    density = density * (1 + jitter * normal(3)) + 0.5 * jitter * normal(1)
    values = (256 * torch.exp(-density) - 1).clamp(0, 255)
    return values.round().to(torch.uint8) if pixels.dtype == torch.uint8 else values / 255
