"""pyproject.toml, the locks and environment.yml describe one environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from companion import paths

REPOSITORY = paths.repository()
PYTHON = "3.11"
PLATFORMS = {
    "Linux x86_64": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "Linux aarch64": {"sys_platform": "linux", "platform_machine": "aarch64"},
    "macOS": {"sys_platform": "darwin", "platform_machine": "arm64"},
}


def project() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def conda() -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "environment.yml").read_text(encoding="utf-8"))


def pip_lines() -> list[str]:
    return next(item["pip"] for item in conda()["dependencies"] if isinstance(item, dict))


def pins(lock: str, platform: dict[str, str]) -> dict[str, str]:
    """Name to version of what a lock installs on a platform; anything but one pin a name fails."""
    environment = {**default_environment(), "python_full_version": f"{PYTHON}.9", **platform}
    pinned: dict[str, str] = {}
    for requirement in requirements(lock):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (pin,) = requirement.specifier
            assert pin.operator == "==", requirement
            assert canonicalize_name(requirement.name) not in pinned, requirement
            pinned[canonicalize_name(requirement.name)] = pin.version
    return pinned


def requirements(lock: str) -> Iterator[Requirement]:
    for line in (REPOSITORY / lock).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", " ")):
            yield Requirement(line.removesuffix(" \\"))


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=PLATFORMS)
@pytest.mark.parametrize(
    ("extra", "lock"),
    [
        (None, "requirements.lock"),
        ("dev", "requirements.lock"),
        ("pilot", "requirements-pilot.lock"),
        ("site", "requirements-site.lock"),
        ("provenance", "requirements-provenance.lock"),
    ],
)
def test_every_dependency_is_pinned_to_a_version_it_allows(
    extra: str | None, lock: str, platform: dict[str, str]
) -> None:
    pinned = pins(lock, platform)
    declared = project()["optional-dependencies"][extra] if extra else project()["dependencies"]
    assert declared
    for requirement in map(Requirement, declared):
        if requirement.marker and not requirement.marker.evaluate(
            {**default_environment(), **platform}
        ):
            continue  # not wanted on this platform
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in {lock}"
        assert requirement.specifier.contains(version), f"{requirement} but {lock} has {version}"


def test_python_versions_agree() -> None:
    (python,) = [item for item in conda()["dependencies"] if str(item).startswith("python=")]
    assert python == f"python={PYTHON}"
    assert SpecifierSet(project()["requires-python"]).contains(PYTHON)


def test_conda_installs_the_lock() -> None:
    """Nothing else: beside hashes, pip refuses what has none, as a folder."""
    assert pip_lines() == ["-r requirements.lock"]


@pytest.mark.parametrize(("profile", "said"), [("tissue", "yes"), ("demo", "''")])
def test_a_profile_with_the_stand_in_gets_its_packages(profile: str, said: str) -> None:
    script = (REPOSITORY / "run_all.sh").read_text(encoding="utf-8")
    assert "[[ -z $packaged ]] || use_extra pilot" in script
    command = [sys.executable, "workflow/folders.py", profile, ""]
    surroundings = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    settled = subprocess.check_output(command, cwd=REPOSITORY, text=True, env=surroundings)
    assert f"packaged={said}" in settled.splitlines()


@pytest.mark.parametrize(
    "lock", sorted(path.name for path in REPOSITORY.glob("requirements*.lock"))
)
def test_every_pin_has_the_hashes_of_its_files(lock: str) -> None:
    """Without one of them, pip checks none or refuses all."""
    text = (REPOSITORY / lock).read_text(encoding="utf-8")
    pinned = re.split(r"\n(?=\w)", f"\n{text}")[1:]
    assert len(pinned) == len(list(requirements(lock)))
    for each in pinned:
        name, *hashes = each.rstrip().split(" \\\n")
        assert hashes, name
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}", line) for line in hashes), name


def test_no_file_names_a_package_index() -> None:
    for file in (REPOSITORY / "pyproject.toml", *REPOSITORY.glob("requirements*.lock")):
        text = file.read_text(encoding="utf-8")
        assert "://" not in text
        assert "index-url" not in text.replace("--no-emit-index-url", "")
