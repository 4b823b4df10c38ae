"""The page: what a profile is, its claims, its notebooks, and how it was made."""

from __future__ import annotations

import argparse
import base64
import hashlib
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from clipit_lib import paths, tables
from clipit_lib.errors import ClipItError
from clipit_lib.figures import gallery
from clipit_lib.files import whole, write_text
from clipit_lib.report.notebooks import TITLE, Section, executed, section
from clipit_lib.report.outline import Outline
from clipit_lib.report.pictures import Pictures
from clipit_lib.report.prose import prose
from clipit_lib.report.provenance import provenance
from clipit_lib.settings import PhantomData, Profile, load_profile
from clipit_lib.text_statistics import may_be_shown

HERE = Path(__file__).parent
OWN_ANCHORS = ("content", "all-code", "made", "made-runs", "made-profile")  # of the template


def main(arguments: list[str]) -> None:
    """`report --profile NAME`: write results/NAME/report.html."""
    parser = argparse.ArgumentParser(prog="python -m clipit_lib report", description=main.__doc__)
    parser.add_argument("--profile", default="demo")
    path = write(load_profile(parser.parse_args(arguments).profile))
    print(f"report in {path} ({path.stat().st_size / 2**20:.1f} MiB)")


def write(profile: Profile) -> Path:
    """Write results/PROFILE/report.html from what is stored; return its path.

    Raises:
        ClipItError: no notebook of the profile has been run.
    """
    path = paths.results(profile.name) / "report.html"
    write_text(path, page(profile))
    return path


def page(profile: Profile) -> str:
    """The whole page. Equal inputs give equal text.

    Raises:
        ClipItError: no notebook of the profile has been run, or a file of it is damaged.
    """
    once, others = executed(profile.name)
    if not once and not others:
        raise ClipItError(
            "no executed notebook here",
            paths.executed_notebooks(profile.name),
            f"Run ./run_all.sh --profile {profile.name} first",
        )
    outline = Outline(OWN_ANCHORS)
    shareable = all(may_be_shown(profile, name) for name in profile.data)
    pictures = Pictures(profile.name, outline, shareable)
    claims = _claims(profile.name, outline)
    sections = [section(path, outline, pictures, 2, shareable) for path in once]
    outline.heading(Markup("Appendix"), 2, "appendix")  # its own heading is in the template
    appendix = [section(path, outline, pictures, 3, shareable) for path in others]
    made = provenance(profile)
    style, script = _file("style.css"), _file("script.js")
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    text = environment.get_template("template.html").render(
        profile=profile,
        title=gallery.TITLES.get(profile.name, profile.name),
        warnings=_warnings(profile),
        claims=claims,
        sections=sections,
        appendix=appendix,
        made=made,
        counts=prose(tables.markdown(made.counts.reset_index()), outline, 3),
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
    )
    return text


def _warnings(profile: Profile) -> dict[str, str]:
    """What must be known before any number is read."""
    said = {}
    if any(isinstance(settings, PhantomData) for settings in profile.data.values()):
        said["Phantom"] = (
            "all images and reports are drawn and written by a program. It is a calibration "
            "object, never tissue, and says nothing about patients."
        )
    if profile.stand_in is not None:
        said["Stand-in retriever"] = (
            "no histology CLIP was at hand. Two general networks, joined by projections that were "
            "trained here on class labels, stand in for it. A gain may come from those labels."
        )
    if profile.name == "smoke":
        said["A test"] = "this profile checks that everything runs. Its numbers mean nothing."
    return said


def _claims(profile: str, outline: Outline) -> Section:
    """The claims of the paper with their verdicts, if they have been judged."""
    heading = outline.heading(Markup("Claims of the paper"), 2, "claims")
    words, table = (paths.results(profile) / f"claims.{suffix}" for suffix in ("md", "csv"))
    if words.exists():
        text = TITLE.sub("", words.read_text(encoding="utf-8"), count=1)  # the page has its own
    elif table.exists():
        with whole(table, "Delete it and run ./run_all.sh again"):
            text = tables.markdown(pd.read_csv(table, dtype=str).fillna(""))
    else:
        text = "The claims have not been judged for this profile: there is no `claims.csv`."
    return Section("claims", "Claims of the paper", heading + prose(text, outline, 3))


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """What a browser may do with the page: show what is in it, and ask no network for anything."""
    hashes = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
        for text in (style, script)
    )
    styles, scripts = (f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; img-src data:; style-src {styles}; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )
