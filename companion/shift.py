"""Test patches as another laboratory or scanner would have made them, and what is right then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional
from tqdm import tqdm

from clipit_lib.data.patches import PatchDataset, stain_features
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest, file_digest, kept
from clipit_lib.predict import load_classifier
from clipit_lib.runs import MODEL, StoredRun
from companion import paths, tables
from companion.profile import Workbench
from companion.specs import label
from companion.statistics import JUDGED, Cell, correct, crossed_gain, judgement, mean_recall, units

STRENGTHS = (1, 2, 3, 4, 5)
QUALITY = (60, 40, 25, 15, 8)  # of JPEG, by strength


def _blur(patches: Tensor, strength: int) -> Tensor:
    sigma = 0.35 * strength
    return functional.gaussian_blur(patches, 2 * int(np.ceil(3 * sigma)) + 1, sigma)


def _jpeg(patches: Tensor, strength: int) -> Tensor:
    read = []
    for patch in patches.permute(0, 2, 3, 1).numpy():
        file = BytesIO()
        Image.fromarray(patch).save(file, "JPEG", quality=QUALITY[strength - 1])
        read.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2)


def _resolution(patches: Tensor, strength: int) -> Tensor:
    side = patches.shape[-1]
    small = functional.resize(patches, [round(side / (1 + 0.4 * strength))])
    return functional.resize(small, [side, side])


# What is done to uint8 patches [b, 3, s, s]: a turn of all hues by 7 degrees per strength, a
# Gaussian of 0.35 pixels per strength, compression, and fewer pixels by 1 + 0.4 per strength.
SHIFTS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "stain": lambda patches, strength: functional.adjust_hue(patches, 0.02 * strength),
    "blur": _blur,
    "JPEG": _jpeg,
    "resolution": _resolution,
}
CONDITIONS = list(product(SHIFTS, STRENGTHS))
# What is compared: what text adds to the same adaptation, and what adaptation does.
PAIRS = (("lora_only", "clip_it"), ("clip_it/random_reports", "clip_it"), ("unimodal", "lora_only"))


def shifted(
    pixels: UInt8[np.ndarray, "n s s 3"], kind: str, strength: int
) -> UInt8[np.ndarray, "n s s 3"]:
    """Patches with one disturbance of one strength, 1 to 5."""
    patches = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
    return SHIFTS[kind](patches, strength).permute(0, 2, 3, 1).contiguous().numpy()


def hits(stored: Sequence[StoredRun], bench: Workbench) -> dict[str, Bool[np.ndarray, "k n"]]:
    """By run: which test samples it gets right under each of `CONDITIONS`, [conditions, n].

    Checkpoints answer, nothing is trained. Answers are kept in the cache, by what the weights are:
    on GPUs one key may have others.

    Raises:
        ClipItError: only predictions are at hand, or what `load_classifier` raises.
    """
    if bench.archive:
        fix = "Train the runs: leave out --from-predictions"
        raise ClipItError("shifts need checkpoints", bench.archive.folder, fix)
    recipe, found = digest(Path(__file__).read_text(encoding="utf-8")), {}
    for run in tqdm(stored, unit="run", disable=None):
        data = bench.dataset(run.spec.dataset)
        pixels, truth = (each[data.indices("test")] for each in (data.pixels, data.labels))

        def answer(path: Path, run: StoredRun = run, pixels: np.ndarray = pixels) -> None:
            model = load_classifier(run.folder)
            said = [
                model.probabilities(shifted(pixels, *each)).argmax(dim=1) for each in CONDITIONS
            ]
            with path.open("wb") as file:
                np.save(file, torch.stack(said).numpy().astype(np.int16))

        name = digest(recipe, run.key, file_digest(run.folder / MODEL))
        path = kept(paths.cache() / "shift" / f"{name}.npy", answer)
        found[run.key] = np.load(path) == truth
    return found


def accuracy_table(
    stored: Sequence[StoredRun], found: dict[str, Bool[np.ndarray, "k n"]]
) -> pd.DataFrame:
    """Balanced accuracy in percent of each run under each condition; strength 0 is undisturbed."""
    rows = []
    for run in stored:
        spec, predictions = run.spec, run.predictions()
        names = spec.dataset, spec.backbone, spec.setting, spec.seed
        usual, labels = correct(predictions), predictions["label"].to_numpy()
        each = {(kind, 0): usual for kind in SHIFTS} | dict(
            zip(CONDITIONS, found[run.key], strict=True)
        )
        for (kind, strength), right in each.items():
            rows.append((*names, kind, strength, mean_recall(right, labels)))
    columns = ["dataset", "backbone", "setting", "seed", "shift", "strength", "balanced_accuracy"]
    return pd.DataFrame(rows, columns=columns)


def gain_table(
    stored: Sequence[StoredRun], found: dict[str, Bool[np.ndarray, "k n"]]
) -> pd.DataFrame:
    """Gains of `PAIRS`, averaged over the strengths of each shift and over all of them, by cell.

    Conditions share seeds and patients (see `crossed_gain`). Columns: dataset, backbone, second,
    first, shift, `JUDGED`.
    """
    rows = []
    for (dataset, backbone), own in tables.by_cell(stored).items():
        by_name = {(run.spec.setting, run.spec.seed): run for run in own}
        seeds = sorted({seed for _, seed in by_name})
        samples = own[0].predictions()
        labels, groups = samples["label"].to_numpy(), units(samples)
        for first, second in PAIRS:
            if not all((name, seed) in by_name for name in (first, second) for seed in seeds):
                continue
            both = [
                np.stack([found[by_name[name, seed].key] for seed in seeds], axis=1)
                for name in (first, second)
            ]  # [conditions, seeds, n]
            cells = [
                Cell(dataset, one, two, labels, groups) for one, two in zip(*both, strict=True)
            ]
            for kind in (*SHIFTS, "all"):
                chosen = [
                    cell
                    for cell, (own_kind, _) in zip(cells, CONDITIONS, strict=True)
                    if kind in (own_kind, "all")
                ]
                gain = judgement(crossed_gain(chosen))
                rows.append((dataset, backbone, second, first, kind, *gain))
    columns = ["dataset", "backbone", "second", "first", "shift", *JUDGED]
    return pd.DataFrame(rows, columns=columns)


# -- No program: the test patients whose stain is unlike any that was learned from.

FARTHEST = 0.2  # of the test samples of each class


def farthest_stain(data: PatchDataset) -> pd.Series:
    """Whether the stain of each test sample is among the fifth of its class that is farthest from
    the training patches', by sample id.

    Distance is Euclidean, in standard deviations of each of `stain_features`; a sample has the mean
    of its patient's.
    """
    seen, tested = (stain_features(data.pixels[data.indices(s)]) for s in ("train", "test"))
    off = np.linalg.norm((tested - seen.mean(axis=0)) / seen.std(axis=0), axis=1)
    samples = data.samples.iloc[data.indices("test")]
    mean = pd.Series(off).groupby(units(samples, "id")).transform("mean")
    order = mean.groupby(samples["label"].to_numpy()).rank(method="first", ascending=False)
    size = order.groupby(samples["label"].to_numpy()).transform("size")
    return (order <= np.ceil(FARTHEST * size)).set_axis(samples["id"])


def stain_table(stored: Sequence[StoredRun], bench: Workbench) -> pd.DataFrame:
    """Gains of `PAIRS` where the stain is farthest and elsewhere, by cell, of stored predictions.

    Columns: dataset, backbone, second, first, stain, `JUDGED`.
    """
    rows = []
    for (dataset, backbone), own in tables.by_cell(stored).items():
        far = farthest_stain(bench.dataset(dataset))[own[0].predictions()["sample"]].to_numpy()
        here = {run.spec.setting for run in own}
        for first, second in (pair for pair in PAIRS if here.issuperset(pair)):
            cell = tables.paired_cell(own, dataset, backbone, first, second)[1]
            parts = (("farthest", far), ("other", ~far))
            for name, part in (each for each in parts if each[1].any()):
                both = cell.first[:, part], cell.second[:, part]
                kept = Cell(dataset, *both, cell.labels[part], cell.groups[part])
                rows.append(
                    (dataset, backbone, second, first, name, *judgement(crossed_gain([kept])))
                )
    return pd.DataFrame(rows, columns=["dataset", "backbone", "second", "first", "stain", *JUDGED])


def words(gains: pd.DataFrame) -> str:
    """The gains in words, one item each."""
    named = gains.assign(
        said=tables.judged_words(gains),
        over=gains["second"].map(label) + " over " + gains["first"].map(label),
    )
    shown = "{shift}" if "shift" in gains else "{stain} stain"
    return tables.items(named, f"{{dataset}}, {shown}: {{over}} {{said}}")
