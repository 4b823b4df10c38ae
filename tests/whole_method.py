"""CLIP-IT whole, written out: equations 1 to 4, both stages, prediction from images.

Nothing of the library's own path through a run is used: no task, target, loop, choice of labels or
pairs. It takes from the library what has tests of its own: encoders, LoRA, the model's layers,
augmentation and the tokenizer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipit_lib import lora
from clipit_lib.compute import seeded
from clipit_lib.data.patches import PatchDataset, augment
from clipit_lib.data.reports import drop_from_all
from clipit_lib.encoders.encoder import ClipEncoder, embed_texts, embed_windows
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.model import ClipIt, TextHead, VisionClassifier, train_mode
from clipit_lib.settings import Descent, RunSpec

Loss = Callable[[Tensor, torch.Generator, int], Tensor]


def pair(images: Tensor, reports: Tensor, rank: int = 1) -> Tensor:
    """Equation 1: the report of this rank by cosine similarity, for each image."""
    similarity = F.normalize(images, dim=-1) @ F.normalize(reports, dim=-1).T
    return similarity.argsort(dim=1, descending=True)[:, rank - 1]


def descend(
    model: nn.Module, rows: int, loss: Loss, validate: Callable[[], float], settings: Descent,
    seed: int, keep: str = "best", averaged: float | None = None,
) -> nn.Module:  # fmt: skip
    """Adam with clipped gradients; the weights at the lowest validation loss are kept, or their
    moving average.
    """
    learned = [p for p in model.parameters() if p.requires_grad]
    decay = settings.weight_decay
    adam = torch.optim.Adam(learned, settings.learning_rate, weight_decay=decay, fused=True)
    draws, best = torch.Generator().manual_seed(seed), float("inf")
    kept: dict[str, Tensor] = {}
    mean = [p.detach().clone() for p in learned]
    again, per_epoch = settings.passes or 1, settings.checks_per_epoch
    steps = max(1, round(again * rows / settings.batch_size))
    looks = {max(1, round(steps * (look + 1) / per_epoch)) for look in range(per_epoch)}
    for epoch in range(settings.epochs):
        train_mode(model)
        order = [row for _ in range(again) for row in torch.randperm(rows, generator=draws)]
        batches = torch.stack(order).tensor_split(steps)
        for step, batch in enumerate(batches, start=1):
            adam.zero_grad()
            loss(batch, draws, epoch).backward()
            nn.utils.clip_grad_norm_(learned, settings.gradient_clip)
            adam.step()
            if averaged is not None:
                for old, new in zip(mean, learned, strict=True):
                    old.lerp_(new.detach(), 1 - averaged)
            if step in looks:
                model.eval()
                own = [p.detach().clone() for p in learned]
                put(learned, own if averaged is None else mean)
                with torch.inference_mode():
                    value = validate()
                if value < best or keep == "last":
                    best = value
                    named = model.named_parameters()
                    kept = {name: p.detach().clone() for name, p in named if p.requires_grad}
                put(learned, own)
                train_mode(model)
    model.load_state_dict(kept, strict=False)
    return model.eval()


@torch.no_grad()
def put(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for each, value in zip(weights, values, strict=True):
        each.copy_(value)


@dataclass(frozen=True)
class Whole:
    """One run: its specification, what it reads, and what a control hands it instead.

    Attributes:
        psi: paired report of each training and validation patch.
        images: [n, e] what is distilled in place of text, of each training patch.
        labels: of each training and validation patch.
        rows: of the data set, likewise.
        drawn: [epochs, n] reports of each training patch where they change in each epoch.
        wide: rows, labels [n, c] and paired reports of what stage two sees, where it sees patches
            without labels too; `images` are of those then.
    """

    spec: RunSpec
    data: PatchDataset
    encoder: VisionEncoder
    features: dict[str, Tensor]
    rows: dict[str, np.ndarray]
    labels: dict[str, Tensor]
    clip: ClipEncoder | None = None
    texts: tuple[str, ...] = ()
    psi: dict[str, Tensor] | None = None
    images: Tensor | None = None
    drawn: Tensor | None = None
    wide: tuple[np.ndarray, Tensor, Tensor | None] | None = None

    def run(self) -> Tensor:
        """Test logits [n, c]."""
        spec, classes = self.spec, len(self.data.classes)
        head = self.probe()
        if spec.adaptation == "none" and self.psi is None:
            model: nn.Module = VisionClassifier(self.encoder.model, self.encoder.width, classes)
            model.vision_head.load_state_dict(head.state_dict())
            return self.logits(model, self.data.indices("test"))
        targets, text_head = self.distilled()
        if spec.target == "soft_labels":  # instead of text features, what a classifier answers
            true, answers, read = self.labels["train"], head, self.features["train"]
            if targets is not None and self.clip is not None:
                answers, read = (
                    TextHead(self.clip.width, classes),
                    targets(torch.arange(len(true)), 0),
                )
                answers.load_state_dict(text_head)
            with torch.inference_mode():
                said = answers(read).softmax(dim=-1)
            weight = spec.distillation_weight
            self.labels["train"] = (F.one_hot(true, classes) + weight * said) / (1 + weight)
            targets, text_head = None, {}
        protocol = spec.protocol
        assert protocol is not None
        with seeded(spec.seed):
            if spec.adaptation == "lora":
                lora.inject(self.encoder.model, self.encoder.lora_targets, spec.lora)
            else:
                self.encoder.model.requires_grad_(False)
            shape = self.encoder.model, self.encoder.width, classes
            if targets is None:
                model = VisionClassifier(*shape)
            else:
                assert self.clip is not None
                fusion = protocol.unit_distilled, protocol.fusion_start
                model = ClipIt(*shape, self.clip.width, *fusion)
        model.vision_head.load_state_dict(head.state_dict())
        if text_head:
            model.text_head.load_state_dict(text_head)
        self.stage_two(model, targets)
        return self.logits(model, self.data.indices("test"))

    def distilled(self) -> tuple[Callable[[Tensor, int], Tensor] | None, dict[str, Tensor]]:
        """What each training patch is to predict of its text, and the text head."""
        if (images := self.images) is not None:
            return (lambda rows, _: F.normalize(images, dim=-1)[rows]), {}
        return (None, {}) if self.psi is None else self.stage_one()

    def probe(self) -> nn.Linear:
        """A linear head on frozen features: the unimodal baseline."""
        x, y = self.features["train"], self.labels["train"]
        held_x, held_y = self.features["validation"], self.labels["validation"]
        with seeded(self.spec.seed):
            head = nn.Linear(x.shape[1], len(self.data.classes))
        descend(
            head, len(y), lambda b, *_: F.cross_entropy(head(x[b]), y[b]),
            lambda: float(F.cross_entropy(head(held_x), held_y)), self.spec.probe, self.spec.seed,
        )  # fmt: skip
        return head

    def dropped(self, share: float, draw: int) -> Any:
        """Token windows of the texts after words were dropped."""
        assert self.clip is not None
        left = drop_from_all(self.texts, share, self.spec.seed, draw)
        return self.windows(left)

    def windows(self, texts: Sequence[str]) -> Any:
        assert self.clip is not None and self.spec.text is not None
        return self.clip.tokenizer.windows(texts, self.spec.text.training.long_text)

    def stage_one(self) -> tuple[Callable[[Tensor, int], Tensor], dict[str, Tensor]]:
        """Equation 2: text encoder and head learn the labels; then all features are fixed."""
        text, psi, clip = self.spec.text, self.psi, self.clip
        assert text is not None and psi is not None and clip is not None
        classes, share = len(self.data.classes), text.word_dropout
        with seeded(text.seed):
            tower = copy.deepcopy(clip.text_tower).requires_grad_(False)
            if text.lora is not None:
                lora.inject(tower, clip.text_targets, text.lora)
            head = TextHead(clip.width, classes)
        model, whole = nn.ModuleList([tower, head]), self.windows(self.texts)

        def counts(split: str) -> Tensor:  # [m, c]: patches of class c that are paired with m
            table = torch.zeros(len(self.texts), classes)
            for report, label in zip(psi[split], self.labels[split], strict=True):
                table[report, label] += 1
            return table

        def cross_entropy(windows: Any, parts: Sequence[Tensor], weights: Tensor) -> Tensor:
            read = torch.cat([head(embed_windows(tower, windows.select(part))) for part in parts])
            if text.double_softmax and torch.is_grad_enabled():  # not at a look
                read = read.softmax(dim=-1)
            return -(weights * read.float().log_softmax(dim=-1)).sum()

        learned, held = counts("train"), counts("validation")
        used, held_used = (n.sum(dim=1).nonzero().flatten() for n in (learned, held))
        learned, held = learned[used], held[held_used]

        def loss(b: Tensor, _: torch.Generator, epoch: int) -> Tensor:
            windows = whole if share is None else self.dropped(share, epoch)
            weights = learned[b] * (len(used) / len(b) / learned.sum())
            return cross_entropy(windows, [used[b]], weights)

        def validate() -> float:
            return float(cross_entropy(whole, held_used.split(64), held / held.sum()))

        if text.stage == "fine_tuned":
            descend(model, len(used), loss, validate, text.training, text.seed)
        long = text.training.long_text
        features = embed_texts(tower, clip.tokenizer, self.texts, long).clone()

        def targets(rows: Tensor, epoch: int) -> Tensor:
            if self.drawn is not None:
                return features[self.drawn[epoch][rows]]
            if share is None:
                seen = psi["train"] if self.wide is None else self.wide[2]
                return features[seen[rows]]
            with torch.inference_mode():
                windows = self.dropped(share, 1000 + epoch)
                wanted = psi["train"].unique()
                parts = [embed_windows(tower, windows.select(p)) for p in wanted.split(64)]
                anew = torch.cat(parts).clone()
            return anew[torch.searchsorted(wanted, psi["train"][rows])].clone()

        return targets, head.state_dict() if text.stage == "fine_tuned" else {}

    def stage_two(
        self, model: nn.Module, targets: Callable[[Tensor, int], Tensor] | None
    ) -> nn.Module:
        """Equations 3 and 4: CE(z, y) + lambda (1 - cos(h_d(v), t_psi))."""
        spec, transform = self.spec, self.encoder.transform
        settings, y, own = spec.training, self.labels["train"], self.rows["train"]
        if self.wide is not None:
            own, y, _ = self.wide
        assert settings is not None and spec.protocol is not None

        def loss(b: Tensor, draws: torch.Generator, epoch: int) -> Tensor:
            weight, order = 1.0, np.arange(len(b))
            if spec.mixup is not None:
                rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=draws)))
                weight, order = rng.beta(spec.mixup, spec.mixup), rng.permutation(len(b))
            images = torch.from_numpy(self.data.pixels[own[b.numpy()]])
            seen = transform(augment(images, draws) if settings.augment else images)
            if spec.mixup is not None:
                seen = weight * seen + (1 - weight) * seen[order]
            z = model(seen)
            answers = z.logits.softmax(dim=-1) if spec.protocol.double_softmax else z.logits
            smooth = spec.smoothing or 0.0
            right = weight * F.cross_entropy(answers, y[b], label_smoothing=smooth)
            if spec.mixup is not None:
                right = right + (1 - weight) * F.cross_entropy(answers, y[b[order]])
            if targets is None:
                return right
            distance = (1 - F.cosine_similarity(z.distilled, targets(b, epoch), dim=-1)).mean()
            return right + spec.distillation_weight * distance

        def validate() -> float:
            logits = self.logits(model, self.rows["validation"])
            return float(F.cross_entropy(logits, self.labels["validation"]))

        rows, keep = len(y), spec.protocol.checkpoint
        return descend(model, rows, loss, validate, settings, spec.seed, keep, spec.averaged)

    @torch.inference_mode()
    def logits(self, model: nn.Module, rows: np.ndarray) -> Tensor:
        """From images alone."""
        model.eval()
        parts = [rows[begin : begin + 64] for begin in range(0, len(rows), 64)]
        images = (self.encoder.transform(torch.from_numpy(self.data.pixels[p])) for p in parts)
        return torch.cat([model(each).logits for each in images])
