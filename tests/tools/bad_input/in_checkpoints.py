"""Weights that are damaged, another's, or no weights at all."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bad_input.case import Act, BadInput, Spoil, World, cut

RAN = "ran"  # a folder that appears where code of a checkpoint was run
TRAIN = "Delete this run and train it again"
EXPORT = "Export the run again"
FETCH = "Delete it and fetch it again"


class Code:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (RAN,)


def code(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": Code()}, protocol=2))


def wider(path: Path) -> None:
    """Weights of more classes and wider features."""
    save_file({k: torch.cat([v, v]) for k, v in load_file(path).items()}, path)


def headless(path: Path) -> None:
    save_file({k: v for k, v in load_file(path).items() if not k.startswith("vision_head")}, path)


def strange(path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(2, 2)}, path)


def damaged(command: str, name: str, how: Spoil = cut) -> Act:
    """Predict by a run, or export it, after a file of it was spoilt."""

    def act(world: World) -> list[str]:
        world.spoil(world.run / name, how)
        read = [] if command == "export" else [str(world.home / "patches")]
        return [command, str(world.run), *read]

    return act


def exported(name: str, how: Spoil) -> Act:
    """Predict by an exported classifier after a file of it was spoilt."""

    def act(world: World) -> list[str]:
        folder = Path(shutil.copytree(world.home / "exported", world.place / "exported"))
        how(folder / name)
        return ["predict", str(folder), str(world.home / "patches")]

    return act


def published(name: str, how: Spoil) -> Act:
    """Train from a copy of published weights that is something else."""

    def act(world: World) -> list[str]:
        how(world.file(name, b""))
        given = {"kaiko_vits16": str(world.place / name)}
        return world.train(backbones=["kaiko_vits16"], weights=given)

    return act


def another_network(path: Path) -> None:
    path.write_text(path.read_text().replace('"vit_', '"vat_'))


RUN = [
    BadInput("no run", lambda w: ["predict", str(w.place), str(w.home / "patches")], "bad-place",
             "no finished run here", "Name a folder below results/<profile>/runs/"),
    BadInput("weights cut short", damaged("predict", "model.safetensors"), "model.safetensors",
             "damaged or missing", TRAIN),
    BadInput("weights that run code", damaged("predict", "model.safetensors", code),
             "model.safetensors", "damaged or missing", TRAIN),
    BadInput("no weights", damaged("export", "model.safetensors", Path.unlink),
             "model.safetensors", "missing", TRAIN),
    BadInput("weights of another shape", damaged("predict", "model.safetensors", wider),
             "model.safetensors", "not those of this run", TRAIN),
    BadInput("weights without a head", damaged("predict", "model.safetensors", headless),
             "model.safetensors", "not those of this run", TRAIN),
    BadInput("weights of another model", damaged("predict", "model.safetensors", strange),
             "model.safetensors", "not those of this run", TRAIN),
    BadInput("another specification", damaged("predict", "spec.json"), "spec.json",
             "not the specification", "Name the run of another folder"),
    BadInput("a specification of no text", damaged("predict", "spec.json",
             lambda path: path.write_bytes(b"\xff\xfe")), "spec.json", "not the specification",
             "Name the run of another folder"),
    BadInput("no classes", damaged("predict", "card.json"), "card.json", "damaged", TRAIN),
]  # fmt: skip
EXPORTED = [
    BadInput("an exported description cut short", exported("config.json", cut), "config.json",
             "not the description of an exported classifier", EXPORT),
    BadInput("an exported classifier of no known network", exported("config.json", another_network),
             "config.json", "damaged", EXPORT),
    BadInput("exported weights cut short", exported("model.safetensors", cut),
             "model.safetensors", "damaged or missing", EXPORT),
    BadInput("exported weights of another model", exported("model.safetensors", strange),
             "model.safetensors", "do not fit config.json", EXPORT),
]  # fmt: skip
PUBLISHED = [
    BadInput("a copy that is not there", lambda w: w.train(backbones=["kaiko_vits16"],
             weights={"kaiko_vits16": str(w.place / "none.bin")}), "none.bin",
             "no weights of kaiko_vits16 here", "Fix its path under `weights`"),
    BadInput("a copy of an unknown model", lambda w: w.train(weights={"resnet": "a.bin"}),
             "`weights`", "unknown published model 'resnet'", "Known: "),
    BadInput("a copy that runs code", published("weights.bin", code), "weights.bin",
             "would run code when read, so it was not", "Use the file that its authors publish"),
    BadInput("a copy of nothing", published("weights.bin", lambda path: None), "weights.bin",
             "damaged", FETCH),
    BadInput("a copy that is text", published("weights.bin", lambda p: p.write_text("<html>")),
             "weights.bin", "damaged", FETCH),
    BadInput("a copy that is one tensor", published("weights.bin",
             lambda path: torch.save(torch.zeros(3), path)), "weights.bin",
             "no weights by name", "Give the weights of the model that is named"),
    BadInput("a copy cut short", published("w.safetensors", lambda path: (strange(path),
             cut(path))), "w.safetensors", "damaged", FETCH),
    BadInput("a copy of another model", published("w.safetensors", strange), "w.safetensors",
             "the checkpoint does not fit", "Give the weights of the model that is named"),
]  # fmt: skip
CASES = RUN + EXPORTED + PUBLISHED
