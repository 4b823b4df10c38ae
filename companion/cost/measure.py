"""What training and inference cost: operations, parameters, latency, memory."""

from __future__ import annotations

import copy
import platform
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.benchmark import timer
from torch.utils.flop_counter import FlopCounterMode

from clipit_lib import lora
from clipit_lib.compute import Precision, autocast, device
from clipit_lib.data.reports import TEMPLATES, prompts
from clipit_lib.encoders.encoder import ClipEncoder, Tokenizer
from clipit_lib.encoders.vision import VisionEncoder, checkpoint_gradients
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole
from clipit_lib.model import Output, VisionClassifier, build_model, text_width_of
from clipit_lib.predict import load_classifier
from clipit_lib.run import TEXT_WIDTH_WITHOUT_TEXT
from clipit_lib.runs import AGAIN, MODEL, StoredRun
from clipit_lib.settings import Lora, RunSpec
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
    with _frozen(model):
        return count_flops(lambda: model(images)) / batch


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter requires a gradient within the block.

    PyTorch's counter follows gradients of what a layer is given, and fails where that is a
    parameter (the query of an attention pooler).
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


# -- Wall-clock time of models side by side, fair under drift.


WARM_UP = 3
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """Where a time was taken."""

    processor: str
    threads: int
    torch: str

    def __str__(self) -> str:
        threads = f"{self.threads} thread" + "s" * (self.threads > 1)
        return f"{self.processor}, {threads}, PyTorch {self.torch}"


def this_machine() -> Machine:
    """The accelerator if there is one, else the processor as it names itself."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return Machine(name, torch.get_num_threads(), torch.__version__)


def _processor() -> str:
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int) -> pd.DataFrame:
    """Time every call once a round, so that drift of the machine meets all alike.

    The order is drawn anew each round, and each call is made once untimed just before it is timed,
    so that none pays for what the one before it left in the caches. Returns milliseconds, one row
    a round and one column a call; WARM_UP rounds before them are thrown away.
    """
    rng = np.random.default_rng(0)
    rows = []
    with torch.inference_mode():
        for _ in range(WARM_UP + rounds):
            rows.append({n: _milliseconds(calls[n]) for n in rng.permutation(list(calls))})
    return pd.DataFrame(rows[WARM_UP:], columns=list(calls))


def _milliseconds(call: Callable[[], object]) -> float:
    call()
    begin = timer()  # waits for an accelerator to finish what it was given
    call()
    return 1000 * (timer() - begin)


def latency_summary(times: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Medians and quartiles of times, and their ratios to the median of the baseline.

    Args:
        times: milliseconds [rounds, variants] (see `interleaved`).

    Returns one row a variant: variant, rounds, median_ms, low_ms, high_ms, ratio, ratio_low,
    ratio_high.
    """
    quartiles = times.quantile([0.5, 0.25, 0.75]).T  # [variants, 3]
    ratios = quartiles / times[baseline].median()
    quartiles.columns = pd.Index(["median_ms", "low_ms", "high_ms"])
    ratios.columns = pd.Index(["ratio", "ratio_low", "ratio_high"])
    table = quartiles.join(ratios).rename_axis("variant").reset_index()
    table.insert(1, "rounds", len(times))
    return table


# -- How many numbers a model holds, and how many of them a run trains.


@dataclass(frozen=True)
class Parameters:
    """Counts of single numbers; a shared tensor counts once, statistics of batches not at all."""

    total: int
    trainable: int


def count_parameters(model: nn.Module) -> Parameters:
    """Parameters of a model as it stands: adapters count until they are merged."""
    parameters = list(model.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return Parameters(sum(p.numel() for p in parameters), trainable)


# -- A CLIP as a classifier by prompts, with its text tower at hand or left behind.


def prompt_ids(
    tokenizer: Tokenizer, class_texts: Sequence[str], templates: Sequence[str]
) -> Int[Tensor, "classes templates context"]:
    """Token ids of every class text in every template."""
    filled = prompts(class_texts, templates)
    ids = tokenizer.windows([text for of_class in filled for text in of_class], "truncate").ids
    return ids.unflatten(0, (len(class_texts), len(templates)))


class EncodedPrompts(nn.Module):
    """All prompts are encoded again in each call, as in the released code that counts FLOPs."""

    ids: Tensor

    def __init__(
        self,
        image_tower: nn.Module,
        text_tower: nn.Module,
        ids: Int[Tensor, "classes templates context"],
    ) -> None:
        super().__init__()
        self.image_tower, self.text_tower = image_tower, text_tower
        self.register_buffer("ids", ids)

    def class_embeddings(self) -> Float[Tensor, "classes d"]:
        """Mean over templates of the unit-length prompt embeddings."""
        texts = F.normalize(self.text_tower(self.ids.flatten(0, 1)), dim=-1)
        return texts.unflatten(0, self.ids.shape[:2]).mean(dim=1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Cosine similarities averaged over templates: the product with their mean."""
        image = F.normalize(self.image_tower(images), dim=-1)
        return image @ self.class_embeddings().T


class CachedPrompts(nn.Module):
    """The same answers from [classes, d] numbers computed once; no text tower is deployed."""

    def __init__(self, image_tower: nn.Module, classes: Float[Tensor, "classes d"]) -> None:
        super().__init__()
        self.image_tower = image_tower
        self.classes = nn.Parameter(classes, requires_grad=False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        return F.normalize(self.image_tower(images), dim=-1) @ self.classes.T


@torch.no_grad()
def cached(model: EncodedPrompts) -> CachedPrompts:
    """Encode the prompts now, for good."""
    return CachedPrompts(model.image_tower, model.class_embeddings())


# -- Memory of a LoRA training step, played through with tensors that have a shape but no values.
#
# Every operation of the forward and the backward pass is carried out on PyTorch's fake tensors,
# and the bytes of all tensors that are alive are added up: the largest sum is what the step needs
# beyond the weights. So attention, gradients of adapters, casts to bfloat16 and blocks that are
# computed again are in it by themselves. Not in it: PyTorch's own context on a GPU (about 0.5
# GB), workspaces of its kernels, and what its allocator leaves unused (a tenth or two).


ADAM = 2  # moments a trained number has


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of one training step.

    Attributes:
        weights: of the frozen backbone, float32.
        learned: the adapters with their gradients and Adam's moments, float32.
        activations: the most that is alive at once besides, the batch of images included (and
            gradients of adapters where they are alive then, so the total is a little too large).
    """

    weights: int
    learned: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.learned + self.activations


def training_memory(
    encoder: VisionEncoder,
    settings: Lora,
    batch: int,
    precision: Precision = "no",
    checkpointing: bool = False,
) -> TrainingMemory:
    """What a LoRA step on a backbone needs; nothing is computed, and the encoder stays as it is.

    Args:
        encoder: with or without weights, for example `backbones.untrained` on the device `meta`.
        checkpointing: with `checkpoint_gradients`.
    """
    model = copy.deepcopy(encoder.model).to("meta")
    with torch.device("meta"):
        lora.inject(model, encoder.lora_targets, settings)
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters()) - learned
    if checkpointing:
        checkpoint_gradients(model)
    size = encoder.transform.size
    most = peak_activations(model, (batch, 3, size, size), precision)
    return TrainingMemory(4 * frozen, 4 * (2 + ADAM) * learned, most)


def peak_activations(model: nn.Module, shape: tuple[int, ...], precision: Precision = "no") -> int:
    """Most bytes alive at once in a forward and backward pass, weights left out.

    Args:
        shape: of the input, float32.
    """
    fake = copy.deepcopy(model).to("meta").train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake.to_empty(device="cpu")
        alive = _Alive([*fake.parameters(), *fake.buffers()])
        # As on a GPU, whatever attention is made of on this machine.
        with alive, sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            inputs = torch.empty(shape)
            with autocast(precision):
                output = fake(inputs)
            output.float().sum().backward()
    return alive.most


class _Alive(TorchDispatchMode):
    """Adds up the memory of tensors while they are alive."""

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in given}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


# -- What the classifier of a run costs where it is deployed.


Prompts = Literal["cached", "encoded"]


@dataclass(frozen=True)
class Cost:
    """Numbers held and operations for one image (two a multiply-add)."""

    parameters: int
    flops: int

    @property
    def gflops(self) -> float:
        return self.flops / 1e9


def deployed_cost(spec: RunSpec, bench: Workbench, prompts: Prompts = "cached") -> Cost:
    """Cost of a run's classifier with its adapters merged, one image at a time.

    Weights do not matter, so none of the run's are loaded.

    Args:
        prompts: what `contrastive` and `zero_shot` deploy: the image tower and one embedding a
            class, or both towers with every prompt encoded again for each image.

    Raises:
        ClipItError: the run classifies texts, not images.
    """
    if spec.text_only:
        raise ClipItError(f"{spec.setting} sees no image", "deployed cost", "Leave this run out")
    if spec.contrastive is not None:
        model, size = _by_prompts(spec, bench, prompts)
    else:
        model, size = _by_heads(spec, bench)
    return Cost(count_parameters(model).total, round(flops_per_image(model.eval(), size)))


def _by_heads(spec: RunSpec, bench: Workbench) -> tuple[nn.Module, int]:
    encoder = bench.backbone(spec.backbone)
    classes, size = len(bench.dataset(spec.dataset).classes), encoder.transform.size
    if spec.branch == "direct":  # its map to text features is thrown away after training
        return VisionClassifier(encoder.model, encoder.width, classes), size
    text_width = TEXT_WIDTH_WITHOUT_TEXT
    if spec.text is not None:
        text_width = bench.retriever(spec.text.retriever).width
    return build_model(spec, encoder.model, encoder.width, classes, text_width), size


def _by_prompts(spec: RunSpec, bench: Workbench, prompts: Prompts) -> tuple[nn.Module, int]:
    assert spec.contrastive is not None
    clip, texts = bench.retriever(spec.backbone), bench.dataset(spec.dataset).class_texts
    size = clip.transform.size
    if prompts == "cached":
        return CachedPrompts(clip.image_tower, torch.zeros(len(texts), clip.width)), size
    ids = prompt_ids(clip.tokenizer, texts, TEMPLATES[spec.contrastive.templates])
    return EncodedPrompts(clip.image_tower, clip.text_tower, ids), size


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
        rows.append(
            [spec.key, one.parameters, one.flops, one.gflops, other.parameters, other.flops]
        )
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
    model = build_model(spec, encoder.model, encoder.width, classes, text_width_of(state))
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
        table = latency_summary(interleaved(calls, rounds), next(iter(models)))
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
