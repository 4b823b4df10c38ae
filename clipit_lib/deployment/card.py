"""README.md of an exported classifier: what it is, how good it was, what it is not for."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support

from clipit_lib.deployment.description import (
    CARD,
    DESCRIPTION,
    GRAPH,
    PHANTOM,
    WEIGHTS,
    Description,
)
from clipit_lib.encoders import clip
from clipit_lib.evaluation import LOGIT, correct
from clipit_lib.files import whole
from clipit_lib.names import label
from clipit_lib.runs import AGAIN, StoredRun
from clipit_lib.runs import CARD as RUN_CARD
from clipit_lib.settings import RunSpec
from clipit_lib.statistics import Interval, paired_bootstrap
from clipit_lib.tables import escaped, markdown

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
    groups = predictions["group"].where(predictions["group"] != "", predictions["sample"])
    # The gain over a classifier that is never right is the score itself.
    never, units = np.zeros_like(hits), groups.to_numpy()
    return {
        name: paired_bootstrap(never, hits, of, units, draws, np.random.default_rng(0))
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
        clip.entry(n).caveat
        for n in (spec.text and spec.text.retriever, spec.backbone)
        if n in clip.CLIPS
    ]
    return list(dict.fromkeys(text for text in said if text))


def written(
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
python -m clipit_lib predict THIS_FOLDER patch.png folder_of_patches --output answers.csv
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
