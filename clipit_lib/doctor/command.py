"""All checks of one profile, in the order in which they should be mended."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from clipit_lib.doctor.data import data, reports
from clipit_lib.doctor.finding import Finding, Status
from clipit_lib.doctor.machine import (
    accelerator,
    disk,
    held_kernels,
    memory,
    packages,
    python,
    writable,
)
from clipit_lib.doctor.models import models
from clipit_lib.doctor.needs import needs
from clipit_lib.settings import Profile, load_profile


def diagnose(profile: Profile) -> list[Finding]:
    """Check the machine, the data and the models against a profile; nothing is downloaded."""
    needed = needs(profile)
    return [
        python(),
        packages(),
        accelerator(needed.accelerator),
        held_kernels(),
        memory(needed.memory),
        writable(),
        disk(needed.disk),
        *data(profile),
        *reports(profile),
        *models(profile),
    ]


def summary(findings: Sequence[Finding]) -> str:
    """Counts, and what they mean."""
    count = {status: sum(each.status is status for each in findings) for status in Status}
    counted = ", ".join(f"{number} {status}" for status, number in count.items())
    if count[Status.FAIL]:
        return f"{counted}: it will not run before every FAIL is mended"
    return f"{counted}: it can run" + ("; read every WARN" if count[Status.WARN] else "")


def main(arguments: list[str]) -> None:
    """`doctor --profile NAME`: PASS, WARN or FAIL a line, with the fix; exit code 1 on a FAIL."""
    parser = argparse.ArgumentParser(prog="python -m clipit_lib doctor", description=main.__doc__)
    parser.add_argument("--profile", default="demo")
    profile = load_profile(parser.parse_args(arguments).profile)
    findings = diagnose(profile)
    print(f"profile {profile.name}: {profile.summary}")
    for finding in findings:
        print(finding)
    print(summary(findings))
    if any(each.status is Status.FAIL for each in findings):
        sys.exit(1)
