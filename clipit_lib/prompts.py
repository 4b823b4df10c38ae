"""A CLIP model as classifier by prompts, fine-tuned or not (Table 2)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
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
from clipit_lib.predictions import Outcome, predicted
from clipit_lib.settings import Contrastive, RunSpec
from clipit_lib.training import BLOCK, History, ImageTask, Patches, Stage, fit, in_blocks


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

    def all_prompts(self, block: int = BLOCK) -> Float[Tensor, "c k d"]:
        """Embeddings of each class in each template, encoded in blocks."""
        parts = torch.arange(self.windows.texts).split(block)
        each = [embed_windows(self.text_tower, self.windows.select(part)) for part in parts]
        return torch.cat(each).unflatten(0, (self.classes, -1))

    def forward(self, batch: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor]:
        """Unit-length embeddings of images [b, d] and of the first prompt of each class [c, d]."""
        firsts = torch.arange(0, self.windows.texts, self.windows.texts // self.classes)
        return self.images(batch), embed_windows(self.text_tower, self.windows.select(firsts))

    def class_embeddings(self, block: int = BLOCK) -> Float[Tensor, "c d"]:
        """Mean of each class's prompts over the temperature: times an image's, its logits."""
        classes = F.normalize(self.all_prompts(block).float(), dim=-1).mean(dim=1)
        if self.settings.averaging == "embeddings":
            classes = F.normalize(classes, dim=-1)
        return classes / self.settings.temperature

    def scores(self, images: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n c"]:
        """Logits of the prompt ensemble for image embeddings."""
        texts = self.all_prompts().float().cpu().numpy()
        similarity = ensemble_scores(images, texts, self.settings.averaging)
        return (similarity / self.settings.temperature).astype(np.float32)

    @torch.inference_mode()
    def predict(self, patches: Patches) -> Float[np.ndarray, "m c"]:
        """Logits of patches, in blocks."""
        return self.scores(in_blocks(self.images, patches).numpy())


class ContrastiveTask(ImageTask):
    """Symmetric contrastive loss of patches and the first prompt of their class (appendix E)."""

    model: PromptClassifier

    def loss(self, model: Any, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        settings = self.model.settings
        # Of several processes each computes the whole batch: every pair of it is in the loss.
        images, texts = model(self.train.batch(rows, generator if self.augmented else None))
        labels = self.train.labels[rows].to(device())
        groups = labels if settings.same_class == "left_out" else None
        scale = 1 / settings.temperature
        return {"contrastive": contrastive(images, texts[labels], scale, groups)}

    def validate(self) -> float:
        logits = torch.from_numpy(self.model.predict(self.validation))
        return float(F.cross_entropy(logits, self.validation.labels))


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
        with seeded(spec.seed):  # initial weights and dropout
            lora.inject(model.image_tower, clip.image_targets, spec.lora, which)
            lora.inject(model.text_tower, clip.text_targets, spec.lora, which)
            if spec.training.gradient_checkpointing:
                checkpoint_gradients(model.image_tower)
            if spec.training.compiled:
                model.image_tower.compile(dynamic=True)
            labels, looks_at = choose_labels(spec, dataset), spec.training.looks_at
            learn, held = Patches.chosen(dataset, labels, clip.transform, looks_at)
            task = ContrastiveTask(model, learn, held, spec.training.augment)
            stage = Stage.of_run(spec, "contrastive fine-tuning", "training")
            history = fit(task, spec.training, spec.seed, spec.protocol.checkpoint, stage=stage)
    model.to(device()).eval()
    predictions = predicted(
        dataset, lambda split: model.predict(Patches.of(dataset, split, clip.transform))
    )
    return Outcome(lora.adapters(model), history, predictions, history.notes)
