"""Print what run_all.sh was given, settled where its user stands, as assignments of the shell."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

from clipit_lib.errors import ClipItError
from companion import paths, rehearsal
from companion.profile import load_profile
from companion.reading import is_file_name


def settled(profile: str, cluster: str, suffix: str = "") -> dict[str, str]:
    """The variables of run_all.sh; a suffix makes a profile's name or path that of its rehearsal.

    Raises:
        ClipItError: see `load_profile`; a folder whose name Snakemake would take for a pattern.
    """
    if is_file_name(profile):
        profile = str(paths.expanded(profile).resolve())
    profile += suffix
    asked = load_profile(profile)
    name = asked.name
    found = {
        "profile": profile,
        "packaged": "" if asked.stand_in is None else "yes",  # weights that come in packages
        # Snakemake reads YAML, but takes quotes off a text first.
        "config": json.dumps([profile], ensure_ascii=False),
        "results": str(paths.results(name)),
        "figures": str(paths.figures(name)),
    }
    for place in (str(paths.repository()), profile, found["results"]):
        if re.search(r"[{}<>\n]", place):
            raise ClipItError("{, }, < or > in a path", place, "Name its folders without these")
    if suffix:
        found["PYTHONPATH"] = f"{os.environ.get('PYTHONPATH', '')}:{rehearsal.packages()}"
    if (gpus := paths.gpus()) is not None:
        found["here"] = " ".join(gpus)
    if cluster:
        places = (Path(__file__).parent / "profiles" / cluster, paths.expanded(cluster).resolve())
        found["cluster"] = str(next(filter(Path.is_dir, places), cluster))
    return found


try:
    for name, value in settled(*sys.argv[1:]).items():
        print(f"{name}={shlex.quote(value)}")
    for name, value in paths.settled().items():
        print(f"export {name}={shlex.quote(value)}")
except ClipItError as error:
    sys.exit(f"error: {error}")
