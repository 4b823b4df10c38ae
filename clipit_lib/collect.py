"""What is kept of a profile: every cited prediction in one file, and the gallery of figures."""

from __future__ import annotations

import argparse
import json

from clipit_lib import archive, paths, runs
from clipit_lib.figures import gallery
from clipit_lib.settings import load_profile


def cited(profile: str) -> list[str]:
    """Keys of the runs behind the tables of a profile, as their sidecars list them."""
    sidecars = sorted(paths.tables(profile).glob("*.runs.json"))
    keys = (key for path in sidecars for key in json.loads(path.read_text(encoding="utf-8")))
    return list(dict.fromkeys(keys))


def main(arguments: list[str]) -> None:
    """`collect --profile NAME`: write predictions.parquet and figures/README.md."""
    parser = argparse.ArgumentParser(prog="python -m clipit_lib collect", description=main.__doc__)
    parser.add_argument("--profile", default="demo")
    profile = load_profile(parser.parse_args(arguments).profile).name
    found = [run for key in cited(profile) if (run := runs.find(profile, key)) is not None]
    if found:
        print(f"{len(found)} runs in {archive.archive(profile, found)}")
    print(f"gallery in {gallery.write()}")
