"""What will hurt in a profile's data, reports or retriever, said before anything is trained."""

from __future__ import annotations

import argparse

from clipit_lib.errors import ClipItError
from clipit_lib.own.checks import check
from clipit_lib.own.findings import Severity, findings_text
from clipit_lib.settings import load_profile
from clipit_lib.workbench import Workbench


def main(arguments: list[str]) -> None:
    """`check --profile NAME|FILE.yaml`: print every finding; fail if one must be mended first.

    Raises:
        ClipItError: a finding after which nothing can be run.
    """
    parser = argparse.ArgumentParser(prog="python -m clipit_lib check", description=main.__doc__)
    parser.add_argument("--profile", default="demo", help="a profile's name, or a file of yours")
    given = parser.parse_args(arguments).profile
    found = check(Workbench(load_profile(given), download=False))
    print(findings_text(found), flush=True)
    if stops := sum(one.severity is Severity.STOP for one in found):
        raise ClipItError(
            f"{stops} finding{'s' * (stops > 1)} must be mended first", given, "See above"
        )
