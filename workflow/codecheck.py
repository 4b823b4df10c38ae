"""Write codecheck.yml: the main outputs that came with the repository, and their checksums."""

from collections.abc import Iterator

import yaml

from clipit_lib.files import file_digest, write_text
from companion import paths
from companion.compare import tables
from companion.figures import TITLES, meaning

PAPER = {
    "title": "CLIP-IT: CLIP-based Pairing of Histology Images with Privileged Textual Information",
    "authors": [{"name": "B. Karimian"}, {"name": "et al."}],
    "reference": "https://arxiv.org/abs/2504.16181",
}
HEAD = """\
# The main outputs and their checksums, after https://codecheck.org.uk/spec/config/1.0. Nobody has
# certified them. Written by `python workflow/codecheck.py`; a test says when it is out of date.
# `python -m companion compare results/PROFILE FOLDER` says how your own results compare.
"""


def manifest() -> Iterator[dict[str, str]]:
    """One entry per archive of predictions, and per table that the gallery has a line on."""
    for archive in sorted((paths.repository() / "results").glob("*/predictions.parquet")):
        results = archive.parent
        said = {path: meaning(path.stem) for path in sorted(tables(results).values())}
        kept = sorted(results.glob("*predictions.parquet"))
        said = dict.fromkeys(kept, "test predictions, from which the tables follow") | said
        for path, comment in said.items():
            if comment is not None:
                yield {
                    "file": path.relative_to(paths.repository()).as_posix(),
                    "comment": f"{TITLES[results.name].partition(':')[0]}. {comment}",
                    "sha256": file_digest(path),
                }


def text() -> str:
    """What codecheck.yml is to be."""
    held = {"version": "https://codecheck.org.uk/spec/config/1.0", "paper": PAPER}
    whole = yaml.safe_dump(held | {"manifest": list(manifest())}, sort_keys=False, width=100)
    return HEAD + whole


if __name__ == "__main__":
    write_text(paths.repository() / "codecheck.yml", text())
