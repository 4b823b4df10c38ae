"""Stage one: fine-tune the text encoder on paired reports, then fix its features (eq. 2)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipit_lib import lora, paths
from clipit_lib.compute import device, seeded
from clipit_lib.encoders.tokens import embed_texts
from clipit_lib.encoders.towers import ClipEncoder
from clipit_lib.files import canonical_json, digest, written_beside
from clipit_lib.report_task import ReportTask, TextClassifier
from clipit_lib.reports.corpus import ReportCorpus
from clipit_lib.settings import RunSpec
from clipit_lib.training import fit

# The fields of a run that this stage depends on: runs that share them share its result.
FIELDS = (
    "version", "dataset", "data_hash", "seed", "labels_per_class", "label_noise", "lora",
    "retriever", "retriever_hash", "corpus", "corpus_hash", "pairing", "text_stage",
)  # fmt: skip
PREFIX = "head."


@dataclass(frozen=True)
class TextFeatures:
    """What stage one leaves.

    Attributes:
        features: [m, e] unit-length features of all reports by the fine-tuned text encoder.
        head: weights of the text head h_t.
        adapters: the text encoder's adapters.
    """

    features: Float[Tensor, "m e"]
    head: dict[str, Tensor]
    adapters: dict[str, Tensor]


def get_or_train(
    spec: RunSpec,
    clip: ClipEncoder,
    corpus: ReportCorpus,
    train: tuple[Int[Tensor, " n"], Int[Tensor, " n"]],
    validation: tuple[Int[Tensor, " v"], Int[Tensor, " v"]],
    classes: int,
) -> TextFeatures:
    """Fine-tuned features of all reports, from the cache or trained now.

    Args:
        train: (paired report, label) of each training patch; validation likewise.
    """
    path = _path(spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            result = _train(spec, clip, corpus, train, validation, classes)
            with written_beside(path) as temporary:
                head = {PREFIX + name: value for name, value in result.head.items()}
                save_file({"features": result.features, **head, **result.adapters}, temporary)
    state = load_file(path)
    features = state.pop("features")
    head = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    return TextFeatures(
        features, head, {k: v for k, v in state.items() if not k.startswith(PREFIX)}
    )


def _path(spec: RunSpec) -> Path:
    asked = spec.model_dump(mode="json", include=set(FIELDS))
    assert spec.protocol is not None
    asked["stage"] = spec.protocol.text_stage
    asked["double_softmax"] = spec.protocol.double_softmax
    asked["lora_targets"] = spec.protocol.lora_targets
    return paths.cache() / "text_stage" / f"{digest(canonical_json(asked))}.safetensors"


def _train(
    spec: RunSpec,
    clip: ClipEncoder,
    corpus: ReportCorpus,
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    classes: int,
) -> TextFeatures:
    settings, protocol = spec.text_stage, spec.protocol
    assert settings is not None and protocol is not None and spec.lora is not None
    windows = clip.tokenizer.windows(corpus.texts, settings.long_text)
    if protocol.text_stage == "ignored":
        return _untouched(spec, clip, corpus)
    with seeded(spec.seed):
        tower = copy.deepcopy(clip.text_tower)
        lora.inject(tower, clip.text_targets, spec.lora, protocol.lora_targets)
        model = TextClassifier(tower, clip.width, classes)
    task = ReportTask(
        model,
        windows,
        pair_counts(*train, len(corpus), classes),
        pair_counts(*validation, len(corpus), classes),
        "double_softmax" if protocol.double_softmax else "cross_entropy",
    )
    fit(task, settings, spec.seed)
    model.to(device())
    features = embed_texts(model.tower, clip.tokenizer, corpus.texts, settings.long_text)
    head = {name: value.detach().cpu().clone() for name, value in model.head.state_dict().items()}
    return TextFeatures(features.float().clone(), head, lora.adapters(model.tower))


def _untouched(spec: RunSpec, clip: ClipEncoder, corpus: ReportCorpus) -> TextFeatures:
    """The released code's way: the retriever's own features, and no head to pass on."""
    assert spec.text_stage is not None
    features = embed_texts(clip.text_tower, clip.tokenizer, corpus.texts, spec.text_stage.long_text)
    return TextFeatures(features.float().clone(), {}, {})


def tuned_tower(clip: ClipEncoder, spec: RunSpec, stage: TextFeatures) -> nn.Module:
    """A copy of the text encoder with its adapters put back, ready to learn on."""
    assert spec.lora is not None and spec.protocol is not None
    tower = copy.deepcopy(clip.text_tower)
    with seeded(spec.seed):
        lora.inject(tower, clip.text_targets, spec.lora, spec.protocol.lora_targets)
    tower.load_state_dict(stage.adapters, strict=False)
    return tower


def pair_counts(
    reports: Int[Tensor, " n"], labels: Int[Tensor, " n"], count: int, classes: int
) -> Float[Tensor, "m c"]:
    """How many patches of each class are paired with each report."""
    table = torch.zeros(count, classes)
    return table.index_put_((reports, labels), torch.ones(len(labels)), accumulate=True)
