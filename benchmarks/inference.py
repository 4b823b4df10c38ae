"""Inference for one image: CLIP-IT over unimodal, and prompts encoded again over prompts cached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.encoders import conch_sized_retriever, phantom_retriever, vision
from benchmarks.measure import Row, Scale, counted, interleaved, ratio, timed
from clipit_lib.data.reports import TEMPLATES
from clipit_lib.encoders.vision import VisionEncoder
from clipit_lib.model import ClipIt, VisionClassifier
from clipit_lib.settings import Contrastive
from companion.cost import CACHED, CLASSES, ENCODED, TEXT_WIDTH, flops_per_image, prompted

CLASS_TEXTS = ("normal lymph node", "lymph node metastasis")


@dataclass(frozen=True)
class Repeats:
    """Rounds, and calls in each timed go."""

    rounds: int
    calls: int = 1


PHANTOM = {"micro": Repeats(2), "quick": Repeats(5, 5), "full": Repeats(51, 20)}
VIT_B16 = {"quick": Repeats(3), "full": Repeats(51)}
PROMPTS = {"micro": Repeats(2), "quick": Repeats(3), "full": Repeats(5)}


def run(scale: Scale) -> list[Row]:
    rows, phantom = [], vision("phantom_vit_b16")
    if scale in VIT_B16:
        vit = vision("kaiko_vitb16")
        rows += [_time("inference", vit, VIT_B16[scale], 1.02), _operations(vit)]
    rows.append(_time("inference_phantom", phantom, PHANTOM[scale], None))
    return [*rows, _prompts(scale)]


def _models(encoder: VisionEncoder) -> tuple[nn.Module, nn.Module]:
    """Both on one backbone: merged adapters are in its weights and change no shape."""
    plain = VisionClassifier(encoder.model, encoder.width, CLASSES)
    return plain.eval(), ClipIt(encoder.model, encoder.width, CLASSES, TEXT_WIDTH).eval()


def _time(name: str, encoder: VisionEncoder, repeats: Repeats, goal: float | None) -> Row:
    size = encoder.transform.size
    plain, clip_it = (timed(_call(model, size, repeats.calls)) for model in _models(encoder))
    times = interleaved({"unimodal": plain, "clip_it": clip_it}, repeats.rounds, warm_up=2)
    return ratio(
        f"{name}_clip_it_over_unimodal", times, "clip_it", "unimodal",
        f"one image: CLIP-IT with its adapters merged over unimodal ({encoder.name}, {size} px); "
        "the paper prints 1.29", goal,
    )  # fmt: skip


def _operations(encoder: VisionEncoder) -> Row:
    plain, clip_it = (flops_per_image(m, encoder.transform.size) for m in _models(encoder))
    added = (clip_it - plain) / 1e9
    return counted(
        "inference_added_gmacs", added / 2,
        f"billions of multiply-adds that CLIP-IT adds ({encoder.name}), which the paper calls "
        f"GFLOPs and prints as 0.001; {added:.4f} if a multiply-add counts as two", 0.001,
    )  # fmt: skip


def _prompts(scale: Scale) -> Row:
    full = scale == "full"
    clip = conch_sized_retriever() if full else phantom_retriever()
    what = "ViT-B/16 and a text tower of CONCH's size" if full else "the phantom's CLIP"
    asked = len(CLASS_TEXTS) * len(TEMPLATES["conch"])
    models = prompted(clip, Contrastive(class_texts=CLASS_TEXTS))
    clocks = {
        name: timed(_call(models[which].eval(), clip.transform.size))
        for name, which in (("encoded", ENCODED), ("cached", CACHED))
    }
    return ratio(
        "inference_prompts_encoded_over_cached", interleaved(clocks, PROMPTS[scale].rounds),
        "encoded", "cached",
        f"one image by {asked} prompts: encoded again over cached ({what}); "
        "the paper prints 505 GFLOPs beside 17 of unimodal", None, "at_least",
    )  # fmt: skip


def _call(model: nn.Module, size: int, calls: int = 1) -> Callable[[], None]:
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def call() -> None:
        for _ in range(calls):
            model(image)

    return call
