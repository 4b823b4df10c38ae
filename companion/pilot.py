"""The pilot on real tissue: five classes of CRC patches and a stand-in retriever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from clipit_lib import paths
from clipit_lib.compute import device
from clipit_lib.data.folder import read_manifest, undecoded
from clipit_lib.data.patches import PatchDataset, Recipe, open_or_build
from clipit_lib.encoders import vision, weights
from clipit_lib.encoders.encoder import ClipEncoder, Tokenizer
from clipit_lib.encoders.vision import (
    STAND_IN_BACKBONE,
    STAND_IN_TARGETS,
    StandInImageTower,
    state_part,
)
from clipit_lib.encoders.vision import build_stand_in_image as build_image_tower
from clipit_lib.encoders.weights import State
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest, progress
from clipit_lib.losses import supervised_contrastive
from clipit_lib.settings import Crc5Data, StandInTraining, ValidationSplit
from clipit_lib.training import Stage, doubtful_place

# -- Short morphological descriptions of tissue classes, in our own words.
#
# They serve the stand-in retriever as captions, so that it learns what a class looks like in words
# without ever having read a report.


DESCRIPTIONS: dict[str, tuple[str, ...]] = {
    "adenocarcinoma": (
        "irregular cribriform glands with necrotic debris in the lumen",
        "infiltrating malignant glands in a desmoplastic stroma",
        "moderately differentiated colorectal adenocarcinoma with pleomorphic nuclei",
        "fused and angulated glands, loss of polarity and frequent mitoses",
        "invasive carcinoma with dirty necrosis and back-to-back glands",
        "poorly formed glands and single tumor cells invading the stroma",
    ),
    "healthy colon mucosa": (
        "evenly spaced straight crypts with abundant goblet cells",
        "normal colonic mucosa with basally oriented small nuclei",
        "regular round crypts in a lamina propria with plasma cells and lymphocytes",
        "unremarkable large bowel mucosa without dysplasia",
        "benign crypts with mucin-filled goblet cells and preserved architecture",
        "no evidence of malignancy, tumor-free mucosa",
    ),
    "serrated adenoma": (
        "saw-tooth serrated crypts with infolding of the epithelium",
        "dilated crypt bases with a boot or inverted T shape",
        "hyperplastic serrated epithelium with microvesicular mucin",
        "serrated polyp with stellate lumens and eosinophilic cytoplasm",
        "sessile serrated lesion of the colon",
        "traditional serrated adenoma with ectopic crypt formations",
    ),
    "tubular adenoma": (
        "crowded tubular glands with pencillate hyperchromatic nuclei",
        "tubular adenoma with low grade epithelial dysplasia",
        "closely packed branching tubules with pseudostratified nuclei",
        "adenomatous polyp with tubular architecture and mucin depletion",
        "mild intraepithelial neoplasia in a tubular adenoma of the colon",
        "elongated dark nuclei in rounded dysplastic crypts",
    ),
    "villous adenoma": (
        "long finger-like villi lined by dysplastic epithelium",
        "villous adenoma with fibrovascular cores",
        "papillary leaf-like fronds with stratified nuclei",
        "tubulovillous adenoma with high grade dysplasia",
        "slender villous projections extending from the surface",
        "frond-like adenomatous epithelium with abundant mucin",
    ),
}
FRAMES = (
    "{}",
    "an H&E image of {}",
    "a histopathological image showing {}",
    "colon biopsy: {}",
    "microscopic examination shows {}",
    "sections show {}",
    "diagnosis: {}",
)


def class_captions(class_text: str, count: int, rng: np.random.Generator) -> list[str]:
    """`count` captions of one class: its name, a description, or both, in a random frame.

    Raises:
        ClipItError: no description of this class is kept.
    """
    if class_text not in DESCRIPTIONS:
        raise ClipItError(
            f"no descriptions of {class_text!r}", __name__, f"Known: {', '.join(DESCRIPTIONS)}"
        )
    return [_caption(class_text, rng) for _ in range(count)]


def _caption(class_text: str, rng: np.random.Generator) -> str:
    described = str(rng.choice(DESCRIPTIONS[class_text]))
    form = rng.integers(3)
    content = (class_text, described, f"{class_text}, {described}")[form]
    return str(rng.choice(FRAMES)).format(content)


# -- The five-class colorectal patches, and the split that only the stand-in retriever sees.


CLASSES = ("AC", "H", "S", "T", "V")
CLASS_TEXTS = (
    "adenocarcinoma",
    "healthy colon mucosa",
    "serrated adenoma",
    "tubular adenoma",
    "villous adenoma",
)
LICENCE = (
    "From the public repository Flagy/Colorectal_Carcinoma_Classifier, which is under GPL-3.0; "
    "the licence of the images is not stated upstream. Compute on them, do not redistribute them."
)
LIMITS = (
    "No patient or slide ids, so intervals over patches are too narrow. Stain is confounded with "
    "class, and the test patches come from other slides than the train patches: the nearest "
    "colour histogram answers 94% of a random split of the training folder and 54% of the test."
)
MANIFEST = Path(__file__).parent / "manifests" / "crc5.csv.gz"
SPLITS = ("train", "test", "retriever")
# Patches in the list, so that a plan need not open it; train includes what validation takes.
SIZES = {"train": 2000, "test": 1500}


def open_crc5(name: str, settings: Crc5Data) -> PatchDataset:
    """Train, validation and test of `$CLIPIT_DATA/crc5`; the retriever split is left out.

    Raises:
        ClipItError: CLIPIT_DATA is unset or wrong, the manifest is not the one this project
            knows, an image is missing or differs from its sha256; see also `open_or_build`.
    """
    return open_or_build(_recipe(name, settings.side, ("train", "test"), settings.validation_split))


def retriever_patches(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [n, side, side, 3] uint8 and labels [n] int64 to train the stand-in retriever on.

    None of them is in the data set that `open_crc5` gives (see there for what is raised).
    """
    patches = open_or_build(_recipe("crc5-retriever", side, ("retriever",), None))
    return patches.pixels, patches.labels


def check_crc5() -> None:
    """Look whether every listed image is there, without reading any.

    Raises:
        ClipItError: as `open_crc5`.
    """
    root = paths.data() / "crc5"
    for path in _listed(root / "manifest.csv")["path"]:
        if not (root / path).is_file():
            raise ClipItError("no such image", root / path, "Run `python -m companion fetch crc5`")


def _recipe(
    name: str, side: int, splits: tuple[str, ...], validation_split: ValidationSplit | None
) -> Recipe:
    root = paths.data() / "crc5"
    listed = _listed(root / "manifest.csv")
    listed = listed[listed["split"].isin(splits)].reset_index(drop=True)
    return Recipe(
        name=name,
        # Bytes are checked against the list when they are decoded, so the list stands for them.
        declaration={"source": "crc5", "listed": digest(listed.to_csv(index=False))},
        classes=CLASSES,
        class_texts=CLASS_TEXTS,
        side=side,
        gather=lambda: undecoded(listed, root, CLASSES, side),
        validation_split=validation_split,
        licence=LICENCE,
        limits=LIMITS,
    )


def _listed(manifest: Path) -> pd.DataFrame:
    """The list this project carries, if the user's manifest says the same."""
    ours, theirs = read_manifest(MANIFEST, SPLITS), read_manifest(manifest, SPLITS)
    columns = ["path", "split", "label", "sha256"]
    known, found = (set(map(tuple, t[columns].to_numpy().tolist())) for t in (ours, theirs))
    if known != found:
        raise ClipItError(
            f"differs from the crc5 list of this project, first at {min(known ^ found)[0]} "
            f"({len(found)} images, expected {len(known)})",
            manifest,
            "Restore it; images of your own go in a data set with source: folder",
        )
    return ours


# -- The pilot's stand-in retriever: EfficientNet-Lite2 and MiniLM joined by two projections.
#
# It replaces a histology CLIP where none can be had. Both towers stay frozen; only the projections
# are trained, contrastively, on a data set's retriever split with captions from class descriptions.


TEXT_TARGETS = r"bert\.encoder\.layer\.\d+\..*\.(query|key|value|dense)"


class TextTower(nn.Module):
    """MiniLM, mean of its token states, projected: ids [b, context] to [b, width]."""

    def __init__(self, bert: nn.Module, hidden: int, pad: int, width: int) -> None:
        super().__init__()
        self.bert, self.pad = bert, pad
        self.projection = nn.Linear(hidden, width)

    def states(self, ids: Tensor) -> Tensor:
        """Mean token state, [b, hidden]; positions that are padding everywhere are not computed."""
        mask = (ids != self.pad).long()
        longest = int(mask.sum(dim=1).max())
        ids, mask = ids[:, :longest], mask[:, :longest]
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask[..., None].to(hidden.dtype)
        mean: Tensor = (hidden * weight).sum(dim=1) / weight.sum(dim=1)
        return mean

    def forward(self, ids: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.states(ids))
        return projected


class Towers(nn.Module):
    """Both towers and the logarithm of the contrastive scale."""

    def __init__(self, image: StandInImageTower, text: TextTower) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.log_scale = nn.Parameter(torch.tensor(2.66))  # ln(1 / 0.07), as CLIP starts

    def load_projections(self, state: State) -> None:
        self.image.load_projection(state)
        self.text.projection.load_state_dict(state_part(state, "text."))


def build_stand_in(settings: StandInTraining) -> Towers:
    """Both frozen towers with untrained projections."""
    model_folder = weights.package_folder(weights.MINILM) / "model"
    bert = AutoModel.from_pretrained(model_folder, local_files_only=True)
    image = build_image_tower(settings.width)
    text = TextTower(bert, bert.config.hidden_size, bert.config.pad_token_id, settings.width)
    return Towers(image, text)


def stand_in_tokenizer(settings: StandInTraining) -> Tokenizer:
    """MiniLM's word-piece tokenizer."""
    pieces = AutoTokenizer.from_pretrained(weights.package_folder(weights.MINILM) / "model")

    def encode(text: str) -> list[int]:
        ids: list[int] = pieces.encode(text, add_special_tokens=False, verbose=False)
        return ids

    return Tokenizer(
        encode, pieces.cls_token_id, pieces.sep_token_id, pieces.pad_token_id,
        settings.context_length,
    )  # fmt: skip


def wrap_stand_in(towers: Towers, weights_hash: str, settings: StandInTraining) -> ClipEncoder:
    """The trained towers as a retriever."""
    transform = vision.vision_transform(STAND_IN_BACKBONE, None)
    return ClipEncoder(
        "stand_in", towers.image, towers.text, stand_in_tokenizer(settings), transform,
        settings.width,
        STAND_IN_TARGETS, TEXT_TARGETS, weights_hash, stand_in=True,
    )  # fmt: skip


def train_stand_in(
    settings: StandInTraining, pixels: np.ndarray, labels: np.ndarray, class_texts: tuple[str, ...]
) -> tuple[State, dict[str, Any]]:
    """Fit the projections on the retriever split.

    Args:
        pixels: [n, s, s, 3] uint8; labels: [n]; class_texts: one a class.

    Raises:
        Diverged: a loss or a learned weight is not finite.
    """
    stage, rate = (
        Stage("training", "stand_in", f"stand_in, seed {settings.seed}"),
        settings.learning_rate,
    )
    torch.manual_seed(settings.seed)
    towers = build_stand_in(settings).to(device()).eval()
    rng = np.random.default_rng(settings.seed)
    captions = [class_captions(text, settings.captions_per_class, rng) for text in class_texts]
    images = _image_states(towers.image.backbone, pixels)
    texts = _text_states(towers.text, stand_in_tokenizer(settings), captions)
    trained = nn.ModuleList([towers.image.projection, towers.text.projection])
    parameters = [*trained.parameters(), towers.log_scale]
    optimiser = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=0.05, fused=True
    )
    history = []
    steps = max(1, len(labels) // settings.batch_size)
    for epoch in progress(range(settings.epochs), "train stand_in", "epoch"):
        values = []
        batches = np.array_split(rng.permutation(len(labels)), steps)
        for step, rows in enumerate(batches, start=1):
            group = torch.from_numpy(labels[rows])
            chosen = texts[group, torch.from_numpy(rng.integers(texts.shape[1], size=len(rows)))]
            image = F.normalize(towers.image.projection(images[torch.from_numpy(rows)]), dim=-1)
            text = F.normalize(towers.text.projection(chosen), dim=-1)
            scale = towers.log_scale.exp().clamp(max=100.0)
            loss = supervised_contrastive(image, text, scale, group.to(image.device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            values.append(loss.item())
            when = doubtful_place(step, steps, epoch + 1, settings.epochs)
            stage.check({"loss": values[-1]}, when, rate, epoch + step > 1)
        history.append(float(np.mean(values)))
    stage.check_tensors("the learned weights", parameters, "after the last step", rate)
    state = {f"image.{k}": v.cpu() for k, v in towers.image.projection.state_dict().items()}
    state |= {f"text.{k}": v.cpu() for k, v in towers.text.projection.state_dict().items()}
    return state, {"loss": history, "notes": stage.doubts(history[0], history[-1])}


@torch.no_grad()
def _image_states(backbone: nn.Module, pixels: np.ndarray) -> Tensor:
    transform = vision.vision_transform(STAND_IN_BACKBONE, None)
    blocks = [
        backbone(transform(torch.tensor(pixels[i : i + 64])).to(device()))
        for i in progress(range(0, len(pixels), 64), "embed retriever split", "batch")
    ]
    return torch.cat(blocks)


@torch.no_grad()
def _text_states(tower: TextTower, words: Tokenizer, captions: list[list[str]]) -> Tensor:
    states = [tower.states(words.windows(each, "truncate").ids.to(device())) for each in captions]
    return torch.stack(states)
