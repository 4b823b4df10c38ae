"""What inference costs, beside what the paper prints: operations, parameters, latency."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from timeit import timeit
from typing import Literal

import numpy as np
import open_clip
import pandas as pd
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import timer
from torch.utils.flop_counter import FlopCounterMode

from clipit_lib import lora
from clipit_lib.compute import device
from clipit_lib.data.patches import Transform
from clipit_lib.data.reports import TEMPLATES
from clipit_lib.encoders import clips, registry, vision
from clipit_lib.encoders.encoder import ClipEncoder, Tokenizer
from clipit_lib.encoders.vision import VIT_TARGETS
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole
from clipit_lib.model import ClipIt, Output, VisionClassifier, build_model, text_width_of
from clipit_lib.predict import load_classifier
from clipit_lib.prompts import PromptClassifier
from clipit_lib.run import TEXT_WIDTH_WITHOUT_TEXT
from clipit_lib.runs import AGAIN, MODEL, StoredRun
from clipit_lib.settings import Contrastive, Lora, RunSpec
from companion import paper
from companion.deploy import cached
from companion.exported import ClassEmbeddings
from companion.measures import COST_COLUMNS
from companion.profile import Workbench

# -- Floating-point operations, counted by PyTorch while a model runs.


def count_flops(call: Callable[[], object]) -> int:
    """Operations of the matrix products and convolutions in `call()`, without gradients.

    A multiply-add counts as two. What fvcore, and so the paper, calls FLOPs are multiply-adds:
    half of this number. Biases, normalisations and activations count nothing.
    """
    counter = FlopCounterMode(display=False)
    # On a CPU the counter does not see fused attention; the plain kernel is matrix products.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        call()
    return int(counter.get_total_flops())


def flops_per_image(model: nn.Module, size: int, batch: int = 1) -> float:
    """Operations for one of `batch` images [3, size, size].

    What a call does once, whatever the batch, is shared by its images. A model on PyTorch's
    `meta` device is counted without weights and without computing anything.
    """
    images = torch.zeros(batch, 3, size, size, device=next(model.parameters()).device)
    # PyTorch's counter follows gradients of what a layer is given, and fails where that is a
    # parameter (the query of an attention pooler).
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        return count_flops(lambda: model(images)) / batch
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


# -- Wall-clock time of models side by side, fair under drift.

WARM_UP = 3
CPU_INFO = Path("/proc/cpuinfo")


def processor() -> str:
    """The accelerator if there is one, else the processor as it names itself."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def this_machine() -> str:
    """Where a time was taken."""
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}, PyTorch {torch.__version__}"


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int) -> pd.DataFrame:
    """Time every call once a round, so that drift of the machine meets all alike.

    The order is drawn anew each round, and each call is made once untimed just before it is timed,
    so that none pays for what the one before it left in the caches. Returns milliseconds, one row
    a round and one column a call; WARM_UP rounds before them are thrown away.
    """
    rng = np.random.default_rng(0)
    with torch.inference_mode():
        rows = [
            # This timer waits for an accelerator to finish what it was given.
            {name: timeit(calls[name], calls[name], timer, 1) for name in rng.permutation([*calls])}
            for _ in range(WARM_UP + rounds)
        ]
    return 1000 * pd.DataFrame(rows[WARM_UP:], columns=list(calls))


def latency_summary(times: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Medians and quartiles of times, and their ratios to the median of the baseline.

    Args:
        times: milliseconds [rounds, variants] (see `interleaved`).

    Returns one row a variant: variant, rounds, median_ms, low_ms, high_ms, ratio, ratio_low,
    ratio_high.
    """
    quartiles = times.quantile([0.5, 0.25, 0.75]).T  # [variants, 3]
    both = np.hstack([quartiles, quartiles / times[baseline].median()])
    columns = ["median_ms", "low_ms", "high_ms", "ratio", "ratio_low", "ratio_high"]
    table = pd.DataFrame(both, times.columns, columns).rename_axis("variant").reset_index()
    table.insert(1, "rounds", len(times))
    return table


# -- How many numbers a model holds, and how many of them a run trains.


def count_parameters(model: nn.Module, trainable: bool = False) -> int:
    """Single numbers in a model as it stands, all or those that are trained.

    Adapters count until they are merged; a shared tensor counts once, statistics of batches not.
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


# -- What the classifier of a run costs where it is deployed.

Prompts = Literal["cached", "encoded"]


@dataclass(frozen=True)
class Cost:
    """Numbers held and operations for one image (two a multiply-add)."""

    parameters: int
    flops: int


def deployed_cost(spec: RunSpec, bench: Workbench, prompts: Prompts = "cached") -> Cost:
    """Cost of a run's classifier with its adapters merged, one image at a time.

    Weights do not matter, so none of the run's are loaded.

    Args:
        prompts: what `contrastive` and `zero_shot` deploy: the image tower and one embedding a
            class, or both towers with every prompt encoded again for each image.

    Raises:
        ClipItError: the run classifies texts, not images.
    """
    model: nn.Module
    if spec.branch == "text_only":
        raise ClipItError(f"{spec.setting} sees no image", "deployed cost", "Leave this run out")
    if spec.contrastive is not None:
        clip = bench.retriever(spec.backbone)
        size = clip.transform.size
        classes = torch.zeros(len(spec.contrastive.class_texts), clip.width)
        model = ClassEmbeddings(clip.image_tower, classes)
        if prompts == "encoded":
            model = EncodedPrompts(PromptClassifier(clip, spec.contrastive))
    else:
        encoder = bench.backbone(spec.backbone)
        tower, width, size = encoder.model, encoder.width, encoder.transform.size
        count, text_width = len(bench.dataset(spec.dataset).classes), TEXT_WIDTH_WITHOUT_TEXT
        if spec.text is not None:
            text_width = bench.retriever(spec.text.retriever).width
        model = build_model(spec, tower, width, count, text_width)
        if spec.branch == "direct":  # its map to text features is thrown away after training
            model = VisionClassifier(tower, width, count)
    return Cost(count_parameters(model), round(flops_per_image(model.eval(), size)))


def cost_columns(specs: Iterable[RunSpec], bench: Workbench) -> pd.DataFrame:
    """One row a run: run, parameters_deployed, flops, gflops, parameters_encoded, flops_encoded.

    The last two are of prompts encoded again for each image; without prompts nothing changes.
    """
    known: dict[str, tuple[Cost, Cost]] = {}
    rows = []
    for spec in specs:
        cell = spec.model_copy(update={"seed": 0}).key  # a seed changes no shape
        if cell not in known:
            known[cell] = (deployed_cost(spec, bench), deployed_cost(spec, bench, "encoded"))
        one, other = known[cell]
        counts = [one.parameters, one.flops, one.flops / 1e9, other.parameters, other.flops]
        rows.append([spec.key, *counts])
    return pd.DataFrame(rows, columns=["run", *COST_COLUMNS])


# -- Five ways to deploy, side by side: what each one runs for an image.

UNIMODAL, UNMERGED, MERGED = "unimodal", "CLIP-IT, adapters unmerged", "CLIP-IT, adapters merged"
ENCODED, CACHED = "CLIP, prompts encoded", "CLIP, prompts cached"
BATCHES = (1, 64)


@dataclass(frozen=True)
class Variant:
    """A model in evaluation mode and the side of the images it takes, in pixels."""

    model: nn.Module
    size: int


def variants(unimodal: StoredRun, clip_it: StoredRun, bench: Workbench) -> dict[str, Variant]:
    """The five by name, from two stored runs and the profile's retriever with all prompts."""
    probe, merged = load_classifier(unimodal.folder), load_classifier(clip_it.folder)
    probe.model.get_submodule("backbone").requires_grad_(False)
    merged.model.requires_grad_(False)
    texts, size = bench.dataset(clip_it.spec.dataset).class_texts, merged.transform.size
    templates = bench.profile.templates_of(bench.profile.retriever)
    asked = Contrastive(templates=templates, class_texts=texts, temperature=1.0)
    return {
        UNIMODAL: Variant(probe.model, probe.transform.size),
        UNMERGED: Variant(unmerged(clip_it, bench), size),
        MERGED: Variant(merged.model, size),
    } | {
        name: Variant(model.to(device()).eval(), bench.clip.transform.size)
        for name, model in prompted(bench.clip, asked).items()
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
    model = build_model(spec, encoder.model, encoder.width, classes, text_width_of(state))
    model.load_state_dict(state, strict=False)
    return model.to(device()).eval()


class EncodedPrompts(nn.Module):
    """Encodes all prompts again in each call, as in the released code that counts FLOPs."""

    def __init__(self, prompts: PromptClassifier) -> None:
        super().__init__()
        self.prompts = prompts

    def forward(self, images: Tensor) -> Output:
        classes = self.prompts.class_embeddings(self.prompts.windows.texts)
        return Output(self.prompts.images(images) @ classes.T)


def prompted(clip: ClipEncoder, settings: Contrastive) -> dict[str, nn.Module]:
    """A CLIP that classifies by prompts, encoded in each call and cached."""
    model = PromptClassifier(clip, settings).eval()
    return {ENCODED: EncodedPrompts(model), CACHED: cached(model)}


def cost_table(models: dict[str, Variant], batches: Sequence[int] = BATCHES) -> pd.DataFrame:
    """One row a variant and batch size: variant, batch, flops, gflops, gmacs (for one image),
    flops_ratio (over the first variant), parameters, trainable."""
    rows = []
    for batch in batches:
        flops = {name: flops_per_image(v.model, v.size, batch) for name, v in models.items()}
        first = next(iter(flops.values()))
        for name, count in flops.items():
            held = [count_parameters(models[name].model, only) for only in (False, True)]
            per_image = [round(count), count / 1e9, count / 2e9, count / first]
            rows.append([name, batch, *per_image, *held])
    columns = ["variant", "batch", "flops", "gflops", "gmacs", "flops_ratio", "parameters"]
    return pd.DataFrame(rows, columns=[*columns, "trainable"])


def latency_table(
    models: dict[str, Variant], rounds: int, batches: Sequence[int] = BATCHES
) -> pd.DataFrame:
    """One row a variant and batch size: batch, and the columns of `latency_summary`.

    Times are of a whole call. Decoding, the transform and tokenising are not in them.
    """
    parts = []
    for batch in batches:
        rng = torch.Generator().manual_seed(0)
        calls = {name: _call(variant, batch, rng) for name, variant in models.items()}
        table = latency_summary(interleaved(calls, rounds), next(iter(models)))
        table.insert(1, "batch", batch)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _call(variant: Variant, batch: int, rng: torch.Generator) -> Callable[[], Output]:
    images = torch.rand(batch, 3, variant.size, variant.size, generator=rng).to(device())
    return lambda: variant.model(images)


@torch.inference_mode()
def largest_differences(models: dict[str, Variant]) -> pd.DataFrame:
    """How far apart the answers of two ways to deploy one model are, on eight random images.

    One row a pair: variant, beside, largest_difference, largest_answer (both absolute).
    """
    rows = []
    for pair in ((UNMERGED, MERGED), (ENCODED, CACHED)):
        calls = [_call(models[name], 8, torch.Generator().manual_seed(0)) for name in pair]
        first, second = (call().logits for call in calls)
        rows.append([*pair, (first - second).abs().max().item(), first.abs().max().item()])
    return pd.DataFrame(rows, columns=["variant", "beside", "largest_difference", "largest_answer"])


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
        printed=counted["variant"].map(names).map(printed), parameters_M=counted["parameters"] / 1e6
    )
    return table.round(4)


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
    gmacs = counts.set_index("variant")["gmacs"]
    prompt = (gmacs[ENCODED] - gmacs[CACHED]) / PROMPTS
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
