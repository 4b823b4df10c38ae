"""A CLIP model as classifier by prompts, fine-tuned or not (Table 2)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clipit_lib import lora
from clipit_lib.compute import device, seeded
from clipit_lib.data.reports import TEMPLATES, ensemble_scores, prompts
from clipit_lib.encoders.encoder import ClipEncoder, TokenWindows, embed_windows
from clipit_lib.encoders.vision import checkpoint_gradients
from clipit_lib.inputs import Inputs, choose_labels
from clipit_lib.losses import contrastive
from clipit_lib.model import Output
from clipit_lib.predict import ClassEmbeddings
from clipit_lib.predictions import Outcome, raw_predictions
from clipit_lib.settings import Contrastive, RunSpec
from clipit_lib.training import BLOCK, History, Patches, Stage, Task, fit, in_blocks


class PromptClassifier(nn.Module):
    """Both towers of a CLIP and the prompts of each class."""

    def __init__(self, clip: ClipEncoder, settings: Contrastive) -> None:
        super().__init__()
        self.image_tower = copy.deepcopy(clip.image_tower)
        self.text_tower = copy.deepcopy(clip.text_tower)
        class_texts = settings.class_texts
        if settings.misaligned_names:  # as the released code's names of BACH: each is off by one
            class_texts = (class_texts[-1], *class_texts[:-1])
        by_class = prompts(class_texts, TEMPLATES[settings.templates])
        self.classes, self.settings = len(class_texts), settings
        flat = [text for of_class in by_class for text in of_class]
        self.windows: TokenWindows = clip.tokenizer.windows(flat, "truncate")

    def images(self, batch: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return F.normalize(self.image_tower(batch).float(), dim=-1)

    def first_prompts(self) -> Float[Tensor, "c d"]:
        """Embeddings of each class in the first template, the text of training."""
        templates = self.windows.texts // self.classes
        return embed_windows(
            self.text_tower, self.windows.select(torch.arange(self.classes) * templates)
        )

    def all_prompts(self, block: int = BLOCK) -> Float[Tensor, "c k d"]:
        """Embeddings of each class in each template, encoded in blocks."""
        parts = torch.arange(self.windows.texts).split(block)
        each = [embed_windows(self.text_tower, self.windows.select(part)) for part in parts]
        return torch.cat(each).unflatten(0, (self.classes, -1))

    def forward(self, batch: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor]:
        """Unit-length embeddings of images [b, d] and of the classes' first prompts [c, d]."""
        return self.images(batch), self.first_prompts()

    def class_embeddings(self, block: int = BLOCK) -> Float[Tensor, "c d"]:
        """Mean of each class's prompts over the temperature: times an image's, its logits."""
        classes = F.normalize(self.all_prompts(block).float(), dim=-1).mean(dim=1)
        if self.settings.averaging == "embeddings":
            classes = F.normalize(classes, dim=-1)
        return classes / self.settings.temperature

    @torch.no_grad()
    def without_text(self) -> ClassEmbeddings:
        """The image-only classifier: all prompts are encoded now, for good."""
        return ClassEmbeddings(self.image_tower, self.class_embeddings())

    def scores(self, images: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n c"]:
        """Logits of the prompt ensemble for image embeddings."""
        texts = self.all_prompts().float().cpu().numpy()
        similarity = ensemble_scores(images, texts, self.settings.averaging)
        return (similarity / self.settings.temperature).astype(np.float32)


class EncodedPrompts(nn.Module):
    """Encodes all prompts again in each call, as in the released code that counts FLOPs."""

    def __init__(self, prompts: PromptClassifier) -> None:
        super().__init__()
        self.prompts = prompts

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Output:
        classes = self.prompts.class_embeddings(self.prompts.windows.texts)
        return Output(self.prompts.images(images) @ classes.T)


class ContrastiveTask(Task):
    """Symmetric contrastive loss of patches and the first prompt of their class (appendix E)."""

    model: PromptClassifier

    def __init__(
        self, model: PromptClassifier, train: Patches, validation: Patches, augmented: bool
    ) -> None:
        self.model, self.train, self.validation = model, train, validation
        self.augmented = augmented
        self.rows = len(train.rows)

    def loss(
        self, model: Callable[..., Any], rows: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        settings = self.model.settings
        # Of several processes each computes the whole batch: every pair of it is in the loss.
        images, texts = model(self.train.batch(rows, generator if self.augmented else None))
        labels = self.train.labels[rows].to(device())
        groups = labels if settings.same_class == "left_out" else None
        scale = 1 / settings.temperature
        return {"contrastive": contrastive(images, texts[labels], scale, groups)}

    @torch.inference_mode()
    def validate(self) -> float:
        logits = torch.from_numpy(self.model.scores(embed(self.model, self.validation)))
        return float(F.cross_entropy(logits, self.validation.labels))


@torch.inference_mode()
def embed(model: PromptClassifier, patches: Patches) -> Float[np.ndarray, "m d"]:
    """Unit-length image embeddings, in blocks."""
    return in_blocks(model.images, patches).numpy()


def perform_contrastive(spec: RunSpec, inputs: Inputs) -> Outcome:
    """Zero-shot, or after contrastive fine-tuning where the run adapts anything."""
    settings = spec.contrastive
    assert settings is not None
    dataset, clip = inputs.dataset(spec.dataset), inputs.retriever(spec.backbone)
    model = PromptClassifier(clip, settings)
    history = History()
    if spec.adaptation == "lora":
        assert spec.lora is not None and spec.training is not None and spec.protocol is not None
        which = spec.protocol.lora_targets
        with seeded(spec.seed):
            lora.inject(model.image_tower, clip.image_targets, spec.lora, which)
            lora.inject(model.text_tower, clip.text_targets, spec.lora, which)
        if spec.training.gradient_checkpointing:
            checkpoint_gradients(model.image_tower)
        labels = choose_labels(spec, dataset)
        train = Patches(dataset.pixels, labels.train, labels.train_labels, clip.transform)
        held = Patches(dataset.pixels, labels.validation, labels.validation_labels, clip.transform)
        task = ContrastiveTask(model, train, held, spec.training.augment)
        stage = Stage.of_run(spec, "contrastive fine-tuning", "training")
        history = fit(task, spec.training, spec.seed, spec.protocol.checkpoint, stage=stage)
    model.to(device()).eval()
    frames = []
    for split in ("validation", "test"):
        rows = dataset.indices(split)
        labels_of = torch.from_numpy(dataset.labels[rows])
        patches = Patches(dataset.pixels, rows, labels_of, clip.transform)
        with torch.inference_mode():
            logits = model.scores(embed(model, patches))
        frames.append(raw_predictions(dataset, split, logits))
    predictions = pd.concat(frames, ignore_index=True)
    return Outcome(lora.adapters(model), history, predictions, history.notes)
