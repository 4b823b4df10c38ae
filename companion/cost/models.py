"""What the paper's models cost beside what it prints, and findings on cost in words."""

from __future__ import annotations

import copy

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
    Variant,
    prompted,
)

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
    printed = paper.printed("compute").set_index("variant")["gflops"]
    names = {UNIMODAL: "unimodal", MERGED: "clip_it", ENCODED: "clip"}
    table = counted[["variant", "gmacs"]].assign(
        printed=counted["variant"].map(names).map(printed),
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
    one = costs[costs["batch"] == 1].set_index("variant")
    held, flops = one["parameters"], one["flops"]
    more = (100 * (flops / flops[UNIMODAL] - 1)).map("{:.1f}%".format)
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


def time_sentence(latency: pd.DataFrame, machine: str) -> str:
    """A Markdown item on `latency_table`."""
    parts = []
    for batch, rows in latency.groupby("batch"):
        ratio = rows.set_index("variant")["ratio"]
        each = (f"{name} {ratio[name]:.2f}" for name in (UNMERGED, MERGED, ENCODED, CACHED))
        parts.append(f"Batch {batch}: {'; '.join(each)}.")
    return (
        f"- Median time over that of the plain probe, {latency['rounds'].iloc[0]} interleaved "
        f"rounds on {machine}. {' '.join(parts)}"
    )


def readable(costs: pd.DataFrame) -> pd.DataFrame:
    """`cost_table` with numbers to read."""
    shown = dict.fromkeys(("flops", "parameters", "trainable"), "{:,}")
    shown |= dict.fromkeys(("gflops", "gmacs", "flops_ratio"), "{:.4g}")
    return costs.assign(**{name: costs[name].map(how.format) for name, how in shown.items()})


def paper_sentence(counts: pd.DataFrame) -> str:
    """What explains the paper's numbers, from `cost_table` of `published_variants`."""
    gmacs, prompt = counts.set_index("variant")["gmacs"], prompt_gmacs(counts)
    printed = paper.printed("compute").set_index("variant")
    heads, adapters = gmacs[MERGED] - gmacs[UNIMODAL], gmacs[UNMERGED] - gmacs[MERGED]
    operations, time = printed["gflops"], printed["latency_ms"]
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
