"""The command `report`: all results of a profile on one page."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import platform
import re
import subprocess
from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import pandas as pd
from bs4 import BeautifulSoup, Tag
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from latex2mathml.converter import convert
from markupsafe import Markup, escape
from mistune.util import safe_entity
from nbconvert.exporters import TemplateExporter
from nbconvert.filters.ansi import strip_ansi
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image
from traitlets.config import Config

from clipit_lib import runs
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest, whole, write_text
from companion import archive, archived, figures, paths, rehearsal, tables
from companion.cost import processor
from companion.measures import may_be_shown
from companion.phantom import Phantom
from companion.profile import Profile, load_profile, searched_path
from companion.reading import read_strict

HERE = Path(__file__).parent / "page"


# -- Headings of the page: unique anchors, and no level left out.


class Outline:
    """Gives each heading its level and anchor, in the order in which the page is written.

    Args:
        taken: anchors that the page has already.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = dict.fromkeys(taken, 1)
        self._level = 1
        self.title = self.at = ""  # text and anchor of the last heading

    def heading(self, text: Markup, level: int, name: str = "") -> Markup:
        """A heading of HTML at this level (2 to 6), or one below the one before it.

        Args:
            name: its anchor; made from the text if empty.
        """
        self._level = max(2, min(level, self._level + 1, 6))
        self.title = text.striptags()
        self.at = self.anchor(name or self.title)
        return Markup("<h{0} id='{1}'>{2}</h{0}>\n").format(self._level, self.at, text)

    def anchor(self, text: str) -> str:
        """An id that no other element of the page has: letters, digits, hyphens."""
        base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
        count = self._taken[base] = self._taken.get(base, 0) + 1
        # A base may itself end in a number, so the numbered name is checked as well.
        return base if count == 1 else self.anchor(f"{base}-{count}")


# -- Markdown as HTML that is safe to show: raw HTML is text, formulas are MathML.


MATHML = "{http://www.w3.org/1998/Math/MathML}m"


def prose(source: str, outline: Outline, level: int) -> Markup:
    """Markdown as HTML; its first level of headings (`##`) becomes `level` of the page."""
    return Markup(MarkdownWithMath(_Renderer(outline, level)).render(source))


def formula(tex: str, display: str = "inline") -> Markup:
    """TeX as MathML, which browsers draw by themselves; as code if it cannot be read."""
    known = tex.strip().replace(r"\arg", r"\operatorname{arg}")
    try:
        mathml = convert(known, display=display)
        elements = list(ElementTree.fromstring(mathml).iter())
    except Exception:  # the library has no common exception for what it cannot read
        elements = []
    # It passes unknown commands and HTML through.
    understood = elements and all(
        each.tag.startswith(MATHML) and "\\" not in (each.text or "") and "href" not in each.attrib
        for each in elements
    )
    return Markup(mathml) if understood else Markup("<code>{}</code>").format(tex.strip())


class _Renderer(IPythonRenderer):
    """Text may come from data: nothing in it becomes markup or is loaded from elsewhere."""

    def __init__(self, outline: Outline, level: int) -> None:
        super().__init__(escape=True, allow_harmful_protocols=False, exclude_anchor_links=True)
        self._outline, self._first = outline, level

    def text(self, text: str) -> str:
        """Entities that a table was written with stay what they stand for."""
        return safe_entity(text)

    def heading(self, text: str, level: int, **attrs: object) -> str:
        return str(self._outline.heading(Markup(text), self._first + max(level, 2) - 2))

    def block_math(self, body: str) -> str:
        return str(formula(body, "block"))

    def inline_math(self, body: str) -> str:
        return str(formula(body))

    def latex_environment(self, name: str, body: str) -> str:
        return str(formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block"))

    def block_code(self, code: str, info: str | None = None) -> str:
        return f"<pre><code>{escape(code)}</code></pre>\n"

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """Only links that lead somewhere from wherever this page is kept."""
        return super().link(text, url, title) if url.startswith(("https://", "http://")) else text

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return f"<em>{escape(Markup(text).striptags())}</em>"

    def table(self, text: str) -> str:
        return str(in_a_box(Markup(f"<table>\n{text}</table>")))

    def table_cell(self, text: str, align: str | None = None, head: bool = False) -> str:
        return f'<th scope="col">{text}</th>\n' if head else f"<td>{text}</td>\n"


def in_a_box(table: Markup) -> Markup:
    """A table that scrolls by itself, also by keyboard, when it is wider than the page."""
    box = "<div class='wide' role='group' aria-label='Table' tabindex='0'>{}</div>\n"
    return Markup(box).format(table)


# -- Tables of notebooks (as pandas writes them) as accessible HTML: of each cell its text is kept.


NUMBER = re.compile(r"[+-]?\d[\d,.]*(e[+-]?\d+)?%?|nan", re.IGNORECASE)
SPANS = {"colspan": "colgroup", "rowspan": "rowgroup"}


def data_tables(source: str) -> Markup:
    """The tables in a piece of HTML; empty if there is none. Whatever is in a cell is text."""
    boxes, joined = Markup(""), Markup("").join
    for table in BeautifulSoup(source, "html.parser").find_all("table"):
        rows = [list(row.find_all(["th", "td"])) for row in table.find_all("tr")]
        # A first column of 0, 1, 2, ... is pandas' own and says nothing.
        first = [row[0].get_text() for row in rows if row]
        single = all(sum(cell.name == "th" for cell in row) == 1 for row in rows[1:])
        if single and first == ["", *map(str, range(len(rows) - 1))]:
            rows = [row[1:] for row in rows]
        head = sum(all(cell.name == "th" for cell in row) for row in rows)
        lines = [
            Markup("<tr>{}</tr>\n").format(joined(_cell(cell, place < head) for cell in row))
            for place, row in enumerate(rows)
        ]
        whole_table = Markup("<table><thead>{}</thead>\n<tbody>{}</tbody></table>")
        boxes += in_a_box(whole_table.format(joined(lines[:head]), joined(lines[head:])))
    return boxes


def _cell(cell: Tag, in_head: bool) -> Markup:
    text = cell.get_text().strip()
    spans = {name: str(cell.get(name)) for name in SPANS}
    about: dict[str, Any] = {k: span for k, span in spans.items() if span.isdigit() and span != "1"}
    if cell.name == "th" and text:  # an empty header heads nothing
        side = "colspan" if in_head else "rowspan"
        about["scope"] = SPANS[side] if side in about else SPANS[side][:3]
    elif NUMBER.fullmatch(text):
        about["class"] = "number"
    cell.name, cell.attrs, cell.string = "th" if "scope" in about else "td", about, text
    return Markup(str(cell))


# -- Pictures of the page, each once, small, with words for those who cannot see it; printed text.


WIDEST = 1500  # pixels; a figure is shown at about half of that
LOSSLESS_UP_TO = 120_000  # bytes; what is larger holds patches or many points
WITHHELD = Markup(
    "<p class='withheld'>{} left out: it may hold patches or reports that are not ours to pass on."
    "</p>\n"
)
REPRESENTATION = re.compile(r"<[\w.]+[^<>]*>\s*")  # of an object that has no text of its own
PRINTED = Markup("<pre class='printed' tabindex='0'>{}</pre>\n")
WORD = re.compile(r"[^\W\d_]{2,}")
OF_NUMBERS = re.compile(r"\b(history|loss)_figure\(")  # pictures that show no patch and no report


class Pictures:
    """What the page has shown so far.

    Args:
        shareable: whether anything may be shown; if not, what shows no patch and no report:
            pictures that are kept as figures or drawn from numbers, and printed text all of whose
            words are those of the profile or of the code that printed it.
    """

    def __init__(self, profile: Profile, outline: Outline, shareable: bool) -> None:
        self.outline, self.shareable, self._profile = outline, shareable, profile.name
        self._shown: dict[str, str] = {}
        kept = sorted(paths.figures(profile.name).glob("*.png"))
        self._kept = {digest(path.read_bytes()): path.stem for path in kept}
        self._known = profile.model_dump_json()

    @property
    def figures(self) -> dict[str, str]:
        """The anchors of kept figures that have been shown."""
        return {self._kept[each]: at for each, at in self._shown.items() if each in self._kept}

    def printed(self, text: str, source: str) -> Markup:
        """What a cell printed, without progress bars and names of objects."""
        text = "" if REPRESENTATION.fullmatch(text) else strip_ansi(text)
        # A terminal shows what was written after the last carriage return of a line.
        lines = (line.rsplit("\r", 1)[-1].rstrip() for line in text.split("\n"))
        kept = "\n".join(lines).strip("\n")
        known = self.shareable or {*WORD.findall(source + self._known)} >= {*WORD.findall(kept)}
        shown = PRINTED.format(kept) if known else WITHHELD.format("Printed text")
        return shown if kept else Markup("")

    def show(self, picture: bytes, source: str) -> Markup:
        """A cell's picture as a figure of the page; a link to it if it has been shown before."""
        content = digest(picture)
        name = self._kept.get(content)
        if not (name or self.shareable or OF_NUMBERS.search(source)):
            return WITHHELD.format("A picture")
        if shown := self._shown.get(content):
            return Markup("<p><a href='#{}'>The figure shown above</a></p>\n").format(shown)
        words, caption = f"Figure in: {self.outline.title}", Markup("")
        if name is not None:  # a kept one: where it lies, and how many runs are behind it
            words = figures.meaning(name) or words
            sidecar = paths.figures(self._profile) / f"{name}.runs.json"
            runs = archive.keys(sidecar) if sidecar.exists() else []
            behind = f", from {len(runs)} runs" if runs else ""
            caption = Markup("<figcaption><code>figures/{}/{}.svg</code>{}</figcaption>").format(
                self._profile, name, behind
            )
        anchor = self._shown[content] = self.outline.anchor(f"figure {name or self.outline.title}")
        return Markup("<figure id='{}'><img {} alt='{}'>{}</figure>\n").format(
            anchor, _embedded(picture), words, caption
        )


def _embedded(picture: bytes) -> Markup:
    """A data URI in WebP, and the size in pixels at which it is shown."""
    with Image.open(io.BytesIO(picture)) as opened:
        image = Image.alpha_composite(
            Image.new("RGBA", opened.size, "white"), opened.convert("RGBA")
        ).convert("RGB")
    image.thumbnail((WIDEST, 10 * WIDEST))

    def packed(**options: Any) -> bytes:
        image.save(stream := io.BytesIO(), "WEBP", method=6, **options)
        return stream.getvalue()

    best = packed(lossless=True)
    if len(best) > LOSSLESS_UP_TO:
        best = min(best, packed(quality=82), key=len)
    return Markup("src='data:image/webp;base64,{}' width='{}' height='{}'").format(
        base64.b64encode(best).decode("ascii"), image.width // 2, image.height // 2
    )


# -- Executed notebooks as sections of the page, by nbconvert and the template `page/notebook`.


TITLE = re.compile(r"\A# +(.+?)\n")
FIRST_PER_PROFILE = 3  # notebooks below this number run once an encoder, data set or cell
# What a notebook keeps of an output in several forms: the first of these.
PRIORITY = ["image/png", "image/jpeg", "text/markdown", "text/html", "text/plain"]


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor and title for the contents, and its HTML."""

    anchor: str
    title: str
    html: Markup


def executed(profile: str) -> tuple[list[Path], list[Path], list[str]]:
    """Whole executed notebooks in number order: those run once a profile, and the others.

    Third come the names of those that failed when they were last run.
    """
    found = sorted((paths.results(profile) / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    done = [path for path in found if not path.stem.endswith(".failed")]
    once = [path for path in done if int(path.name[:2]) >= FIRST_PER_PROFILE]
    failed = [path.stem.removesuffix(".failed") for path in found if path not in done]
    return once, [path for path in done if path not in once], failed


def section(path: Path, pictures: Pictures, level: int) -> Section:
    """A notebook as a section whose own heading is of this level.

    Tables and Markdown hold numbers and are shown whether or not data may be shared.

    Raises:
        ClipItError: the file is damaged.
    """
    outline = pictures.outline
    with whole(path, "Delete it and run ./run_all.sh again"):
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    cells = notebook.cells
    first = cells[0].source + "\n" if cells and cells[0].cell_type == "markdown" else ""
    title = path.stem
    if match := TITLE.match(first):
        title, cells[0].source = match[1], first[match.end() :]
    if about := path.stem.split("__")[1:]:  # which encoder, data set or cell
        title += f" ({', '.join(about)})"
    heading = outline.heading(Markup.escape(title), level, path.stem)
    anchor = outline.at
    for cell in (each for each in cells if each.cell_type == "code"):
        drawn = {}  # a figure that is the value of a cell is drawn again when the cell ends
        for output in cell.outputs:
            data = output.get("data", {})
            drawn[data.get("image/png") or data.get("image/jpeg") or id(output)] = output
        cell.outputs = list(drawn.values())

    exporter = TemplateExporter(
        config=Config(NbConvertBase={"display_data_priority": PRIORITY}),
        extra_template_basedirs=[str(HERE)], template_name="notebook", file_extension=".html",
        filters={
            "prose": lambda text: prose(text, outline, level + 1),
            "picture": lambda encoded, cell: pictures.show(base64.b64decode(encoded), cell),
            "tables": data_tables,
            "printed": pictures.printed,
        },
    )  # fmt: skip
    return Section(anchor, title, heading + Markup(exporter.from_notebook_node(notebook)[0]))


# -- How the results of a profile were made, from what its runs have kept.


CODE = ("clipit_lib", "companion", "notebooks", "profiles", "workflow")
KERNELS = {
    "avx2": "avx2: the same bytes on every x86-64 CPU with AVX2",
    "native": "native: those of the machine that made them; another gives other digits",
}


def made(profile: Profile, cited: pd.DataFrame) -> dict[str, str]:
    """A name and a sentence for each thing that is known of the runs that results cite."""
    facts = {"Code": _code()}
    if cited.empty:
        facts["Runs"] = "none is listed: runs.csv is not there"
    else:
        hours, minutes = divmod(round(cited["seconds"].sum() / 60), 60)
        kernels = sorted(set(cited["kernels"]))
        facts |= {
            "Runs": f"{len(cited)} runs are behind the tables and figures, counted below",
            "Time": f"{hours} h {minutes} min in all, summed over these runs",
            "Kernels": "; ".join(KERNELS.get(each, each) for each in kernels),
        }
    if (peak := cited["peak_memory_mib"].max()) > 0:  # NaN where no run has measured it
        facts["Peak memory"] = f"{peak / 1024:.1f} GiB of the process of one run, at most"
    machine = f"{platform.system()}, {processor()}, {os.cpu_count()} cores"
    return facts | {
        "Seeds": ", ".join(map(str, profile.seeds)),
        "Versions": _software(profile.name, cited["key"]),
        "Machine of this page": machine,
    }


def _software(profile: str, keys: pd.Series[str]) -> str:
    """Versions that the cited runs were made with; several where runs differ."""
    found: dict[str, set[str]] = {}
    for path in (paths.runs(profile) / key / runs.DONE for key in keys):
        if path.exists():
            with whole(path, runs.AGAIN):
                done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                for name, version in {"Python": done["python"], **done["versions"]}.items():
                    found.setdefault(name, set()).add(version)
    said = "; ".join(f"{name} {' and '.join(sorted(found[name]))}" for name in found)
    return said or "unknown here: the folders of the runs are not kept"


def _code() -> str:
    """The commit, if this is a git repository, and whether the code was as committed."""
    git = ("git", "-C", str(paths.repository()), "--git-dir=.git")  # not that of a folder above
    asked = (["rev-parse", "HEAD"], ["status", "--porcelain", "--", *CODE])
    try:
        commit, changed = (
            subprocess.run([*git, *each], capture_output=True, text=True, check=True).stdout
            for each in asked
        )
    except (OSError, subprocess.SubprocessError):
        return "version unknown: no git repository"
    return f"commit {commit[:12]}" + (", with changes that are not committed" if changed else "")


# -- What came out, at once: the steps from the probe to CLIP-IT, and a verdict for each claim.


# What is said of each cell of notebook 14, whose steps stand in the places of their names.
STEPS = (
    "On {dataset} ({backbone}) CLIP-IT adds to the probe {all together}. Of these LoRA alone gives "
    "{LoRA}, its branch without text {the branch, no text}, and any report as target {any report "
    "as target}. The matched report adds {the matched report}."
)
PLACES = read_strict(HERE / "places.yaml", dict[str, tuple[str, str, str]])


def opening(profile: str, pictures: Pictures) -> Markup:
    """The figure of the controls, or of the user's data, and what it says; empty without both."""
    folder, figures = paths.tables(profile), paths.figures(profile)
    for name, table in {"controls": "controls_steps.csv", "own": "own.md"}.items():
        path, figure = folder / table, figures / f"{name}.png"
        if path.exists() and figure.exists():
            with whole(path, "Run the notebook that writes it again"):
                words = _steps(path) if name == "controls" else path.read_text("utf-8")
            text = words.partition("\n\n|")[0]  # without a table
            return pictures.show(figure.read_bytes(), "") + prose(text, pictures.outline, 2)
    return Markup("")


def _steps(table: Path) -> str:
    steps = pd.read_csv(table)
    inner = ~steps["step"].isin([tables.WHOLE[0], tables.STEPS[-1][0]])
    said = tables.judged_words(steps).mask(inner, tables.judged(steps))
    found = steps.assign(said=said)
    cells = found.pivot_table("said", tables.GAIN_CELL, "step", "first", sort=False)
    return "\n\n".join(tables.filled(cells.reset_index(), STEPS))


def claims(
    profile: str, outline: Outline, anchors: Mapping[str, str]
) -> tuple[list[Markup], list[dict[str, Any]]]:
    """The paragraphs of claims.md, and the rows of its tables with what each claim is linked to.

    Args:
        anchors: of the notebooks and the kept figures that the page has, by name.
    """
    path = paths.results(profile) / "claims.md"
    text = "The claims have not been judged for this profile: there is no `claims.md`."
    if path.exists():
        with whole(path, "Delete it and run notebook 18_claims again"):
            text = TITLE.sub("", path.read_text(encoding="utf-8"), count=1)  # the page has its own
    said, rows = BeautifulSoup(prose(text, outline, 3), "html.parser"), []
    for table in said.find_all("table"):
        heads = [head.get_text() for head in table.find_all("th")]
        for line in table.select("tbody tr"):
            cells = {h: Markup(c.decode_contents()) for h, c in zip(heads, line("td"), strict=True)}
            where = cells["where"].striptags()
            found = (PLACES[place] for place in PLACES if place in where)
            section, book, name = next(found, ("", "", ""))  # a claim of the user's own
            files = {"figure": f"../../figures/{profile}/{name}.png", "csv": f"tables/{name}.csv"}
            links = {what: file for what, file in files.items() if (path.parent / file).exists()}
            here = {"figure": name, "notebook": book}
            links |= {what: f"#{anchors[one]}" for what, one in here.items() if one in anchors}
            anchor = outline.anchor(cells["claim"].striptags())
            rows.append({"anchor": anchor, "cells": cells, "section": section, "links": links})
    return [Markup(part) for part in said("p", recursive=False)], rows


# -- The page: what a profile is, what came out, its notebooks, and how it was made.


# Of the template.
OWN_ANCHORS = ("content", "all-code", "claims", "ledger", "made", "made-runs", "made-profile")


def main(options: Namespace) -> None:
    """Write all results of a profile on one page, results/PROFILE/report.html."""
    profile = load_profile(options.profile)
    path = paths.results(profile.name) / "report.html"
    write_text(path, page(profile))
    print(f"report in {path} ({path.stat().st_size / 2**20:.1f} MiB)")


def page(profile: Profile) -> str:
    """The whole page. Equal inputs give equal text.

    Raises:
        ClipItError: no notebook of the profile has been run, or a file of it is damaged.
    """
    once, others, failed = executed(profile.name)
    if not once and not others:
        fix = f"Run ./run_all.sh --profile {profile.name} first"
        where = paths.results(profile.name) / "notebooks"
        raise ClipItError("no executed notebook here", where, fix)
    outline = Outline(OWN_ANCHORS)
    shareable = all(may_be_shown(profile, name) for name in profile.data)
    pictures = Pictures(profile, outline, shareable)
    first = opening(profile.name, pictures)
    sections = [section(path, pictures, 2) for path in once]
    outline.heading(Markup("Appendix"), 2, "appendix")  # its own heading is in the template
    appendix = [section(path, pictures, 3) for path in others]
    books = {path.stem: each.anchor for path, each in zip(once, sections, strict=True)}
    judged, ledger = claims(profile.name, outline, pictures.figures | books)
    cited = archived.listed(paths.results(profile.name))
    counts = pd.crosstab(cited["setting"], cited["dataset"]).reset_index()
    name = profile.name.removesuffix(rehearsal.SUFFIX)
    asked = [paths.profiles() / f"{name}.yaml", searched_path(name)]
    asked += [rehearsal.FILE] if profile.depth else []
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    # How a policy names a style or script that is allowed.
    environment.filters["sha256"] = lambda text: base64.b64encode(
        hashlib.sha256(text.encode()).digest()
    ).decode("ascii")
    return environment.get_template("template.html").render(
        profile=profile,
        title=figures.TITLES.get(profile.name, profile.name),
        mark=prose(rehearsal.MARK, outline, 2),
        phantom=any(isinstance(each, Phantom) for each in profile.data.values()),
        failed=failed,
        opening=first,
        claims=judged,
        ledger=ledger,
        sections=sections,
        appendix=appendix,
        facts=made(profile, cited),
        counts=prose(tables.markdown(counts), outline, 3),
        files={path.name: path.read_text("utf-8") for path in asked if path.exists()},
        style=Markup((HERE / "style.css").read_text("utf-8")),
        script=Markup((HERE / "script.js").read_text("utf-8")),
    )
