"""What a stored run holds inside: image, text and joint features of patches (appendix F.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import nn

from clipit_lib import text_stage
from clipit_lib.classifier import load_classifier
from clipit_lib.compute import device, stacked
from clipit_lib.data.contract import Split
from clipit_lib.embedding_space import chance_purity, knn_purity, silhouette, unit_length
from clipit_lib.errors import ClipItError
from clipit_lib.labels import choose_labels
from clipit_lib.paired_texts import SPLITS
from clipit_lib.runs import StoredRun
from clipit_lib.tables import run_table
from clipit_lib.tasks import BLOCK, Patches
from clipit_lib.workbench import Workbench


@dataclass(frozen=True)
class Embedded:
    """Features of the patches of one split, in the order of the data set.

    Attributes:
        image: [m, d] backbone features v.
        text: [m, e] distilled text features h_d(v), of whatever length the model gives them.
    """

    image: Float[np.ndarray, "m d"]
    text: Float[np.ndarray, "m e"]

    @property
    def joint(self) -> Float[np.ndarray, "m de"]:
        """[m, d + e], both at unit length, one beside the other."""
        return np.concatenate([unit_length(self.image), unit_length(self.text)], axis=1)


@torch.inference_mode()
def embed(run: StoredRun, bench: Workbench, split: Split) -> Embedded:
    """Features of a split by the deployed, image-only model of a run.

    Raises:
        ClipItError: the run predicts no text features; see also `classifier.load_classifier`.
    """
    model, image = _image_features(run, bench, split)
    if not isinstance(getattr(model, "distillation", None), nn.Linear):
        raise ClipItError(
            f"{run.spec.setting} has no text branch", run.folder, "Name a CLIP-IT run"
        )
    text = model.distillation(torch.from_numpy(image).to(device()))  # type: ignore[operator]
    return Embedded(image, text.float().cpu().numpy())


@torch.inference_mode()
def _image_features(
    run: StoredRun, bench: Workbench, split: Split
) -> tuple[nn.Module, Float[np.ndarray, "m d"]]:
    """The model of a run, and v of each patch."""
    classifier = load_classifier(run.folder)
    dataset = bench.dataset(run.spec.dataset)
    rows = dataset.indices(split)
    labels = torch.from_numpy(dataset.labels[rows])
    patches = Patches(dataset.pixels, rows, labels, classifier.transform)
    blocks = torch.arange(len(rows)).split(BLOCK)
    features = (classifier.model.backbone(patches.batch(each)).float().cpu() for each in blocks)  # type: ignore[operator]
    return classifier.model, stacked(features, len(rows)).numpy()


def paired_features(run: StoredRun, bench: Workbench, split: Split) -> Float[np.ndarray, "m e"]:
    """Unit-length features t of the text that each patch is paired with, as stage one left them.

    Raises:
        ClipItError: the run is paired with no text.
    """
    spec = run.spec
    if spec.text is None:
        raise ClipItError(f"{spec.setting} reads no reports", run.folder, "Name a run with text")
    labels = choose_labels(spec, bench.dataset(spec.dataset))
    paired, stage = text_stage.of_run(spec.text, bench, labels, SPLITS)
    features: np.ndarray = stage.features[torch.from_numpy(paired.chosen[split])].numpy()
    return features


def spaces(run: StoredRun, bench: Workbench, split: Split) -> dict[str, np.ndarray]:
    """Features [m, d] of the patches of a split by the name of their space.

    `image` always; with a text branch also the paired report's true features, the distilled
    features that the image predicts of them, and image and distilled features joined.
    """
    if run.spec.branch is None:
        return {"image": _image_features(run, bench, split)[1]}
    found = embed(run, bench, split)
    return {
        "image": found.image,
        "report": paired_features(run, bench, split),
        "distilled": found.text,
        "joint": found.joint,
    }


def space_table(
    runs: Sequence[StoredRun],
    bench: Workbench,
    sample: Int[np.ndarray, " k"],
    neighbours: int = 10,
) -> pd.DataFrame:
    """One row a run and space: how well the classes part among some test patches.

    Columns: those of `tables.run_table`, then space, silhouette (-1..1), purity and chance (0..1).

    Args:
        sample: positions within the test split.
    """
    rows = []
    for run in runs:
        dataset = bench.dataset(run.spec.dataset)
        labels = dataset.labels[dataset.indices("test")][sample]
        for space, features in spaces(run, bench, "test").items():
            row = run_table([run]).assign(
                space=space,
                silhouette=silhouette(features[sample], labels),
                purity=knn_purity(features[sample], labels, neighbours),
                chance=chance_purity(labels),
            )
            rows.append(row)
    return pd.concat(rows, ignore_index=True)


def result_sentences(table: pd.DataFrame, without: str, with_lora: str, control: str) -> str:
    """One Markdown item a space: how purity and silhouette change with LoRA; then the control.

    Args:
        table: `space_table` of one data set and backbone, with the three settings named.
    """
    means = table.groupby(["space", "setting"], sort=False)[["purity", "silhouette"]].mean()
    purity, shape = means["purity"].to_dict(), means["silhouette"].to_dict()
    items = [
        f"- {name}: of ten neighbours {10 * purity[name, without]:.1f} share the class without "
        f"LoRA, {10 * purity[name, with_lora]:.1f} with it; silhouette "
        f"{shape[name, without]:+.2f} and {shape[name, with_lora]:+.2f}."
        for name in dict.fromkeys(table["space"])
    ]
    return "\n".join(items) + (
        f"\n\nBy chance {10 * table['chance'].mean():.1f} of ten neighbours would share the class. "
        f"LoRA without any text brings the image space to {10 * purity['image', control]:.1f}, "
        f"CLIP-IT to {10 * purity['image', with_lora]:.1f}: only what lies between these two "
        "can be due to the text or to its branch."
    )
