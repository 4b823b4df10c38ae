"""Figures, and their gallery: each with one line of meaning, as figures/README.md."""

from __future__ import annotations

from pathlib import Path

from clipit_lib.files import write_text
from companion import paths
from companion.reading import read_strict

_READ = read_strict(Path(__file__).with_name("gallery.yaml"), dict[str, dict[str, str]])
MEANING, TITLES = _READ["meaning"], _READ["titles"]


def meaning(name: str) -> str | None:
    """One line on a figure, None if there is none."""
    return MEANING.get("pairing" if name.startswith("pairing_") else name)


def write_gallery() -> Path:
    """Write figures/README.md over all figures that are there."""
    root = paths.figures("demo").parent
    lines = ["# Figures", "", "Made by the notebooks; regenerated whenever a profile is run. "
             "`NAME_85mm.pdf` is for one column of a journal.", ""]  # fmt: skip
    order = {name: place for place, name in enumerate(MEANING)}
    for profile, title in TITLES.items():
        pictures = sorted(
            (root / profile).glob("*.png"), key=lambda path: (order.get(path.stem, 99), path.stem)
        )
        if pictures and profile != "smoke":
            lines += [f"## {title}", ""]
            for path in pictures:
                lines += [f"**{path.stem}.** {meaning(path.stem) or ''}", ""]
                lines += [f"![{meaning(path.stem) or path.stem}]({profile}/{path.name})", ""]
    target = root / "README.md"
    write_text(target, "\n".join(lines).rstrip() + "\n")
    return target
