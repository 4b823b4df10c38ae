"""The command `export`: an image-only classifier as a folder with ONNX and model card."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor, nn

from clipit_lib import lora, predict, runs
from clipit_lib.data.patches import Transform
from clipit_lib.encoders import registry, weights
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole, written_beside
from clipit_lib.model import ClipIt, Direct, VisionClassifier
from clipit_lib.predict import (
    CARD,
    DESCRIPTION,
    GRAPH,
    PHANTOM,
    WEIGHTS,
    ClassEmbeddings,
    Description,
)
from clipit_lib.predictions import LOGIT, State, correct
from clipit_lib.prompts import PromptClassifier
from clipit_lib.runs import AGAIN, StoredRun
from clipit_lib.runs import CARD as RUN_CARD
from clipit_lib.settings import RunSpec
from companion.specs import label
from companion.statistics import Interval, paired_bootstrap, units
from companion.tables import escaped, markdown

# -- README.md of an exported classifier: what it is, how good it was, what it is not for.


DRAWS = 2000
NOT_IN_SETTINGS = {"version", "dataset", "data_hash", "backbone", "setting", "seed"}


@dataclass(frozen=True)
class DatasetFacts:
    """What a run kept of its data set."""

    classes: tuple[str, ...]
    class_texts: tuple[str, ...]
    licence: str
    limits: str


def dataset_facts(run: StoredRun) -> DatasetFacts:
    """Raises ClipItError if the run's card is damaged."""
    with whole(run.folder / RUN_CARD, AGAIN):
        read = json.loads((run.folder / RUN_CARD).read_text(encoding="utf-8"))
        return DatasetFacts(
            tuple(read["classes"]), tuple(read["class_texts"]), read["licence"], read["limits"]
        )


def scores_on_test(predictions: pd.DataFrame, draws: int = DRAWS) -> dict[str, Interval]:
    """Accuracy and balanced accuracy in percent, each with a 95% bootstrap interval.

    Groups are drawn (single patches where none are known); the seed is one and is not drawn.
    """
    hits = correct(predictions)[None]  # [1, n]
    labels = predictions["label"].to_numpy()
    # The gain over a classifier that is never right is the score itself.
    never, groups = np.zeros_like(hits), units(predictions)
    return {
        name: paired_bootstrap(never, hits, of, groups, draws, np.random.default_rng(0))
        for name, of in (
            ("accuracy", np.zeros_like(labels)), ("balanced accuracy", labels)
        )
    }  # fmt: skip


def class_table(predictions: pd.DataFrame, facts: DatasetFacts) -> pd.DataFrame:
    """One row a class: patches in the test split, recall, precision and F1 in percent."""
    answers = predictions.filter(like=LOGIT).to_numpy().argmax(axis=1)
    numbers = range(len(facts.classes))
    precision, recall, f1, count = precision_recall_fscore_support(
        predictions["label"], answers, labels=list(numbers), zero_division=0
    )
    rows = [
        {
            "class": facts.classes[i],
            "meaning": facts.class_texts[i],
            "test patches": int(count[i]),
            "recall (%)": f"{100 * recall[i]:.1f}",
            "precision (%)": f"{100 * precision[i]:.1f}" if (answers == i).any() else "never said",
            "F1 (%)": f"{100 * f1[i]:.1f}",
        }
        for i in numbers
    ]
    return pd.DataFrame(rows)


def caveats(spec: RunSpec, description: Description, facts: DatasetFacts) -> list[str]:
    """What a reader must know of data, backbone and retriever."""
    said = [escaped(facts.limits)]
    if description.network.origin == PHANTOM:
        said.append(
            "The backbone was trained on this project's phantom, procedural H&E-like patches: it "
            "has never seen tissue."
        )
    said += [
        registry.clip_entry(n).caveat
        for n in (spec.text and spec.text.retriever, spec.backbone)
        if n in registry.CLIPS
    ]
    return list(dict.fromkeys(text for text in said if text))


def card_written(
    run: StoredRun,
    facts: DatasetFacts,
    description: Description,
    onnx: tuple[int, float] | None,
) -> str:
    """The card as Markdown.

    Args:
        onnx: opset of the graph and how far it is from torch, None without a graph.
    """
    spec, network = run.spec, description.network
    warnings = "\n".join(f"> - {text}" for text in caveats(spec, description, facts))
    parts = [
        f"# {label(spec.setting)} on {spec.dataset}, {network.name}",
        f"A classifier of H&E patches into {len(facts.classes)} classes that needs images alone. "
        f"{_origin_words(description)} Run `{run.key}`.",
        "> **Research only. Not a medical device:** it was not validated for any diagnosis, and "
        f"its probabilities are not calibrated.\n>\n{warnings}",
        _metrics(run, facts),
        _data(spec, facts),
        _weights(description),
        _settings(run, description),
        _loading(description, onnx),
    ]
    return "\n\n".join(parts) + "\n"


def _origin_words(description: Description) -> str:
    return {
        "linear": "It is a backbone and a linear layer.",
        "clip_it": "CLIP-IT (arXiv 2504.16181): the features of paired reports were distilled into "
        "it while it was trained; it predicts them from the image, and reads no text.",
        "early_fusion": "The features of paired reports were distilled into it while it was "
        "trained; it reads no text.",
        "class_embeddings": "It is the image tower of a CLIP and one embedding a class: its "
        "prompts were encoded once, and no text tower is in this folder.",
    }[description.head]


def _metrics(run: StoredRun, facts: DatasetFacts) -> str:
    predictions = run.predictions()
    known = bool((predictions["group"] != "").all())
    scores = pd.DataFrame(
        [
            {
                "score on test": name,
                "value (%)": f"{score.estimate:.1f}",
                "95% interval": f"{score.low:.1f} to {score.high:.1f}",
            }
            for name, score in scores_on_test(predictions).items()
        ]
    )
    drawn = (
        f"{predictions['group'].nunique()} patients or slides"
        if known
        else "single patches (no patient or slide is known, so it is too narrow)"
    )
    return (
        f"## How good it was\n\n{markdown(scores)}\n\nOn {len(predictions)} patches of "
        f"`{run.spec.dataset}`. The interval is a bootstrap over {drawn}; it says nothing about "
        "other seeds, scanners or hospitals. Balanced accuracy is the mean of the recalls.\n\n"
        f"{markdown(class_table(predictions, facts))}"
    )


def _data(spec: RunSpec, facts: DatasetFacts) -> str:
    corpus = spec.text and spec.text.corpus
    reports = f"\n- Reports in training: `{corpus}`." if corpus else ""
    return (
        f"## Data\n\n- Patches: `{spec.dataset}`, content {spec.data_hash}.\n"
        f"- Licence: {escaped(facts.licence)}{reports}"
    )


def _weights(description: Description) -> str:
    network = description.network
    return (
        f"## Licences of the weights\n\n- Backbone `{network.name}` ({network.architecture}): "
        f"{network.origin}; licence: {network.licence}.\n- These weights are derived from it and "
        "from the data above; whether this folder may be passed on is for both licences to say.\n"
        "- The code of this project is under the MIT licence."
    )


def _settings(run: StoredRun, description: Description) -> str:
    values = run.spec.model_dump(mode="json", exclude_none=True, exclude=NOT_IN_SETTINGS)
    trained, exported = (
        ", ".join(f"{name} {version}" for name, version in versions.items())
        for versions in (run.done()["versions"], description.versions)
    )
    return (
        f"## Settings\n\nOne run of setting `{run.spec.setting}`, with seed {run.spec.seed}. "
        f"Trained with {trained}; exported with {exported}.\n\n```json\n{json.dumps(values)}\n```"
    )


def _loading(description: Description, onnx: tuple[int, float] | None) -> str:
    size = description.input.size
    files = {
        WEIGHTS: "all weights, adapters merged",
        DESCRIPTION: "architecture, classes, input",
        CARD: "this card",
    }
    text = f"""## How to use it

Square RGB patches with the field of view of the training patches, brought to {size} x {size} pixels
by you (the code below does it); normalisation is inside.

```sh
python -m companion predict THIS_FOLDER patch.png folder_of_patches --output answers.csv
```

In torch:

```python
from pathlib import Path
from clipit_lib.data.folder import decode_image
from clipit_lib.predict import load_classifier
classifier = load_classifier(Path("."))
probabilities = classifier.probabilities(decode_image(Path("patch.png"), {size})[None])  # [1, c]
```"""
    if onnx is not None:
        files[GRAPH] = f"ONNX, opset {onnx[0]}, any batch size; within {onnx[1]:.0e} of torch"
        text += f"""

In onnxruntime, without this project: `images` is [b, 3, {size}, {size}] float32 from 0 to 1.

```python
import numpy as np, onnxruntime, PIL.Image
image = PIL.Image.open("patch.png").convert("RGB").resize(({size}, {size}))  # bicubic
images = np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 255
session = onnxruntime.InferenceSession("model.onnx")
probabilities = session.run(["probabilities"], {{"images": images}})[0]  # [1, c]
```"""
    classes = ", ".join(map(escaped, description.classes))
    listed = "\n".join(f"- `{name}`: {what}." for name, what in files.items())
    return f"{text}\n\nClasses, in this order: {classes}.\n\n{listed}"


# -- model.onnx: images from 0 to 1 go in, normalisation is inside, any number at a time.


INPUT, OUTPUTS = "images", ("logits", "probabilities")
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


def require_packages() -> None:
    """Raises ClipItError if ONNX cannot be written or checked here."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ClipItError(
                f"ONNX needs the package {name}",
                "export",
                f"Run `pip install {' '.join(PACKAGES)}`, or leave ONNX out with --no-onnx",
            ) from error


def write_graph(model: nn.Module, description: Description, folder: Path) -> tuple[int, float]:
    """Write model.onnx; return its opset and how far it is from torch.

    Args:
        model: in evaluation mode, on the CPU.

    Raises:
        ClipItError: a package is missing, or the two differ by more than 1e-4.
    """
    require_packages()
    whole, size = Normalised(model, description.transform).eval(), description.input.size
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
    rng, largest = torch.Generator().manual_seed(1), 0.0
    for batch in BATCHES:
        images = torch.rand(batch, 3, size, size, generator=rng)
        for ours, theirs in zip(whole(images), run_graph(path, images.numpy()), strict=True):
            largest = max(largest, float(np.abs(ours.numpy() - theirs).max()))
    if not largest <= TOLERANCE:
        raise ClipItError(
            f"ONNX differs from torch by {largest:.1g}", path, "Leave it out with --no-onnx"
        )
    return largest


def run_graph(path: Path, images: Float[np.ndarray, "b 3 s s"]) -> list[Float[np.ndarray, "b c"]]:
    """Logits and probabilities of images (0..1) by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(list(OUTPUTS), {INPUT: images})
    return found


# -- Zero-shot and contrastive runs: their prompts are encoded now, for good.


@torch.no_grad()
def without_text(spec: RunSpec, state: State, folder: Path) -> tuple[ClassEmbeddings, Transform]:
    """The image-only classifier of a run that classifies by prompts, and its input transform.

    Args:
        state: the run's adapters, of both towers.

    Raises:
        ClipItError: other weights of the CLIP than the run was made with.
    """
    settings = spec.contrastive
    assert settings is not None
    sources = weights.sources_of(spec)
    weights.require_same(spec, registry.backbone_hash(spec.backbone, sources), folder)
    encoder = registry.load_clip(spec.backbone, sources)
    model = PromptClassifier(encoder, settings)
    if spec.lora is not None:
        for name in ("image_tower", "text_tower"):
            own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(name)}
            lora.merge(model.get_submodule(name), own, spec.lora)
    classes = F.normalize(model.eval().all_prompts().float(), dim=-1).mean(dim=1)  # [c, d]
    if settings.averaging == "embeddings":
        classes = F.normalize(classes, dim=-1)
    return ClassEmbeddings(model.image_tower, classes / settings.temperature), encoder.transform


# -- Export a trained classifier: one folder with merged weights, a description, ONNX and a card.


VERSIONS = ("torch", "timm")


def export(run: runs.StoredRun, output: Path, onnx: bool = True) -> Path:
    """Write the image-only classifier of a run to a folder of its own, whole or not at all.

    Raises:
        ClipItError: the run has no image-only classifier, `output` holds something else, a package
            for ONNX is missing; see also `classifier.load_classifier`.
    """
    if run.spec.text_only:
        raise ClipItError(
            f"the run ({run.spec.setting}) classifies texts: there is no image-only model in it",
            run.folder,
            "Name a run of another setting",
        )
    if output.exists() and not (output / predict.DESCRIPTION).exists():
        raise ClipItError("this exists and is no exported classifier", output, "Name a new folder")
    if onnx:
        require_packages()
    facts = dataset_facts(run)
    model, transform = _classifier(run, facts)
    description = _describe(run, facts, model, transform)
    with written_beside(output) as temporary:
        temporary.mkdir()
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(state, temporary / predict.WEIGHTS, metadata={"run": run.key})
        (temporary / predict.WEIGHTS).chmod(0o644)  # it is written for its owner alone
        text = description.model_dump_json(indent=1)
        (temporary / predict.DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        checked = write_graph(model, description, temporary) if onnx else None
        text = card_written(run, facts, description, checked)
        (temporary / predict.CARD).write_text(text, encoding="utf-8")
    return output


def _classifier(run: runs.StoredRun, facts: DatasetFacts) -> tuple[nn.Module, Transform]:
    """The deployed model on the CPU, without what only training used, and its input transform."""
    if run.spec.contrastive is not None:
        with whole(run.folder / runs.MODEL, runs.AGAIN):
            state = load_file(run.folder / runs.MODEL)
        model, transform = without_text(run.spec, state, run.folder)
        return model.cpu().eval(), transform
    found = predict.load_classifier(run.folder)
    if isinstance(found.model, Direct):  # its map to text features has no part in the answer
        classes = len(found.classes)
        linear = VisionClassifier(
            found.model.backbone, found.model.vision_head.in_features, classes
        )
        linear.vision_head = found.model.vision_head
        return linear.cpu().eval(), found.transform
    return found.model.cpu(), found.transform


def _describe(
    run: runs.StoredRun, facts: DatasetFacts, model: nn.Module, transform: Transform
) -> predict.Description:
    spec, text = run.spec, getattr(model, "distillation", None)
    # Columns of the first layer after the backbone.
    head: Any = model
    first: Tensor = head.classes if isinstance(model, ClassEmbeddings) else head.vision_head.weight
    return predict.Description(
        run=run.key,
        dataset=spec.dataset,
        setting=spec.setting,
        seed=spec.seed,
        classes=facts.classes,
        class_texts=facts.class_texts,
        input=predict.ImageInput(
            size=transform.size, mean=transform.mean, std=transform.std,
            interpolation=transform.interpolation,
        ),
        network=predict.network_of(spec, first.shape[1]),
        head=predict.head_of(model),
        text_width=None if text is None else text.out_features,
        unit_distilled=model.normalise if isinstance(model, ClipIt) else None,
        versions={name: importlib.metadata.version(name) for name in VERSIONS},
    )  # fmt: skip


def main(arguments: list[str]) -> None:
    """`export RUN_DIR`: the image-only classifier of a run, as a folder that needs no cache."""
    parser = argparse.ArgumentParser(prog="python -m companion export", description=main.__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--output", type=Path, help="folder to write (default: RUN_DIR/export)")
    parser.add_argument("--no-onnx", action="store_true", help="leave model.onnx out")
    given = parser.parse_args(arguments)
    output: Path = given.output or given.run / "export"
    export(runs.read(given.run), output, not given.no_onnx)
    print(f"{output}: {', '.join(sorted(path.name for path in output.iterdir()))}")
