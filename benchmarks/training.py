"""A training step: CLIP-IT over vision alone, and the released code's step over ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from benchmarks.encoders import (
    conch_sized_retriever,
    phantom_retriever,
    vision,
    vit_b32_retriever,
)
from benchmarks.hubs import hub_reports
from benchmarks.measure import Row, Scale, counted, interleaved, ratio, timed
from benchmarks.patches import reports
from benchmarks.released import EveryReport
from benchmarks.steps import (
    adapted,
    clip_it,
    difference,
    fitted,
    noise,
    released,
    vision_only,
)
from clipit_lib.encoders.encoder import ClipEncoder, embed_texts
from clipit_lib.training import MovingTargets, Targets


@dataclass(frozen=True)
class Sizes:
    """A timed call is `steps` steps of `batch` patches, paired with some of `reports`."""

    batch: int
    steps: int
    reports: int
    repeats: int


@dataclass(frozen=True)
class Pair:
    """A backbone of the registry and a retriever whose text tower is distilled."""

    name: str
    words: str
    backbone: str
    retriever: Callable[[], ClipEncoder]
    sizes: dict[str, Sizes]


PAIRS = (
    Pair(
        "training", "the phantom's ViT-B/16 and text tower", "phantom_vit_b16",
        phantom_retriever,
        {"micro": Sizes(4, 1, 3, 2), "quick": Sizes(64, 1, 299, 3), "full": Sizes(64, 8, 299, 7)},
    ),
    Pair(
        "training_vit_s16", "ViT-S/16 at 224 px, text tower of ViT-B/32",
        "kaiko_vits16", vit_b32_retriever,
        {"quick": Sizes(16, 1, 64, 2), "full": Sizes(64, 1, 299, 3)},
    ),
    Pair(
        "training_vit_s16_conch", "ViT-S/16 at 224 px, text tower of CONCH's size",
        "kaiko_vits16", conch_sized_retriever,
        {"full": Sizes(32, 1, 299, 3)},  # at 64 it takes 14 GB
    ),
)  # fmt: skip


def run(pair: Pair, scale: Scale) -> list[Row]:
    """The rows of one pair; none where it has no such scale."""
    if scale not in pair.sizes:
        return []
    sizes = pair.sizes[scale]
    clip, backbone = pair.retriever(), vision(pair.backbone)
    data = noise(backbone, sizes.batch * sizes.steps)
    report = hub_reports(sizes.reports, len(data.rows))
    texts = reports(sizes.reports).texts
    windows = clip.tokenizer.windows(texts, "truncate")
    features = embed_texts(clip.text_tower, clip.tokenizer, texts, "truncate").clone()
    distinct, every = (
        kind(adapted(clip.text_tower, clip.text_targets), windows, report)
        for kind in (MovingTargets, EveryReport)
    )
    tasks = {
        "vision": vision_only(backbone, data),
        "clip_it": clip_it(backbone, clip, data, Targets(features, report)),
        "released": released(backbone, clip, data, windows, report),
        "distinct": clip_it(backbone, clip, data, distinct),
        "every": clip_it(backbone, clip, data, every),
    }
    differ = difference(tasks["distinct"], tasks["every"])
    clocks = {name: timed(fitted(task, sizes.batch), sizes.steps) for name, task in tasks.items()}
    times = interleaved(clocks, sizes.repeats)
    what, name = f"{pair.words}, {sizes.batch} patches a step", pair.name
    return [
        ratio(f"{name}_clip_it_over_vision", times, "clip_it", "vision",
              f"a step of CLIP-IT with fixed targets over one of LoRA vision-only ({what})", 1.05),
        ratio(f"{name}_released_over_ours", times, "released", "clip_it",
              "a step that encodes the report of every patch, every module adapted, over one with "
              f"fixed targets ({what})", 2.5, "at_least"),
        ratio(f"{name}_every_over_distinct", times, "every", "distinct",
              f"moving targets: the report of every patch encoded, over each report once ({what}, "
              f"of {_distinct(report, sizes):.0f} reports)", None, "at_least"),
        counted(f"{name}_distinct_difference", differ,
                f"moving targets: the loss with each report once differs by ({what})", 1e-5),
    ]  # fmt: skip


def _distinct(report: Tensor, sizes: Sizes) -> float:
    """Mean number of different reports in a batch."""
    return float(np.mean([len(part.unique()) for part in report.split(sizes.batch)]))
