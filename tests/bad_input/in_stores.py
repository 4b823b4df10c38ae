"""Checkpoints and caches that were damaged, or are something else."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

from bad_input.case import Act, BadInput, Spoil, World, cut

RAN = "ran"  # a folder that appears where code of a checkpoint was run


class Code:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (RAN,)


def damaged(command: str, name: str, how: Spoil = cut) -> Act:
    """Predict by a run after a file of it was spoilt."""

    def act(world: World) -> list[str]:
        how(world.run / name)
        read = [] if command == "export" else [str(world.home / "patches")]
        return [command, str(world.run), *read]

    return act


def cache(pattern: str, how: Spoil = cut) -> Act:
    """Train longer, from a cache of which a file was spoilt."""

    def act(world: World) -> list[str]:
        how(world.cached(pattern))
        return world.train(training={"epochs": 2})

    return act


def code(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": Code()}, protocol=2))


def weights(world: World) -> list[str]:
    world.file("weights.bin", b"")
    code(world.place / "weights.bin")
    given = {"kaiko_vits16": str(world.place / "weights.bin")}
    return world.train(backbones=["kaiko_vits16"], weights=given)


CASES = [
    BadInput("no run", lambda w: ["predict", str(w.place), str(w.home / "patches")], "bad-place",
             "no finished run here", "Name a folder below results/<profile>/runs/"),
    BadInput("weights cut short", damaged("predict", "model.safetensors"), "model.safetensors",
             "damaged or missing", "Delete this run and train it again"),
    BadInput("weights that run code", damaged("predict", "model.safetensors", code),
             "model.safetensors", "damaged or missing", "Delete this run"),
    BadInput("no weights", damaged("export", "model.safetensors", Path.unlink),
             "model.safetensors", "missing", "Delete this run"),
    BadInput("another specification", damaged("predict", "spec.json"), "spec.json",
             "not the specification", "Name the run of another folder"),
    BadInput("no classes", damaged("predict", "card.json"), "card.json", "damaged",
             "Delete this run"),
    BadInput("a copy of published weights that runs code", weights, "weights.bin",
             "would run code when read, so it was not", "Use the file that its authors publish"),
    BadInput("patches cut short", cache("patches/*/pixels.npy"), "pixels.npy", "missing or damaged",
             "Delete the folder"),
    BadInput("a list of patches cut short", cache("patches/*/samples.parquet"), "samples",
             "missing or damaged", "Delete the folder"),
    BadInput("embeddings cut short", cache("embeddings/*.safetensors"), "embeddings", "damaged",
             "Delete"),
    BadInput("text features cut short", cache("text_stage/*.safetensors"), "text_stage", "damaged",
             "Delete this file and run again"),
    BadInput("an encoder cut short", cache("encoders/phantom_clip-*/*.safetensors"), "phantom_clip",
             "does not match its card", "Delete the folder"),
    BadInput("text features that run code", cache("text_stage/*.safetensors", code), "text_stage",
             "damaged", "Delete this file and run again"),
]  # fmt: skip
