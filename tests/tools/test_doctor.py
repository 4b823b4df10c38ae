"""The doctor: what it finds on machines and data that are as they should be, and that are not."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants
from weight_files import hollow

from clipit_lib import files
from clipit_lib.encoders import registry, weights
from clipit_lib.encoders.weights import HUB, Published
from clipit_lib.errors import ClipItError
from companion import crc5, doctor
from companion import doctor as data
from companion import doctor as machine
from companion import doctor as models
from companion import doctor as needs
from companion.__main__ import main
from companion.findings import Finding, Severity
from companion.profile import FileSlides, load_profile

PASS, WARN, FAIL = Severity.PASS, Severity.WARNING, Severity.STOP


def found(findings: list[Finding], word: str) -> Finding:
    (one,) = (each for each in findings if word in each.what)
    return one


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No network: what the hub says is said here, by model."""
    asked: list[str] = []

    def on_disk(model: Published, copies: Mapping[str, str]) -> Path | None:
        asked.append(model.name)
        return None

    def hub_size(model: Published) -> int:
        if model.name == "uni":
            what, fix = f"the hub refuses the weights of {model.name}", f"Ask for access at {HUB}"
            raise ClipItError(what, model.origin, fix)
        return 350_000_000

    monkeypatch.setattr(weights, "on_disk", on_disk)
    monkeypatch.setattr(models, "hub_size", hub_size)
    return asked


def test_the_smallest_profile_has_all_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--profile", "smoke"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("0 FAIL: it can run")
    assert any(line.startswith("PASS  models     phantom_clip: trained") for line in lines)


def test_without_data_or_access_it_says_so_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reached: list[str]
) -> None:
    monkeypatch.delenv("CLIPIT_DATA", raising=False)
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", "--profile", "paper"])
    assert stopped.value.code == 1
    said = capsys.readouterr().out
    assert "FAIL  data       pcam" in said and "it will not run" in said
    refused = next(line for line in said.splitlines() if "refuses the weights of uni" in line)
    assert refused.startswith("FAIL") and "-> Ask for access at https" in refused
    # Terms are shown before anything is downloaded, whether or not the files are here.
    assert "CC BY-NC-ND 4.0" in said and "https://zenodo.org/records/3632035" in said
    assert set(reached) >= {"conch", "quiltnet", "clip", "uni", "kaiko_vits8"}


@pytest.mark.parametrize("folder", [False, True])
def test_models_reachable_and_without_their_package(
    reached: list[str], folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if folder:  # an empty one of its name is no package, though it can be imported
        (tmp_path / "conch").mkdir()
        monkeypatch.syspath_prepend(str(tmp_path))
    profile = load_profile("paper").model_copy(
        update={"backbones": ("kaiko_vits16",), "clips": ("conch",)}
    )
    findings = models.models(profile)
    assert "(0.3 GB)" in found(findings, "kaiko_vits16: will be downloaded").what
    missing = found(findings, "package that builds CONCH is not installed")
    assert missing.severity is FAIL and "CONCH" in missing.fix


GIVEN = {  # a model, whose file is given as it, and what is found
    "its own": ("kaiko_vits16", "kaiko_vits16", PASS),
    "CONCH's own": ("conch", "conch", PASS),
    "a CLIP's own": ("plip", "plip", PASS),
    "KEEP's own": ("keep", "keep", PASS),
    "of larger patches": ("kaiko_vits8", "kaiko_vits16", FAIL),
    "CONCH's, as a ViT": ("kaiko_vits16", "conch", FAIL),
    "a ViT's, as CONCH": ("conch", "kaiko_vitb16", FAIL),
}


@pytest.mark.parametrize("case", GIVEN)
def test_a_file_given_is_opened_and_checked(case: str, tmp_path: Path) -> None:
    name, real, severity = GIVEN[case]
    given = {"weights": {name: str(hollow(tmp_path / "w.safetensors", real))}}
    (tmp_path / "vocab.txt").touch()
    own = {"retriever": name} if name in ("conch", "plip", "keep") else {"backbones": (name,)}
    profile = load_profile("smoke").model_copy(update=given | own | {"clips": ()})
    seen = found(models.models(profile), "w.safetensors")
    assert seen.severity is severity
    assert ("by the names and shapes" if severity is PASS else "does not fit") in seen.what


def test_a_vocabulary_is_looked_for_beside_the_weights(tmp_path: Path) -> None:
    given = {"weights": {"keep": str(hollow(tmp_path / "w.safetensors", "keep"))}}
    profile = load_profile("smoke").model_copy(update=given | {"retriever": "keep", "clips": ()})
    missing = found(models.models(profile), "no word pieces of keep here")
    assert missing.severity is FAIL and "vocab.txt" in missing.what


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_of_the_hub_has_its_checksum(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = registry.published()["kaiko_vits16"]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / f"models--{model.repo.replace('/', '--')}"
    (repo / "blobs").mkdir(parents=True)
    blob = hollow(repo / "blobs" / "w.safetensors", model.name)
    blob = blob.rename(repo / "blobs" / (files.file_digest(blob) if whole else "0" * 64))
    snapshot = repo / "snapshots" / model.revision
    snapshot.mkdir(parents=True)
    (snapshot / model.file).symlink_to(blob)
    profile = load_profile("smoke").model_copy(update={"backbones": (model.name,)})
    seen = found(models.models(profile), "published checksum" if whole else "its SHA-256 is")
    assert seen.severity is (PASS if whole else FAIL)


def test_slides_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survival = load_profile("demo").survival
    assert survival is not None and doctor.slides(load_profile("demo")) == []
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path))
    files = FileSlides(source="files", bags="bags", clinical="clinical.csv")
    own = {"survival": survival.model_copy(update={"slides": files})}
    (missing,) = doctor.slides(load_profile("demo").model_copy(update=own))
    assert missing.severity is FAIL and "clinical.csv" in missing.what


def test_an_unknown_model_is_one_line(reached: list[str]) -> None:
    profile = load_profile("smoke").model_copy(update={"backbones": ("resnet_of_nobody",)})
    wrong = found(models.models(profile), "resnet_of_nobody")
    assert wrong.severity is FAIL and "phantom_vit_s16" in wrong.fix


def test_a_token_is_never_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "hf_" + "x" * 34
    monkeypatch.setenv("HF_TOKEN", secret)
    assert main(["doctor", "--profile", "smoke"]) == 0
    assert secret not in "".join(capsys.readouterr())


def test_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert machine.packages().severity is PASS
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    assert machine.packages().severity is WARN
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.accelerator(wanted=True).severity is WARN
    assert machine.accelerator(wanted=False).severity is PASS
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 550.54\n")
    fake.chmod(0o755)
    blind = machine.accelerator(wanted=False)
    assert blind.severity is FAIL and "550.54" in blind.what
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # hidden, not unseen
    assert machine.accelerator(wanted=False).severity is PASS
    assert machine.memory(10**18).severity is WARN and machine.memory(1).severity is PASS


def test_cards_and_driver_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="A card", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(machine, "_driver", lambda: "550.54")
    seen = machine.accelerator(wanted=True)
    assert seen.severity is PASS
    assert seen.what == "A card (80 GiB), A card (80 GiB); driver 550.54"


@pytest.mark.parametrize(
    ("profile", "level", "gpu", "severity"),
    [
        ("smoke", "AVX2", False, PASS), ("paper", "AVX2", False, WARN),
        ("paper", "AVX512", False, PASS), ("smoke", "AVX2", True, PASS),
        ("paper", "AVX2", True, PASS), ("paper", "AVX512", None, WARN),
    ],
)  # fmt: skip
def test_bfloat16_is_slow_where_there_are_no_instructions_for_it(
    profile: str, level: str, gpu: bool | None, severity: Severity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is a GPU from before bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bool(gpu))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: level)
    seen = machine.precision(load_profile(profile))
    assert seen.severity is severity and ("slower" in seen.what) is (severity is WARN)


@pytest.mark.parametrize(("free", "severity"), [(9e9, FAIL), (11e9, WARN), (13e9, PASS)])
def test_disk(monkeypatch: pytest.MonkeyPatch, free: float, severity: Severity) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert machine.disk(10**10).severity is severity


def test_missing_images_are_found_without_decoding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path))
    shutil.rmtree(tmp_path / "crc5", ignore_errors=True)
    profile = load_profile("pilot")
    *absent, more, terms = data.data(profile)
    assert all(one.severity is FAIL and "no such file" in one.what for one in absent)
    assert "fetch crc5" in absent[0].fix and "5998 further problems" in more.what
    assert terms.severity is WARN and crc5.LICENCE in terms.what


def test_reports_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path))
    (missing,) = data.reports(load_profile("pilot"))
    assert missing.severity is FAIL and "tcga_colorectal.txt" in missing.what


def test_needs_grow_with_the_data() -> None:
    paper, smoke = needs.needs(load_profile("paper")), needs.needs(load_profile("smoke"))
    assert paper[2] and not smoke[2]
    decoded = 327_680 * 96 * 96 * 3 + 400 * 448 * 448 * 3 + 107_180 * 224 * 224 * 3
    assert paper[1] > decoded > smoke[1]


def test_the_table_for_notebooks() -> None:
    frame = doctor.table([Finding("gpu", WARN, "none", fix="get one")])
    assert frame.to_dict("records") == [
        {"status": "WARN", "area": "gpu", "seen": "none", "fix": "get one"}
    ]
    assert doctor.summary([Finding("gpu", WARN, "none", fix="x")]).endswith("read every WARN")
