"""Tables and figures from the predictions that came with the repository."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from clipit_lib.errors import ClipItError
from companion import paths, studies
from companion.archived import PREDICTIONS
from companion.profile import load_profile

# Notebooks that need no more than test predictions, and the study that each shows. Cells tagged
# `inputs` look at patches, reports or encoders and are passed over.
REBUILT = {
    "03_table1": "table1", "04_table2_multimodal": "table2",
    "06_complementarity": "complementarity", "08_ablations": "ablations",
    "10_reports_or_prompts": "table6", "11_retrieval_and_text_source": "table7",
    "14_controls": "controls", "17_map": "map", "19_power": "known", "18_claims": "table1",
}  # fmt: skip


def main(options: Namespace) -> None:
    """Make tables and figures again from stored predictions; nothing is trained or downloaded."""
    profile = load_profile(options.profile)
    came = paths.repository() / "results"
    os.environ.setdefault("CLIPIT_PREDICTIONS", str(came))
    os.environ["MPLBACKEND"] = "agg"
    held = paths.archived(profile.name)
    if held is None or not (held / PREDICTIONS).exists():
        what = f"no predictions of the profile {profile.name} came with the repository"
        raise ClipItError(what, held, "Leave out --from-predictions: ./run_all.sh trains it")
    if paths.output() != paths.repository():  # what needs more than predictions, as it came
        for folder in (Path("results") / profile.name, Path("figures") / profile.name):
            shutil.copytree(
                paths.repository() / folder, paths.output() / folder, dirs_exist_ok=True
            )
    asked = [name for name, study in REBUILT.items() if studies.asked(profile, study)]
    if not studies.claimed(profile):
        asked.remove("18_claims")
    for number, name in enumerate(asked, 1):
        begin = time.monotonic()
        _cells(name, profile.name)
        print(f"{number} of {len(asked)}: {name}, {time.monotonic() - begin:.1f} s", flush=True)
    print(f"tables: {paths.tables(profile.name)}\nfigures: {paths.figures(profile.name)}")


def _cells(name: str, profile: str) -> None:
    """Run a notebook's code in this process, without the cells that need inputs."""
    from IPython.display import display

    book = json.loads((paths.notebooks() / f"{name}.ipynb").read_text(encoding="utf-8"))
    namespace: dict[str, Any] = {"display": display}
    with redirect_stdout(io.StringIO()):
        for number, cell in enumerate(book["cells"]):
            tags = cell["metadata"].get("tags", ())
            if cell["cell_type"] == "code" and "inputs" not in tags:
                exec(compile("".join(cell["source"]), f"{name}, cell {number}", "exec"), namespace)
                namespace |= {"profile": profile} if "parameters" in tags else {}
