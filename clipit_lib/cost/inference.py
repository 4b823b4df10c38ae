"""Five ways to deploy, side by side: what each one runs for an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from clipit_lib import lora
from clipit_lib.classifier import load_classifier
from clipit_lib.compute import device
from clipit_lib.cost.flops import flops_per_image
from clipit_lib.cost.latency import interleaved, summary
from clipit_lib.cost.parameters import count_parameters
from clipit_lib.cost.prompted import EncodedPrompts, cached, prompt_ids
from clipit_lib.encoders.towers import ClipEncoder
from clipit_lib.files import whole
from clipit_lib.model import Output
from clipit_lib.runs import AGAIN, MODEL, StoredRun
from clipit_lib.variants import build, text_width_of
from clipit_lib.workbench import Workbench

UNIMODAL, UNMERGED, MERGED = "unimodal", "CLIP-IT, adapters unmerged", "CLIP-IT, adapters merged"
ENCODED, CACHED = "CLIP, prompts encoded", "CLIP, prompts cached"
BATCHES = (1, 64)


@dataclass(frozen=True)
class Variant:
    """A model in evaluation mode and the side of the images it takes, in pixels."""

    model: nn.Module
    size: int


def variants(
    unimodal: StoredRun, clip_it: StoredRun, bench: Workbench, templates: Sequence[str]
) -> dict[str, Variant]:
    """The five by name, from two stored runs and the profile's retriever with all prompts."""
    probe, merged = load_classifier(unimodal.folder), load_classifier(clip_it.folder)
    probe.model.get_submodule("backbone").requires_grad_(False)
    merged.model.requires_grad_(False)
    class_texts, size = bench.dataset(clip_it.spec.dataset).class_texts, merged.transform.size
    return {
        UNIMODAL: Variant(probe.model, probe.transform.size),
        UNMERGED: Variant(unmerged(clip_it, bench), size),
        MERGED: Variant(merged.model, size),
        **prompted(bench.clip, class_texts, templates),
    }


def unmerged(run: StoredRun, bench: Workbench) -> nn.Module:
    """CLIP-IT as it was trained: adapters beside the layers that they adapt."""
    spec = run.spec
    with whole(run.folder / MODEL, AGAIN):
        state = load_file(run.folder / MODEL)
    assert spec.lora is not None and spec.protocol is not None
    encoder = bench.backbone(spec.backbone, spec.normalisation)
    lora.inject(encoder.model, encoder.lora_targets, spec.lora, spec.protocol.lora_targets)
    classes = len(bench.dataset(spec.dataset).classes)
    model = build(spec, encoder.model, encoder.width, classes, text_width_of(state))
    model.load_state_dict(state, strict=False)
    return model.to(device()).eval()


def prompted(
    clip: ClipEncoder, class_texts: Sequence[str], templates: Sequence[str]
) -> dict[str, Variant]:
    """A CLIP that classifies by prompts, encoded in each call and cached."""
    ids = prompt_ids(clip.tokenizer, class_texts, templates)
    encoded = EncodedPrompts(clip.image_tower, clip.text_tower, ids).to(device()).eval()
    size = clip.transform.size
    return {ENCODED: Variant(encoded, size), CACHED: Variant(cached(encoded).eval(), size)}


def cost_table(models: dict[str, Variant], batches: Sequence[int] = BATCHES) -> pd.DataFrame:
    """One row a variant and batch size: variant, batch, flops, gflops, gmacs (for one image),
    flops_ratio (over the first variant), parameters, trainable."""
    rows = []
    for batch in batches:
        flops = {name: flops_per_image(v.model, v.size, batch) for name, v in models.items()}
        first = next(iter(flops.values()))
        for name, count in flops.items():
            held = count_parameters(models[name].model)
            rows.append(
                [name, batch, round(count), count / 1e9, count / 2e9, count / first,
                 held.total, held.trainable]
            )  # fmt: skip
    columns = ["variant", "batch", "flops", "gflops", "gmacs", "flops_ratio", "parameters"]
    return pd.DataFrame(rows, columns=[*columns, "trainable"])


def latency_table(
    models: dict[str, Variant], rounds: int, batches: Sequence[int] = BATCHES
) -> pd.DataFrame:
    """One row a variant and batch size: batch, and the columns of `latency.summary`.

    Times are of a whole call. Decoding, the transform and tokenising are not in them.
    """
    parts = []
    for batch in batches:
        rng = torch.Generator().manual_seed(0)
        calls = {name: _call(variant, batch, rng) for name, variant in models.items()}
        table = summary(interleaved(calls, rounds), next(iter(models)))
        table.insert(1, "batch", batch)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _call(variant: Variant, batch: int, rng: torch.Generator) -> Callable[[], Tensor]:
    images = torch.rand(batch, 3, variant.size, variant.size, generator=rng).to(device())
    return lambda: variant.model(images)


@torch.inference_mode()
def largest_differences(models: dict[str, Variant], images: int = 8) -> pd.DataFrame:
    """How far apart the answers of two ways to deploy one model are, on random images.

    One row a pair: variant, beside, largest_difference, largest_answer (both absolute).
    """
    rows = []
    for one, other in ((UNMERGED, MERGED), (ENCODED, CACHED)):
        rng = torch.Generator().manual_seed(0)
        batch = torch.rand(images, 3, models[one].size, models[one].size, generator=rng)
        first, second = (_answers(models[name].model(batch.to(device()))) for name in (one, other))
        difference, answer = (first - second).abs().max().item(), first.abs().max().item()
        rows.append([one, other, difference, answer])
    return pd.DataFrame(rows, columns=["variant", "beside", "largest_difference", "largest_answer"])


def _answers(output: Output | Tensor) -> Tensor:
    return output.logits if isinstance(output, Output) else output
