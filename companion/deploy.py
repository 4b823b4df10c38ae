"""The command `export`: an image-only classifier as a folder with ONNX and model card."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from timeit import timeit
from typing import Any

import numpy as np
import pandas as pd
import torch
from huggingface_hub.repocard_data import EvalResult, ModelCardData
from jaxtyping import Float, Int
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipit_lib import lora, predict, runs
from clipit_lib.data.patches import Transform
from clipit_lib.encoders import registry, weights
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole, written_beside
from clipit_lib.model import ClipIt, TextBranch, VisionClassifier
from clipit_lib.predictions import LOGIT
from clipit_lib.prompts import PromptClassifier
from clipit_lib.runs import AGAIN, MODEL, StoredRun
from clipit_lib.runs import CARD as RUN_CARD
from clipit_lib.settings import RunSpec
from companion.exported import (
    CARD,
    DESCRIPTION,
    GRAPH,
    HEADS,
    INPUT,
    INT8,
    OUTPUTS,
    WEIGHTS,
    ClassEmbeddings,
    Description,
    Graph,
    load_graph,
    network_of,
)
from companion.profile import Workbench, load_profile
from companion.specs import label
from companion.statistics import Cell, Interval, correct, pooled_bootstrap, units
from companion.tables import escaped, markdown

# -- README.md of an exported classifier: what it is, how good it was, what it is not for.


PAGE = Path(__file__).parent / "page"
DRAWS = 2000
NOT_IN_SETTINGS = {"version", "dataset", "data_hash", "backbone", "setting", "seed"}


def scores_on_test(predictions: pd.DataFrame) -> dict[str, Interval]:
    """Accuracy and balanced accuracy in percent, each with a 95% bootstrap interval.

    Groups are drawn (single patches where none are known); the seed is one and is not drawn.
    """
    hits = correct(predictions)[None]  # [1, n]
    labels = predictions["label"].to_numpy()
    return {
        name: pooled_bootstrap(
            [Cell.of_cases(hits, units(predictions), of)], DRAWS, np.random.default_rng(0)
        )
        for name, of in (("accuracy", None), ("balanced accuracy", labels))
    }


def class_table(
    predictions: pd.DataFrame, classes: Sequence[str], class_texts: Sequence[str]
) -> pd.DataFrame:
    """One row a class: patches in the test split, recall, precision and F1 in percent."""
    from sklearn.metrics import precision_recall_fscore_support  # slow to import

    answers = predictions.filter(like=LOGIT).to_numpy().argmax(axis=1)
    precision, recall, f1, count = precision_recall_fscore_support(
        predictions["label"], answers, labels=range(len(classes)), zero_division=0
    )
    shares = {"recall (%)": recall, "precision (%)": precision, "F1 (%)": f1}
    table = pd.DataFrame(
        {"class": list(classes), "meaning": list(class_texts), "test patches": count}
        | {name: [f"{100 * value:.1f}" for value in values] for name, values in shares.items()}
    )
    never = ~np.isin(np.arange(len(classes)), answers)
    table.loc[never, "precision (%)"] = "never said"
    return table


def caveats(spec: RunSpec, description: Description, limits: str) -> list[str]:
    """What a reader must know of data, backbone and retriever."""
    said = [escaped(limits)]
    if description.network.origin == weights.PHANTOM:
        said.append(
            "The backbone was trained on this project's phantom, procedural H&E-like patches: it "
            "has never seen tissue. This classifier is for trying things out, and for nothing else."
        )
    names = [spec.text.retriever] if spec.text else []
    said += [registry.entry(name).caveat for name in (*names, spec.backbone)]
    return list(dict.fromkeys(text for text in said if text))


def card_written(
    run: StoredRun,
    facts: Mapping[str, Any],
    description: Description,
    onnx: tuple[int, float] | None,
    int8: str | None = None,
) -> str:
    """The card as Markdown, by the template `page/model_card.md.j2`.

    Args:
        onnx: opset of the graph and how far it is from torch, None without a graph.
        int8: what is to be said of the smaller graph, None without it.
    """
    predictions, dataset = run.predictions(), run.spec.dataset
    found = scores_on_test(predictions)
    scores = [
        {
            "score on test": name,
            "value (%)": f"{score.estimate:.1f}",
            "95% interval": f"{score.low:.1f} to {score.high:.1f}",
        }
        for name, score in found.items()
    ]
    metadata = ModelCardData(
        license="other",
        license_name=f"backbone: {description.network.licence}; data: {description.licence}",
        library_name="clipit-companion",
        pipeline_tag="image-classification",
        tags=["histology", "clip-it"],
        model_name=run.key,
        eval_results=[
            EvalResult("image-classification", dataset, dataset, name, score.estimate)
            for name, score in found.items()
        ],
    )
    groups = predictions["group"]
    settings = run.spec.model_dump(mode="json", exclude_none=True, exclude=NOT_IN_SETTINGS)
    environment = Environment(
        loader=FileSystemLoader(PAGE), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["escaped"] = escaped
    environment.filters["joined"] = lambda versions: ", ".join(map(" ".join, versions.items()))
    return environment.get_template("model_card.md.j2").render(
        run=run,
        metadata=metadata.to_yaml(),
        label=label(run.spec.setting),
        description=description,
        caveats=caveats(run.spec, description, facts["limits"]),
        scores=markdown(pd.DataFrame(scores)),
        patches=len(predictions),
        groups=groups.nunique() if (groups != "").all() else 0,
        by_class=markdown(class_table(predictions, facts["classes"], facts["class_texts"])),
        settings=json.dumps(settings),
        onnx=onnx,
        int8=int8,
    )


# -- model.onnx: images from 0 to 1 go in, normalisation is inside, any number at a time.


PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
BATCHES = (1, 5)


class Normalised(nn.Module):
    """A classifier that normalises by itself: nobody can give it the wrong statistics."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, transform: Transform) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(transform.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(transform.std).view(3, 1, 1))

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, Tensor]:
        """Logits and probabilities [b, c] of RGB from 0 to 1."""
        logits = self.model((images - self.mean) / self.std).logits
        return logits, logits.softmax(dim=-1)


def write_graph(model: nn.Module, description: Description, folder: Path) -> tuple[int, float]:
    """Write model.onnx of a model on the CPU; return its opset and what `checked_graph` finds."""
    whole, size = Normalised(model, description.input).eval(), description.input.size
    program = torch.onnx.export(
        whole,
        (torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)),),
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props["classes"] = json.dumps(description.classes)
    program.model.metadata_props["run"] = description.run
    program.save(folder / GRAPH, external_data=False)
    return program.model.opset_imports[""], checked_graph(folder / GRAPH, whole, size)


@torch.inference_mode()
def checked_graph(path: Path, whole: nn.Module, size: int) -> float:
    """Largest difference of a graph from torch, in logits and probabilities of random images.

    Args:
        whole: `Normalised`, in evaluation mode.

    Raises:
        ClipItError: it is more than 1e-4.
    """
    session = Graph(path).session
    rng, largest = torch.Generator().manual_seed(1), 0.0
    for batch in BATCHES:
        images = torch.rand(batch, 3, size, size, generator=rng)
        found = session.run(list(OUTPUTS), {INPUT: images.numpy()})
        for ours, theirs in zip(whole(images), found, strict=True):
            largest = max(largest, float(np.abs(ours.numpy() - theirs).max()))
    if not largest <= TOLERANCE:
        what = f"ONNX differs from torch by {largest:.1g}"
        raise ClipItError(what, path, "Leave it out with --no-onnx")
    return largest


# -- model.int8.onnx: the weights of matrix products in 8 bits, those of convolutions as they were.


MOST_LOST = 0.2  # of balanced accuracy, in points
COMPARED, TIMED = 1000, 64  # patches at most


def write_int8(folder: Path, run: StoredRun, bench: Workbench) -> str:
    """Write model.int8.onnx beside model.onnx; how both compare on validation, for the card.

    Raises:
        ClipItError: it is less accurate by more than `most_lost`; the profile has other patches.
    """
    from onnxruntime.quantization import quantize_dynamic
    from sklearn.metrics import balanced_accuracy_score  # slow to import

    data = bench.dataset(run.spec.dataset)
    if data.content_hash != run.spec.data_hash:
        what = f"its {run.spec.dataset} has other patches than the run was trained with"
        raise ClipItError(what, f"profile {bench.profile.name}", "Name the run's own with --int8")
    quantize_dynamic(folder / GRAPH, folder / INT8, op_types_to_quantize=["MatMul", "Gemm"])
    rows = data.indices("validation")
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, COMPARED).astype(int))]
    pixels, both = np.asarray(data.pixels[rows]), [load_graph(folder, n) for n in (GRAPH, INT8)]
    calls = [partial(each.probabilities, pixels[:TIMED]) for each in both]
    seconds = [[timeit(call, number=1) for call in calls] for _ in range(5)]
    found = [each.probabilities(pixels) for each in both]
    answers = [each.argmax(dim=1) for each in found]
    scores = [100 * balanced_accuracy_score(data.labels[rows], each) for each in answers]
    size = [(folder / name).stat().st_size / 1e6 for name in (INT8, GRAPH)]
    said = (
        f"on {len(rows)} validation patches balanced accuracy is {scores[1]:.1f}% in place of "
        f"{scores[0]:.1f}%, {(answers[0] != answers[1]).sum()} answers differ, and no probability "
        f"by more than {(found[0] - found[1]).abs().max():.3f}"
    )
    if scores[0] - scores[1] > most_lost(data.labels[rows]) + 1e-9:
        raise ClipItError(f"int8 loses too much: {said}", run.folder, "Leave --int8 out")
    faster = np.divide(*np.median(seconds, axis=0))
    return (
        f"{size[0]:.1f} of {size[1]:.1f} MB, {faster:.1f} times as fast where it was made; {said}"
    )


def most_lost(labels: Int[np.ndarray, " n"]) -> float:
    """Points of balanced accuracy: 0.2, or one patch of the rarest class if it counts for more."""
    counts = np.unique(labels, return_counts=True)[1]
    return max(MOST_LOST, 100 / (len(counts) * counts.min()))


# -- Export a trained classifier: one folder with merged weights, a description, ONNX and a card.


VERSIONS = ("torch", "timm")


def export(run: StoredRun, output: Path, onnx: bool = True, int8: Workbench | None = None) -> Path:
    """Write the image-only classifier of a run to a folder of its own, whole or not at all.

    Args:
        int8: where the run's patches are, to write and compare model.int8.onnx too.

    Raises:
        ClipItError: the run has no image-only classifier, its card is damaged, `output` holds
            something else, a package for ONNX is missing; see also `predict.load_classifier`.
    """
    if run.spec.branch == "text_only":
        what = f"the run ({run.spec.setting}) classifies texts: there is no image-only model in it"
        raise ClipItError(what, run.folder, "Name a run of another setting")
    if output.exists() and not (output / DESCRIPTION).exists():
        raise ClipItError("this exists and is no exported classifier", output, "Name a new folder")
    for name in PACKAGES if onnx else ():
        try:
            importlib.import_module(name)
        except ImportError as error:
            fix = f"Run `pip install {' '.join(PACKAGES)}`, or leave ONNX out with --no-onnx"
            raise ClipItError(f"ONNX needs the package {name}", "export", fix) from error
    kept = run.folder / RUN_CARD  # what the run kept of its data set
    with whole(kept, AGAIN):
        read = json.loads(kept.read_text(encoding="utf-8"))
        facts = {name: read[name] for name in ("classes", "class_texts", "licence", "limits")}
    model, transform = _classifier(run)
    description = _describe(run, facts, model, transform)
    with written_beside(output) as temporary:
        temporary.mkdir()
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(state, temporary / WEIGHTS, metadata={"run": run.key})
        (temporary / WEIGHTS).chmod(0o644)  # it is written for its owner alone
        text = description.model_dump_json(indent=1)
        (temporary / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        checked = write_graph(model, description, temporary) if onnx else None
        smaller = write_int8(temporary, run, int8) if int8 else None
        text = card_written(run, facts, description, checked, smaller)
        (temporary / CARD).write_text(text, encoding="utf-8")
    return output


@torch.no_grad()
def cached(model: PromptClassifier) -> ClassEmbeddings:
    """The image-only classifier of a CLIP: all prompts are encoded now, for good."""
    return ClassEmbeddings(model.image_tower, model.class_embeddings())


def _classifier(run: StoredRun) -> tuple[nn.Module, Transform]:
    """The deployed model on the CPU, without what only training used, and its input transform."""
    spec = run.spec
    if spec.contrastive is not None:  # zero-shot runs as well; adapters are of both towers
        with whole(run.folder / MODEL, AGAIN):
            state = load_file(run.folder / MODEL)
        sources = weights.sources_of(spec)
        weights.require_same(spec, registry.weights_hash(spec.backbone, sources), run.folder)
        encoder = registry.load_clip(spec.backbone, sources)
        model = PromptClassifier(encoder, spec.contrastive)
        for name in ("image_tower", "text_tower"):
            own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(name)}
            if spec.lora is not None:
                lora.merge(model.get_submodule(name), own, spec.lora)
        return cached(model.eval()).cpu().eval(), encoder.transform
    found = predict.load_classifier(run.folder)
    if type(found.model) is TextBranch:  # its map to text features has no part in the answer
        head = found.model.vision_head
        linear = VisionClassifier(found.model.backbone, head.in_features, len(found.classes))
        linear.vision_head = head
        return linear.cpu().eval(), found.transform
    return found.model.cpu(), found.transform


def _describe(
    run: StoredRun, facts: Mapping[str, Any], model: nn.Module, transform: Transform
) -> Description:
    spec, text = run.spec, getattr(model, "distillation", None)
    # Columns of the first layer after the backbone.
    head: Any = model
    first: Tensor = head.classes if isinstance(model, ClassEmbeddings) else head.vision_head.weight
    return Description(
        run=run.key,
        dataset=spec.dataset,
        setting=spec.setting,
        seed=spec.seed,
        classes=tuple(facts["classes"]),
        class_texts=tuple(facts["class_texts"]),
        input=transform,
        network=network_of(spec, first.shape[1]),
        head=HEADS[type(model)],
        licence=facts["licence"],
        retriever=spec.text.retriever if spec.text else None,
        text_width=None if text is None else text.out_features,
        unit_distilled=model.normalise if isinstance(model, ClipIt) else None,
        versions={name: importlib.metadata.version(name) for name in VERSIONS},
    )  # fmt: skip


def main(options: Namespace) -> None:
    """The image-only classifier of a run, as a folder that needs no cache."""
    output: Path = options.output or options.run / "export"
    if options.int8 and options.no_onnx:
        raise ClipItError("--int8 is made of model.onnx", "export", "Leave --no-onnx out")
    bench = Workbench(load_profile(options.int8)) if options.int8 else None
    export(runs.read(options.run), output, not options.no_onnx, bench)
    print(f"{output}: {', '.join(sorted(path.name for path in output.iterdir()))}")
