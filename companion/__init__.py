"""The study around `clipit_lib`: profiles, the phantom, the pilot, studies, tables, figures, tools.

It imports `clipit_lib`, never the other way.
"""

from pathlib import Path

import clipit_lib  # noqa: F401 - holds the CPU's kernels before anything imports NumPy
from companion import paths


def other_clone(folder: Path) -> Path | None:
    """The clone that a folder lies in, if another one's code runs, as an environment has it."""
    around = (f for f in (folder, *folder.parents) if (f / "clipit_lib" / "paths.py").is_file())
    clone = next(around, paths.repository())
    return None if clone == paths.repository() else clone
