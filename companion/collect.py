"""What is kept of a profile: every cited prediction in two files, and the gallery of figures."""

from __future__ import annotations

from contextlib import suppress

from clipit_lib import paths, runs
from clipit_lib.errors import ClipItError
from clipit_lib.runs import StoredRun
from companion import archive, tables
from companion.figures import gallery
from companion.profile import load_profile
from companion.reading import parser_of


def cited(profile: str) -> list[str]:
    """Keys of the runs behind tables, figures and claims of a profile, as their sidecars list."""
    folders = (paths.tables(profile), paths.figures(profile), paths.results(profile))
    sidecars = [path for folder in folders for path in sorted(folder.glob("*.runs.json"))]
    return list(dict.fromkeys(key for path in sidecars for key in archive.keys(path)))


def main(arguments: list[str]) -> None:
    """Gather the predictions behind a profile's tables, runs.csv and figures/README.md."""
    profile = load_profile(parser_of("collect", main.__doc__).parse_args(arguments).profile).name
    asked = cited(profile)
    found: list[StoredRun] = []
    for key in asked:
        with suppress(ClipItError):  # a table that is no longer asked for may cite an older version
            found += filter(None, [runs.find(profile, key)])
    results = paths.results(profile)
    risks = [each for key in asked if (each := archive.survival_run(results, key)) is not None]
    if found:
        print(f"{len(found)} runs in {archive.archive(profile, found)}")
    if risks:
        print(f"{len(risks)} runs in {archive.archive_survival(profile, risks)}")
    if found or risks:
        print(f"all listed in {archive.list_runs(profile, found, risks)}")
    if said := tables.doubtful(profile, asked):
        print(said)
    if missing := len(asked) - len(found) - len(risks):
        print(f"{missing} cited runs are not here, or are of an older version")
    print(f"gallery in {gallery.write()}")
