"""One cell of the demo, encoders included, gives the bytes that every machine must give."""

from __future__ import annotations

import pytest

from clipit_lib import kernels, runs
from clipit_lib.files import digest
from clipit_lib.predictions import LOGIT
from companion import fingerprint, specs
from companion.profile import Workbench, get_or_train, load_profile

DATASET, BACKBONE = "phantom-pcam", "phantom_vit_s16"
SETTINGS = ("unimodal", "lora_only", "clip_it")

held = pytest.mark.skipif(kernels.level() != "avx2", reason="kernels are not held on this machine")


@held
def test_one_cell_of_the_demo_gives_the_same_bytes_on_every_machine() -> None:
    profile = load_profile("demo")
    bench = Workbench(profile)
    corpus = bench.corpus(DATASET)
    found: fingerprint.Stages = {
        "patches": {DATASET: bench.dataset(DATASET).content_hash},
        "reports": {corpus.name: corpus.content_hash},
        "encoders": {
            name: get_or_train(name, profile)["weights_hash"]
            for name in (profile.retriever, BACKBONE)
        },
    }
    embeddings = bench.retriever_embeddings(DATASET, "train").tobytes()
    found["embeddings"] = {f"{DATASET} by {profile.retriever}": digest(embeddings)}
    pairs = bench.pairs(DATASET, "train", fingerprint.PAIRS).reports.tobytes()
    found["pairs"] = {DATASET: digest(pairs)}
    found["runs"] = {}
    for setting in SETTINGS:
        run = runs.get_or_run(specs.resolve(bench, DATASET, BACKBONE, setting, 0), bench)
        logits = run.predictions().filter(like=LOGIT).to_numpy().tobytes()
        name = f"{DATASET} {BACKBONE} {setting} seed 0"
        found["runs"][name] = f"{run.key} {digest(logits)}"
    expected = fingerprint.read(fingerprint.committed("demo"))
    asked = {
        stage: {what: expected[stage].get(what, "not there") for what in digests}
        for stage, digests in found.items()
    }
    assert fingerprint.differences(found, asked) == []


def test_the_first_stage_that_differs_is_named_first() -> None:
    expected = {"patches": {"a": "1", "b": "2"}, "runs": {"r": "3"}, "tables": {"t.csv": "4"}}
    assert fingerprint.differences(expected | {"more": {"x": "5"}}, expected) == []
    found = {"patches": {"a": "1", "b": "9"}, "runs": {"r": "8"}, "tables": {"t.csv": "4"}}
    assert fingerprint.differences(found, expected) == [
        "patches: 1 of 2 differ, first b",
        "runs: 1 of 1 differ, first r",
    ]
    assert fingerprint.differences({}, expected)[0] == "patches: 2 of 2 differ, first a"
