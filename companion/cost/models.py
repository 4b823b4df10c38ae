"""Sizes and costs of the paper's models beside what the paper prints."""

from __future__ import annotations

import copy
import math
from typing import Any

import open_clip
import pandas as pd
import timm
import torch
from torch import nn

from clipit_lib import lora
from clipit_lib.data.patches import Transform
from clipit_lib.data.reports import TEMPLATES
from clipit_lib.encoders import clips, registry, vision
from clipit_lib.encoders.encoder import ClipEncoder, Tokenizer
from clipit_lib.encoders.vision import VIT_TARGETS
from clipit_lib.model import ClipIt, VisionClassifier
from clipit_lib.settings import Contrastive, Lora
from companion import paper
from companion.cost.measure import (
    CACHED,
    ENCODED,
    MERGED,
    UNIMODAL,
    UNMERGED,
    Machine,
    Variant,
    count_parameters,
    flops_per_image,
    prompted,
)

# -- The paper's models as counted here, beside Table 5; and where each of them comes from.


WHOLE, SIZED_VISION, USED = "whole", "image half", "image half as used"
STATISTICS = {
    vision.HALF: "0.5 / 0.5", vision.IMAGENET[0]: "ImageNet", vision.OPENAI_CLIP[0]: "OpenAI CLIP",
}  # fmt: skip
# Rows of Table 5: what it calls a model, ours, and which part of it is meant.
TABLE5 = {
    "CONCH": ("conch", WHOLE), "UNI": ("uni", USED), "DINO_ViT-L14": ("kaiko_vitl14", USED),
    "QUILTNet": ("quiltnet", WHOLE), "CONCH_vision": ("conch", SIZED_VISION),
    "QUILTNet_vision": ("quiltnet", USED), "ViT-B16": ("kaiko_vitb16", USED),
    "ViT-B8": ("kaiko_vitb8", USED), "ViT-S16": ("kaiko_vits16", USED),
    "ViT-S8": ("kaiko_vits8", USED),
}  # fmt: skip


def size_table() -> pd.DataFrame:
    """One row a published model and part, counted on shapes alone: model, part, parameters_M,
    table5, table5_M (as printed), size (pixels), gmacs (10^9 multiply-adds an image, which the
    paper calls FLOPs), gmacs_224 (the same at 224 pixels).

    A whole CLIP has no operations of its own: they depend on what is encoded. CONCH's image half as
    used lacks the pooler for captions.
    """
    printed = paper.parameters().set_index("backbone")["parameters_M"]
    called = {which: name for name, which in TABLE5.items()}
    rows = []
    for name in registry.published():
        for part, model, size in _parts(name):
            table5 = called.get((name, part), "")
            sides = () if part == WHOLE else (size, 224)
            gmacs = [flops_per_image(model, side) / 2e9 for side in sides] or [math.nan] * 2
            millions = count_parameters(model).total / 1e6
            rows.append([name, part, millions, table5, printed.get(table5), size, *gmacs])
    columns = ["model", "part", "parameters_M", "table5", "table5_M", "size", "gmacs", "gmacs_224"]
    return pd.DataFrame(rows, columns=columns)


def _parts(name: str) -> list[tuple[str, nn.Module, int]]:
    """Parts of a model on PyTorch's `meta` device and the side of their input."""
    with torch.device("meta"):
        encoder = registry.untrained_backbone(name, None, None)
        parts: dict[str, Any] = {USED: encoder.model}
        row = registry.entry(name)
        if row.text_targets:
            parts[WHOLE] = clips.LIBRARIES[row.library].build(row, None, None)
        if name == "conch":
            parts[SIZED_VISION] = clips.Conch().visual
    return [(part, model.eval(), encoder.transform.size) for part, model in parts.items()]


def source_table() -> pd.DataFrame:
    """One row a published model, to print: where it is, on which terms, and how it is used."""
    rows = []
    for name, model in registry.published().items():
        with torch.device("meta"):
            transform = registry.untrained_backbone(name, None, None).transform
        rows.append({
            "model": name,
            "source": f"{model.repo}, {model.file}",
            "revision": model.revision[:12],
            "licence": model.licence,
            "terms": model.terms,
            "access": "on request" if model.gated else "open",
            "size": transform.size,
            "normalisation": STATISTICS[transform.mean],
            "parameters": f"{model.parameters / 1e6:.1f} M",
            "GMACs": f"{model.gmacs:.1f}",
            "doubt": model.doubt or "none",
        })  # fmt: skip
    return pd.DataFrame(rows)


# -- The paper's own models under our accounting: shapes without weights, nothing is computed.
#
# ViT-B/16 at 224 pixels stands for CONCH's image tower, whose attention poolers are left out, and
# 12 blocks of width 768 over 128 tokens for its text tower; two classes in 22 templates are 44
# prompts, each of which fills all tokens.


SIZE, WIDTH, TEXT_WIDTH, CONTEXT, VOCABULARY = 224, 768, 512, 128, 32007
CLASSES = 2
PROMPTS = CLASSES * len(TEMPLATES["conch"])
PRINTED_VISION = {"image_size": SIZE, "layers": 12, "width": WIDTH, "patch_size": 16}
TEXT = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": WIDTH, "heads": 12,
        "layers": 12}  # fmt: skip


def published_variants() -> dict[str, Variant]:
    """The five variants at the paper's scale, on PyTorch's `meta` device."""
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0).requires_grad_(False)
        adapted = copy.deepcopy(vit)
        lora.inject(adapted, VIT_TARGETS, Lora())
        clip = open_clip.CLIP(TEXT_WIDTH, PRINTED_VISION, TEXT).requires_grad_(False)
        models: dict[str, nn.Module] = {
            UNIMODAL: VisionClassifier(vit, WIDTH, CLASSES),
            UNMERGED: ClipIt(adapted, WIDTH, CLASSES, TEXT_WIDTH),
            MERGED: ClipIt(vit, WIDTH, CLASSES, TEXT_WIDTH).requires_grad_(False),
        }
    retriever = ClipEncoder(
        "printed", *clips.split_open_clip(clip),
        Tokenizer(lambda _: [0] * CONTEXT, start=0, end=0, pad=0, context_length=CONTEXT),
        Transform(SIZE, vision.HALF, vision.HALF), TEXT_WIDTH, "", "", registry.UNTRAINED, False,
    )  # fmt: skip
    models |= prompted(retriever, Contrastive(class_texts=("",) * CLASSES))
    return {name: Variant(model.eval(), SIZE) for name, model in models.items()}


def beside_printed(counted: pd.DataFrame) -> pd.DataFrame:
    """Multiply-adds and parameters of `published_variants` (see `cost_table`), the first beside
    what the paper prints: variant, gmacs, printed, parameters_M."""
    printed = paper.compute().set_index("variant")["gflops"]
    table = counted[["variant", "gmacs"]].assign(
        printed=counted["variant"].map(
            {UNIMODAL: printed["unimodal"], MERGED: printed["clip_it"], ENCODED: printed["clip"]}
        ),
        parameters_M=counted["parameters"] / 1e6,
    )
    return table.round(4)


def prompt_gmacs(counted: pd.DataFrame) -> float:
    """Multiply-adds of one encoded prompt, in units of 10^9."""
    gmacs = counted.set_index("variant")["gmacs"]
    return float(gmacs[ENCODED] - gmacs[CACHED]) / PROMPTS


# -- Findings on cost in words, written from the numbers.


def count_sentences(costs: pd.DataFrame) -> str:
    """Markdown items on `cost_table`, at a batch of one image."""
    one = costs[costs["batch"] == 1]
    held = dict(zip(one["variant"], one["parameters"], strict=True))
    flops = dict(zip(one["variant"], one["flops"], strict=True))
    more = {name: f"{100 * (flops[name] / flops[UNIMODAL] - 1):.1f}%" for name in flops}
    times = flops[ENCODED] / flops[CACHED]
    return (
        f"- CLIP-IT merged runs {more[MERGED]} more operations an image than the plain probe and "
        f"holds {held[MERGED] - held[UNIMODAL]:,} more parameters; left unmerged, it runs "
        f"{more[UNMERGED]} more operations than the probe and holds "
        f"{held[UNMERGED] - held[MERGED]:,} parameters on top.\n"
        f"- The CLIP with its prompts encoded for each image runs {times:.1f} times the operations "
        f"of the same CLIP with cached prompts, and holds {held[ENCODED] - held[CACHED]:,} more "
        "parameters."
    )


def time_sentence(latency: pd.DataFrame, machine: Machine) -> str:
    """A Markdown item on `latency_table`."""
    parts = []
    for batch, rows in latency.groupby("batch"):
        ratio = dict(zip(rows["variant"], rows["ratio"], strict=True))
        each = (f"{name} {ratio[name]:.2f}" for name in (UNMERGED, MERGED, ENCODED, CACHED))
        parts.append(f"Batch {batch}: {'; '.join(each)}.")
    return (
        f"- Median time over that of the plain probe, {latency['rounds'].iloc[0]} interleaved "
        f"rounds on {machine}. {' '.join(parts)}"
    )


READABLE = dict.fromkeys(("flops", "parameters", "trainable"), "{:,}")
READABLE |= dict.fromkeys(("gflops", "gmacs", "flops_ratio"), "{:.4g}")


def readable(costs: pd.DataFrame) -> pd.DataFrame:
    """`cost_table` with numbers to read."""
    return costs.assign(**{name: costs[name].map(how.format) for name, how in READABLE.items()})


def paper_sentence(counts: pd.DataFrame, prompt: float, printed: pd.DataFrame) -> str:
    """What explains the paper's numbers.

    Args:
        counts: `cost_table` of `published_variants`.
        prompt: multiply-adds of one encoded prompt, in units of 10^9.
        printed: of `paper.compute`.
    """
    gmacs = dict(zip(counts["variant"], counts["gmacs"], strict=True))
    heads, adapters = gmacs[MERGED] - gmacs[UNIMODAL], gmacs[UNMERGED] - gmacs[MERGED]
    operations = dict(zip(printed["variant"], printed["gflops"], strict=True))
    time = dict(zip(printed["variant"], printed["latency_ms"], strict=True))
    added = operations["clip_it"] - operations["unimodal"]
    slower = 100 * (time["clip_it"] / time["unimodal"] - 1)
    return (
        f"A ViT-B/16 takes {gmacs[UNIMODAL]:.2f} billion multiply-adds, which the paper prints as "
        f"{operations['unimodal']:.0f} GFLOPs. {PROMPTS} prompts of {prompt:.2f} each "
        f"on top come to {gmacs[ENCODED]:.0f} (printed: {operations['clip']:.0f}); with cached "
        f"prompts the same CLIP takes {gmacs[CACHED]:.2f}. The heads of CLIP-IT add {heads:.4f} "
        f"(printed: {added:.3f}). Unmerged adapters of rank 16 would add {adapters:.2f} more: the "
        f"printed operations are without them, while the printed time is {slower:.0f}% above "
        "unimodal. Merged, the two models differ by the heads alone."
    )
