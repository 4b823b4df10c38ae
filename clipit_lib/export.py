"""Export a trained classifier: one folder with merged weights, a description, ONNX and a card."""

from __future__ import annotations

import argparse
import importlib.metadata
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipit_lib import classifier, runs
from clipit_lib.data.transforms import Transform
from clipit_lib.deployment import card, graph
from clipit_lib.deployment import description as described
from clipit_lib.deployment.class_embeddings import ClassEmbeddings
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole, written_beside
from clipit_lib.model import ClipIt, VisionClassifier
from clipit_lib.variants import Direct

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
    if output.exists() and not (output / described.DESCRIPTION).exists():
        raise ClipItError("this exists and is no exported classifier", output, "Name a new folder")
    if onnx:
        graph.require_packages()
    facts = card.dataset_facts(run)
    model, transform = _classifier(run, facts)
    description = _describe(run, facts, model, transform)
    with written_beside(output) as temporary:
        temporary.mkdir()
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(state, temporary / described.WEIGHTS, metadata={"run": run.key})
        (temporary / described.WEIGHTS).chmod(0o644)  # it is written for its owner alone
        text = description.model_dump_json(indent=1)
        (temporary / described.DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        checked = graph.write(model, description, temporary) if onnx else None
        text = card.written(run, facts, description, checked)
        (temporary / described.CARD).write_text(text, encoding="utf-8")
    return output


def _classifier(run: runs.StoredRun, facts: card.DatasetFacts) -> tuple[nn.Module, Transform]:
    """The deployed model on the CPU, without what only training used, and its input transform."""
    if run.spec.contrastive is not None:
        from clipit_lib.deployment import prompts

        with whole(run.folder / runs.MODEL, runs.AGAIN):
            state = load_file(run.folder / runs.MODEL)
        model, transform = prompts.without_text(run.spec, state, run.folder)
        return model.cpu().eval(), transform
    found = classifier.load_classifier(run.folder)
    if isinstance(found.model, Direct):  # its map to text features has no part in the answer
        classes = len(found.classes)
        linear = VisionClassifier(
            found.model.backbone, found.model.vision_head.in_features, classes
        )
        linear.vision_head = found.model.vision_head
        return linear.cpu().eval(), found.transform
    return found.model.cpu(), found.transform


def _describe(
    run: runs.StoredRun, facts: card.DatasetFacts, model: nn.Module, transform: Transform
) -> described.Description:
    spec, text = run.spec, getattr(model, "distillation", None)
    # Columns of the first layer after the backbone.
    head: Any = model
    first: Tensor = head.classes if isinstance(model, ClassEmbeddings) else head.vision_head.weight
    return described.Description(
        run=run.key,
        dataset=spec.dataset,
        setting=spec.setting,
        seed=spec.seed,
        classes=facts.classes,
        class_texts=facts.class_texts,
        input=described.ImageInput(
            size=transform.size, mean=transform.mean, std=transform.std,
            interpolation=transform.interpolation,
        ),
        network=described.network_of(spec, first.shape[1]),
        head=described.head_of(model),
        text_width=None if text is None else text.out_features,
        unit_distilled=model.normalise if isinstance(model, ClipIt) else None,
        versions={name: importlib.metadata.version(name) for name in VERSIONS},
    )  # fmt: skip


def main(arguments: list[str]) -> None:
    """`export RUN_DIR`: the image-only classifier of a run, as a folder that needs no cache."""
    parser = argparse.ArgumentParser(prog="python -m clipit_lib export", description=main.__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--output", type=Path, help="folder to write (default: RUN_DIR/export)")
    parser.add_argument("--no-onnx", action="store_true", help="leave model.onnx out")
    given = parser.parse_args(arguments)
    output: Path = given.output or given.run / "export"
    export(runs.read(given.run), output, not given.no_onnx)
    print(f"{output}: {', '.join(sorted(path.name for path in output.iterdir()))}")
