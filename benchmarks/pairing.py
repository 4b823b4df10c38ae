"""Pairing: what it adds to the encoders' own time, and what a second question costs."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from benchmarks.encoders import phantom_retriever, vit_b32_retriever
from benchmarks.measure import Row, Scale, interleaved, ratio, timed
from benchmarks.patches import fresh_cache, noise_patches, reports
from benchmarks.released import pair_one_by_one
from clipit_lib.compute import device
from clipit_lib.data.patches import PatchDataset
from clipit_lib.data.reports import ReportCorpus
from clipit_lib.encoders.embeddings import BLOCK, image_embeddings, text_embeddings
from clipit_lib.encoders.encoder import ClipEncoder
from clipit_lib.pairing import Pairs, top_k


@dataclass(frozen=True)
class Sizes:
    """Patches and reports of one retriever; `repeats` rounds."""

    side: int
    images: int
    reports: int
    repeats: int


PHANTOM = {
    "micro": Sizes(64, 3, 2, 2),
    "quick": Sizes(64, 128, 8, 3),
    "full": Sizes(64, 2048, 64, 11),
}
# PCAM's 96 pixels, which the transform brings to 224.
VIT_B32 = {"quick": Sizes(96, 8, 2, 3), "full": Sizes(96, 128, 16, 7)}
# 376 reports as in TCGA's colon; PCAM has four times these patches.
REUSE = {
    "micro": Sizes(64, 3, 2, 2),
    "quick": Sizes(64, 512, 12, 2),
    "full": Sizes(64, 65536, 376, 3),
}


def run(scale: Scale) -> list[Row]:
    rows = _cold("pairing", phantom_retriever(), PHANTOM[scale], "the phantom's CLIP, 64 px")
    if scale in VIT_B32:
        rows += _cold("pairing_vit_b32", vit_b32_retriever(), VIT_B32[scale], "ViT-B/32, 224 px")
    return rows + _reuse(phantom_retriever(), REUSE[scale])


def pair(clip: ClipEncoder, dataset: PatchDataset, corpus: ReportCorpus, k: int = 1) -> Pairs:
    """As a workbench pairs: embeddings from the cache or made now, then exact top-k."""
    images = image_embeddings(clip.image_tower, clip.weights_hash, clip.transform, dataset, "train")
    texts = text_embeddings(clip, corpus, "truncate")
    return top_k(images, texts, k, device=device())


def unseen(dataset: PatchDataset) -> PatchDataset:
    """The same patches under another name: nothing about them is in the cache."""
    return replace(dataset, content_hash=uuid.uuid4().hex)


def unread(corpus: ReportCorpus) -> ReportCorpus:
    return replace(corpus, content_hash=uuid.uuid4().hex)


def _cold(name: str, clip: ClipEncoder, sizes: Sizes, model: str) -> list[Row]:
    with fresh_cache():
        data, corpus = noise_patches(sizes.images, sizes.side), reports(sizes.reports)
        text_embeddings(clip, corpus, "truncate")
        clocks = {
            "bare": timed(_forward(clip, data)),
            "images": timed(lambda: pair(clip, unseen(data), corpus)),
            "whole": timed(lambda: pair(clip, unseen(data), unread(corpus))),
            "one by one": timed(lambda: pair_one_by_one(clip, data.pixels, corpus.texts)),
        }
        times = interleaved(clocks, sizes.repeats)
    what = f"{model}, {sizes.images} patches"
    return [
        ratio(f"{name}_over_bare_forward", times, "bare", "images",
              f"images/s of pairing over those of the image tower on ready tensors ({what})",
              0.95, "at_least"),
        ratio(f"{name}_over_one_by_one", times, "one by one", "whole",
              "images/s over those of a loop that embeds one patch and one report at a time, as "
              f"released ({what}, {sizes.reports} reports)", 2, "at_least"),
    ]  # fmt: skip


def _forward(clip: ClipEncoder, data: PatchDataset) -> Callable[[], None]:
    blocks = range(0, len(data.pixels), BLOCK)
    ready = [clip.transform(data.pixels[i : i + BLOCK]) for i in blocks]

    @torch.inference_mode()
    def forward() -> None:
        for block in ready:
            clip.image_tower(block)

    return forward


def _reuse(clip: ClipEncoder, sizes: Sizes) -> list[Row]:
    with fresh_cache():
        data = noise_patches(sizes.images, sizes.side)
        first, second = reports(sizes.reports), reports(sizes.reports, seed=1)
        now = [data]  # what this round has embedded

        def cold() -> Pairs:
            now[0] = unseen(data)
            return pair(clip, now[0], unread(first))

        text_embeddings(clip, first, "truncate")
        clocks = {
            "first": timed(cold),
            "rank": timed(lambda: pair(clip, now[0], first, min(5, sizes.reports))),
            "corpus": timed(lambda: pair(clip, now[0], unread(second))),
        }
        times = interleaved(clocks, sizes.repeats, warm_up=0)
    what = f"the phantom's CLIP, {sizes.images} patches, {sizes.reports} reports"
    return [
        ratio("pairing_other_rank", times, "rank", "first",
              f"ranks 1 to 5 of what is embedded, over the first pairing ({what})", 0.01),
        ratio("pairing_second_corpus", times, "corpus", "first",
              f"as many other reports, over the first pairing ({what})", 0.01),
    ]  # fmt: skip
