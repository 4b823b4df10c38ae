"""CLIP-IT as a scikit-learn classifier of arrays: texts to learn from, none to predict."""

from __future__ import annotations

import copy
import warnings
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, UInt8
from pydantic import ValidationError
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d
from torch import Tensor, nn

from clipit_lib import lora
from clipit_lib.compute import device, seeded
from clipit_lib.data.patches import Transform, ValidationSplit, with_validation
from clipit_lib.data.reports import CLEANING, clean
from clipit_lib.encoders import registry
from clipit_lib.encoders.encoder import ClipEncoder, LongText, embed_texts
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.encoders.weights import Sources
from clipit_lib.errors import ClipItError
from clipit_lib.model import ClipIt, VisionClassifier
from clipit_lib.pairing import top_k
from clipit_lib.predict import ImageClassifier
from clipit_lib.run import linear_probe
from clipit_lib.settings import Lora, Probe, TextStage, Training
from clipit_lib.text import ReportTask, TextClassifier, TextFeatures, pair_counts
from clipit_lib.training import ImageTask, Patches, Stage, Targets, fit, in_blocks

NAME = "ClipItClassifier"
SAID = (NAME, "this classifier")  # where something is said of a descent


@dataclass(eq=False, repr=False)
class ClipItClassifier(ClassifierMixin, BaseEstimator):
    """Learns from patches, labels and unpaired reports; answers from patches alone.

    Attributes:
        classes_: [c] labels, sorted.
        pairs_: [n] which report each patch was paired with; None without reports (LoRA only).
        history_: stage two, one row a look at validation.
        model_, transform_: the image-only network, adapters merged, and its input.
    """

    backbone: str | VisionEncoder = "kaiko_vits16"  # of the registry, or your own: it is copied
    retriever: str | ClipEncoder | None = "quiltnet"  # likewise; None: LoRA only, without any text
    _: KW_ONLY
    epochs: int = 1  # of stage two
    text_epochs: int = 10  # of stage one
    probe_epochs: int = 30  # of the linear probe that stage two starts from
    batch_size: int = 64  # patches; stage one has its own
    learning_rate: float = 1e-3  # of all three
    distillation_weight: float = 1.0  # lambda of equation 4
    lora_rank: int = 16
    lora_alpha: int = 8
    augment: bool = False  # turn, mirror and restain the patches of stage two
    long_text: LongText = "truncate"  # or `chunk`: all of a report beyond the context window
    validation_fraction: float = 0.1  # of the patches; it chooses the weights
    seed: int = 0  # of every draw
    sources: Sources | None = None  # of named encoders' weights, such as copies on your disk

    def fit(self, images: Any, y: Any, reports: Any = None, groups: Any = None) -> ClipItClassifier:
        """Pair (equation 1), learn from the text (equation 2), then from images (3 and 4).

        Args:
            images, y: [n, s, s, 3] uint8, and [n] labels of any kind.
            reports: [m] texts, of anybody. `cross_val_score(params={"reports": texts})` hands on
                all of them, but if m = n it would deal them out as it does the patches.
            groups: [n] patient or slide; none comes to both sides of the validation split.

        Raises:
            ClipItError: images, reports, groups or a parameter cannot be used; training diverged.
        """
        pixels = _pixels(images)
        check_consistent_length(pixels, y, groups)
        self.classes_, numbers = np.unique(column_or_1d(y), return_inverse=True)
        labels, classes = torch.from_numpy(numbers.astype(np.int64)), len(self.classes_)
        rows, encoder = self._split(numbers, groups), self._encoder()
        learn, held = parts = [Patches(pixels, r, labels[r], encoder.transform) for r in rows]
        adapters = _checked(Lora, rank=self.lora_rank, alpha=self.lora_alpha)
        descent = {"batch_size": self.batch_size, "learning_rate": self.learning_rate}
        probe = _checked(Probe, epochs=self.probe_epochs, **descent)
        training = _checked(Training, epochs=self.epochs, augment=self.augment, **descent)
        v, w = ((_features(encoder.model, p, encoder.transform), p.labels) for p in parts)
        head, course = linear_probe(v, w, classes, probe, self.seed, Stage("the probe", *SAID))
        text, targets, self.pairs_ = None, None, None
        if reports is not None:
            text, psi = self._text(parts, reports, adapters)
            targets = Targets(text.features, psi[0])
            self.pairs_ = torch.cat(psi).numpy()[np.concatenate(rows).argsort()]
        elif self.retriever is not None:
            warnings.warn(f"{NAME}: no reports, so LoRA only, without any text", stacklevel=2)
        with seeded(self.seed):  # initial weights and dropout
            lora.inject(encoder.model, encoder.lora_targets, adapters)
            made = encoder.model, encoder.width, classes
            model: Any = ClipIt(*made, text.features.shape[1]) if text else VisionClassifier(*made)
            model.vision_head.load_state_dict(head.state_dict())
            if text is not None:
                model.text_head.load_state_dict(text.head)
            weight, floor = self.distillation_weight, min(row["validation"] for row in course)
            task = ImageTask(model, learn, held, self.augment, False, targets, weight)
            stage = Stage("stage two", *SAID, "the probe")
            self.history_ = fit(task, training, self.seed, stage=stage, start=floor)
        for note in (*course.notes, *(text.notes if text else ()), *self.history_.notes):
            warnings.warn(note, ConvergenceWarning, stacklevel=2)
        found, model.backbone = lora.adapters(model.backbone), self._encoder().model
        lora.merge(model.backbone, found, adapters)
        self.model_, self.transform_ = model.cpu().eval(), encoder.transform
        return self

    def predict_proba(self, images: Any) -> Float[np.ndarray, "n c"]:
        """Class probabilities of [n, s, s, 3] uint8, columns as `classes_`; no text is read."""
        check_is_fitted(self)
        classifier = ImageClassifier(self.model_.to(device()), self.transform_, ())
        found: np.ndarray = classifier.probabilities(_pixels(images)).numpy()
        self.model_.cpu()  # so that it can be unpickled where there is no accelerator
        return found

    def predict(self, images: Any) -> np.ndarray:
        """The most probable class of each patch, [n]; of equal ones the first."""
        chosen = self.predict_proba(images).argmax(axis=1)  # refuses first if it is not fitted
        return self.classes_[chosen]

    def _encoder(self) -> VisionEncoder:
        """The backbone, to be changed: loaded anew, or a copy."""
        if isinstance(self.backbone, str):
            return registry.load_backbone(self.backbone, self.sources or Sources())
        return replace(self.backbone, model=copy.deepcopy(self.backbone.model))

    def _split(self, labels: Int[np.ndarray, " n"], groups: Any) -> list[np.ndarray]:
        """Rows to learn from, and rows to choose by."""
        by = "stratified" if groups is None else "group"
        how = _checked(ValidationSplit, by=by, fraction=self.validation_fraction, seed=self.seed)
        group = "" if groups is None else np.asarray(groups).astype(str)
        samples = pd.DataFrame({"split": "train", "label": labels, "group": group})
        split = with_validation(samples, how, classes=[*map(str, self.classes_)])["split"]
        rows = [np.flatnonzero(split == name) for name in ("train", "validation")]
        if min(len(np.unique(labels[part])) for part in rows) < len(self.classes_):
            raise ClipItError("a class is not on both sides", NAME, "Give more patches or groups")
        return rows

    def _text(
        self, parts: list[Patches], reports: Any, adapters: Lora
    ) -> tuple[TextFeatures, list[Int[Tensor, " n"]]]:
        """What stage one learns from the reports, and which of them each patch is paired with."""
        texts_only = not isinstance(reports, str) and all(isinstance(r, str) for r in reports)
        if (clip := self.retriever) is None or not texts_only:
            raise ClipItError("no retriever, or reports are no list of texts", NAME, "Give both")
        if not len(reports):
            raise ClipItError("no reports", NAME, "Add at least one report")
        long, rate, c = self.long_text, self.learning_rate, len(self.classes_)
        settings = _checked(TextStage, epochs=self.text_epochs, learning_rate=rate, long_text=long)
        if isinstance(clip, str):
            clip = registry.load_clip(clip, self.sources or Sources())
        texts = tuple(clean(text, CLEANING) for text in reports)
        if (empty := next((i for i, text in enumerate(texts) if not text), None)) is not None:
            raise ClipItError(f"report {empty} is empty", NAME, "Take it out or write a report")
        t = embed_texts(clip.text_tower.to(device()).eval(), clip.tokenizer, texts, long).numpy()
        seen = [_features(clip.image_tower, part, clip.transform).numpy() for part in parts]
        psi = [torch.from_numpy(top_k(v, t, 1, device=device()).reports[:, 0]) for v in seen]
        n, held = (pair_counts(j, p.labels, len(texts), c) for j, p in zip(psi, parts, strict=True))
        with seeded(self.seed):  # initial weights and dropout
            tower = copy.deepcopy(clip.text_tower)
            lora.inject(tower, clip.text_targets, adapters)
            model = TextClassifier(tower, clip.width, c)
            task = ReportTask(model, clip.tokenizer.windows(texts, long), n, held)
            course = fit(task, settings, self.seed, stage=Stage("stage one", *SAID))
        features = embed_texts(tower, clip.tokenizer, texts, long).float().clone()
        return TextFeatures(features, model.head.state_dict(), {}, course.notes), psi


def _pixels(images: Any) -> UInt8[np.ndarray, "n s s 3"]:
    pixels = np.asarray(images)
    square = pixels.ndim == 4 and pixels.shape[1:] == (pixels.shape[1], pixels.shape[1], 3)
    if not (square and pixels.size and pixels.dtype == np.uint8):
        what = f"images are {pixels.dtype} {list(pixels.shape)}"
        raise ClipItError(what, NAME, "Give square RGB patches as uint8 [n, s, s, 3]")
    return pixels


@torch.no_grad()
def _features(tower: nn.Module, part: Patches, transform: Transform) -> Float[Tensor, "m d"]:
    """Of a frozen tower, on the CPU."""
    tower.to(device()).eval()
    return in_blocks(lambda images: tower(images).float(), replace(part, transform=transform))


def _checked(kind: Any, **values: Any) -> Any:
    """Settings of the library, with a wrong parameter said in one line."""
    try:
        return kind(**values)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise ClipItError(f"{wrong['loc'][0]} is {wrong['input']!r}", NAME, wrong["msg"]) from error
