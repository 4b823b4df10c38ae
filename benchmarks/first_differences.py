"""`python -m benchmarks.first_differences`: where bytes part between kernels, stage by stage.

Each row of the table is a process of its own with other variables, which does what a run of the
`smoke` profile does, with encoders trained on fewer patches. A stage takes what the stages before
it have made: the first that differs is where bytes part.

With `--run PREFIX` a process is started through another command, for example
`--run "qemu-x86_64 -cpu EPYC-Rome"`, an emulator of another maker's CPU (very slow).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from clipit_lib import kernels
from clipit_lib.files import write_text
from companion import paths

NPY = "NPY_DISABLE_CPU_FEATURES"
NATIVE = {kernels.CHOICE: "native", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
KNOBS: dict[str, dict[str, str]] = {
    "native": NATIVE,
    "native again": NATIVE,
    "ATEN avx2": NATIVE | {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN AVX2": NATIVE | {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "MKL AVX2": NATIVE | {"MKL_CBWR": "AVX2"},
    "MKL COMPATIBLE": NATIVE | {"MKL_CBWR": "COMPATIBLE"},
    "OpenBLAS Haswell": NATIVE | {"OPENBLAS_CORETYPE": "Haswell"},
    "NumPy baseline": NATIVE | {NPY: kernels.HELD[NPY]},
    "2 threads": NATIVE | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
    "held": {},
    "held, 2 threads asked": {"OMP_NUM_THREADS": "2"},
}
Stage = tuple[str, str]


def stages() -> Iterator[Stage]:
    """Name and digest of the bytes of each stage of a run, in order."""
    import torch

    from clipit_lib.run import perform
    from companion import statistics
    from companion.measures import project
    from companion.profile import Workbench, load_profile
    from companion.specs import resolve
    from companion.train_encoders import draw_shapes

    profile = load_profile("smoke")
    assert profile.pretraining is not None
    fewer = profile.pretraining.model_copy(update={"images": 64, "batch_size": 32})
    profile = profile.model_copy(update={"pretraining": fewer})
    bench = Workbench(profile)
    name, backbone = next(iter(profile.data)), profile.backbones[0]
    data, corpus = bench.dataset(name), bench.corpus(name)
    yield "patches", digest(np.asarray(data.pixels), draw_shapes(16, 32, 0)[0])
    yield "reports", digest(*(np.frombuffer(text.encode(), np.uint8) for text in corpus.texts))
    vision, clip = bench.backbone(backbone), bench.clip
    yield "backbone trained", digest(*(v.numpy() for v in vision.model.state_dict().values()))
    towers = (clip.image_tower, clip.text_tower)
    yield "CLIP trained", digest(*(v.numpy() for t in towers for v in t.state_dict().values()))
    images = bench.retriever_embeddings(name, "train")
    yield "image embeddings", digest(images)
    yield "pairing", digest(bench.pairs(name, "train", 1).reports)
    hits = []
    for setting in ("unimodal", "lora_only", "clip_it"):
        torch.manual_seed(0)
        outcome = perform(resolve(bench, name, backbone, setting, 0), bench)
        logits = outcome.predictions.filter(like="logit").to_numpy()
        yield f"run {setting}", digest(logits)
        label = outcome.predictions["label"].to_numpy()
        hits.append((logits.argmax(axis=1) == label)[None])
    cell = statistics.Cell("", hits[0], hits[2], label, np.arange(len(label)))
    gain = statistics.pooled_bootstrap([cell], 200, np.random.default_rng(0))
    yield "bootstrap", digest(np.array([gain.estimate, gain.low, gain.high]))
    yield "t-SNE", digest(project(images, 0))


def digest(*arrays: np.ndarray) -> str:
    """Of the bytes of arrays."""
    state = hashlib.sha256()
    for each in arrays:
        state.update(np.ascontiguousarray(each).tobytes())
    return state.hexdigest()[:16]


def seen(knobs: dict[str, str], prefix: str = "") -> dict[str, str]:
    """The stages of a fresh process with these variables."""
    known = (*kernels.HELD, kernels.CHOICE)
    free = {name: value for name, value in os.environ.items() if name not in known}
    command = [*shlex.split(prefix), sys.executable, "-m", "benchmarks.first_differences", "--here"]
    with tempfile.TemporaryDirectory() as folder:
        places = {"CLIPIT_OUTPUT": folder, "CLIPIT_CACHE": f"{folder}/cache"}
        done = subprocess.run(
            command, env=free | places | knobs, cwd=paths.repository(), check=True,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(found: dict[str, dict[str, str]], first: str) -> pd.DataFrame:
    """Stage by knob: `same` or `other`, against the first column."""
    table = pd.DataFrame(found)
    same: Callable[[pd.Series], pd.Series] = lambda column: column == table[first]  # noqa: E731
    return table.apply(same).replace({True: "same", False: "other"})


def main() -> None:
    """Write results/kernels.csv and results/kernels.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--here", action="store_true", help="print the stages of this process")
    parser.add_argument("--run", default="", help="compare only `held`, here and through a command")
    given = parser.parse_args()
    if given.here:
        print(json.dumps(dict(stages())))
        return
    if given.run:
        found = {"held here": seen({}), given.run: seen({}, given.run)}
        print(compared(found, "held here").to_string())
        return
    found = {}
    for name, knobs in KNOBS.items():
        found[name] = seen(knobs)
        print(name, *dict(found[name]).values(), flush=True)
    against = {name: "held" if name.startswith("held") else "native" for name in KNOBS}
    table = pd.DataFrame({n: compared(found, against[n])[n] for n in KNOBS}).rename_axis("stage")
    parted = table.apply(lambda column: next(iter(column.index[column == "other"]), "none"))
    table.loc["first that differs"] = parted
    table.to_csv(paths.output() / "results" / "kernels.csv")
    write_text(paths.output() / "results" / "kernels.md", _markdown(table))
    print(table.T.to_string())


def _markdown(table: pd.DataFrame) -> str:
    """Knobs down, stages across; `held` columns are compared with `held`, others with `native`."""
    wide = table.T.rename_axis("variables").reset_index()
    rows = [list(wide), ["---"] * wide.shape[1], *wide.to_numpy().tolist()]
    return "".join("| " + " | ".join(map(str, row)) + " |\n" for row in rows)


if __name__ == "__main__":
    main()
