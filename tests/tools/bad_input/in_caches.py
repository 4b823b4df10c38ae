"""Caches, runs and results of before that were damaged since."""

from __future__ import annotations

import shutil
from pathlib import Path

from bad_input.case import Act, BadInput, Spoil, World, cut
from bad_input.in_checkpoints import code
from clipit_lib.encoders import registry
from clipit_lib.encoders.weights import Sources

RUN = "Delete the folder of this run"
TABLE = "tables/table1.csv"


def cache(pattern: str, how: Spoil = cut) -> Act:
    """Train longer, from a cache of which a file was spoilt."""

    def act(world: World) -> list[str]:
        world.spoil(world.cached(pattern), how)
        return world.train(training={"epochs": 2})

    return act


def finished(name: str, how: Spoil = cut) -> Act:
    """Ask for a finished run of which a file was spoilt."""

    def act(world: World) -> list[str]:
        world.spoil(world.run / name, how)
        return world.again

    return act


def result(command: str, name: str, how: Spoil = cut) -> Act:
    """A command that reads results of which a file was spoilt."""

    def act(world: World) -> list[str]:
        world.spoil(world.results / name, how)
        if command == "trace":
            return [command, str(world.results / TABLE)]
        return [command, "--profile", str(world.home / "mine.yaml")]

    return act


def lost(name: str) -> Act:
    """Trace a table whose run has lost a file."""

    def act(world: World) -> list[str]:
        (world.run / name).unlink()
        return ["trace", str(world.results / TABLE)]

    return act


def only_archived(world: World) -> list[str]:
    shutil.rmtree(world.run)
    return result("trace", "predictions.parquet")(world)


def digests(world: World) -> list[str]:
    copy = {"kaiko_vits16": str(world.file("weights.bin", b"weights"))}
    registry.weights_hash("kaiko_vits16", Sources(copies=copy))
    cut(world.cached("digests/*.json"))
    return world.train(backbones=["kaiko_vits16"], weights=copy)


def claims(world: World) -> list[str]:
    (world.results / "claims.md").write_bytes(b"\xff")
    return ["report", "--profile", str(world.home / "mine.yaml")]


def nonsense(path: Path) -> None:
    path.write_text("{}")


CASES = [
    BadInput("patches cut short", cache("patches/*/pixels.npy"), "pixels.npy", "missing or damaged",
             "Delete the folder"),
    BadInput("a list of patches cut short", cache("patches/*/samples.parquet"), "samples",
             "missing or damaged", "Delete the folder"),
    BadInput("patches of unknown origin", cache("patches/*/dataset.json", nonsense),
             "dataset.json", "made from other settings", "Delete the folder"),
    BadInput("embeddings cut short", cache("embeddings/*.safetensors"), "embeddings", "damaged",
             "Delete"),
    BadInput("text features cut short", cache("text_stage/*.safetensors"), "text_stage", "damaged",
             "Delete this file and run again"),
    BadInput("text features that run code", cache("text_stage/*.safetensors", code), "text_stage",
             "damaged", "Delete this file and run again"),
    BadInput("an encoder cut short", cache("encoders/phantom_clip-*/*.safetensors"), "phantom_clip",
             "does not match its card", "Delete the folder"),
    BadInput("an encoder without a card that can be read",
             cache("encoders/phantom_clip-*/encoder.json"), "encoder.json", "missing or damaged",
             "Delete the folder"),
    BadInput("a digest cut short", digests, "digests", "missing or damaged",
             "Delete this file and run again"),
    BadInput("a finished run with half a specification", finished("spec.json"), "spec.json",
             "missing or damaged", RUN),
    BadInput("a finished run with half a record", finished("done.json"), "done.json",
             "missing or damaged", RUN),
    BadInput("a run without predictions", lost("predictions.parquet"), "predictions.parquet",
             "missing or damaged", RUN),
    BadInput("a run without a specification", lost("spec.json"), "spec.json",
             "missing or damaged", RUN),
    BadInput("archived predictions cut short", only_archived, "predictions.parquet",
             "missing or damaged", "Run ./run_all.sh"),
    BadInput("a list of runs that is none", result("trace", "runs.csv", nonsense), "runs.csv",
             "missing or damaged", "Run ./run_all.sh"),
    BadInput("a sidecar cut short", result("trace", "tables/table1.runs.json"), "table1.runs.json",
             "missing or damaged", "Run the notebook"),
    BadInput("a sidecar of something else", result("collect", "tables/table1.runs.json", nonsense),
             "table1.runs.json", "missing or damaged", "Run the notebook"),
    BadInput("an executed notebook cut short", result("report", "notebooks/03_table1.ipynb"),
             "03_table1.ipynb", "missing or damaged", "Delete it and run"),
    BadInput("claims of no text", claims, "claims.md", "missing or damaged", "Delete it and run"),
]  # fmt: skip
