"""The doctor: what it finds on machines and data that are as they should be, and that are not."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from clipit_lib.data import folder
from clipit_lib.encoders.weights import HubError, Published
from companion import crc5, doctor
from companion import doctor as data
from companion import doctor as machine
from companion import doctor as models
from companion import doctor as needs
from companion.__main__ import main
from companion.findings import Finding, Severity
from companion.profile import load_profile

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
        return Path("/weights/clip.safetensors") if model.name == "clip" else None

    def hub_size(model: Published) -> int:
        if model.name == "uni":
            raise HubError("refused", model)
        return 350_000_000

    monkeypatch.setattr(models, "on_disk", on_disk)
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


def test_models_here_reachable_and_without_their_package(reached: list[str]) -> None:
    profile = load_profile("paper").model_copy(
        update={"backbones": ("kaiko_vits16",), "clips": ("conch", "clip")}
    )
    findings = models.models(profile)
    assert found(findings, "clip.safetensors").severity is PASS
    assert "0.3 GB" in found(findings, "kaiko_vits16: will be downloaded").what or "0.4 GB" in (
        found(findings, "kaiko_vits16: will be downloaded").what
    )
    missing = found(findings, "its own package is missing")
    assert missing.severity is FAIL and "CONCH" in missing.fix


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
    (absent,) = data.data(profile)
    assert absent.severity is FAIL and "manifest" in absent.what
    listed = folder.read_manifest(crc5.MANIFEST, crc5.SPLITS)
    (tmp_path / "crc5").mkdir()
    listed.to_csv(tmp_path / "crc5" / "manifest.csv", index=False)
    (absent,) = data.data(profile)
    assert absent.severity is FAIL and "no such image" in absent.what and "fetch crc5" in absent.fix
    for path in listed["path"]:
        target = tmp_path / "crc5" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    assert data.data(profile)[0].severity is PASS


def test_reports_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path))
    (missing,) = data.reports(load_profile("pilot"))
    assert missing.severity is FAIL and "tcga_colorectal.txt" in missing.what


def test_needs_grow_with_the_data() -> None:
    paper, smoke = needs.needs(load_profile("paper")), needs.needs(load_profile("smoke"))
    assert paper[2] and not smoke[2]
    decoded = 327_680 * 96 * 96 * 3 + (400 + 107_180) * 224 * 224 * 3
    assert paper[1] > decoded > smoke[1]


def test_the_table_for_notebooks() -> None:
    frame = doctor.table([Finding("gpu", WARN, "none", fix="get one")])
    assert frame.to_dict("records") == [
        {"status": "WARN", "area": "gpu", "seen": "none", "fix": "get one"}
    ]
    assert doctor.summary([Finding("gpu", WARN, "none", fix="x")]).endswith("read every WARN")
