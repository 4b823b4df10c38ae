"""The command `report`: all results of a profile on one page."""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
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
from nbconvert.filters.ansi import strip_ansi
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image

from clipit_lib import paths, runs
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole, write_text
from companion import archive, tables
from companion.figures import gallery
from companion.measures import may_be_shown
from companion.phantom.datasets import PhantomData
from companion.profile import Profile, load_profile, searched_path

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
        """A heading as HTML, at most one level below the one before it.

        Args:
            text: its content as HTML.
            level: the wanted level, 2 to 6.
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
    except Exception:  # the library has no common exception for what it cannot read
        mathml = ""
    safe = Markup(mathml) if _is_mathml(mathml) else None
    return safe or Markup("<code>{}</code>").format(tex.strip())


def _is_mathml(text: str) -> bool:
    """Whether the converter has understood all: it passes unknown commands and HTML through."""
    try:
        elements = list(ElementTree.fromstring(text).iter())
    except ElementTree.ParseError:
        return False
    return all(element.tag.startswith(MATHML) for element in elements) and not any(
        "\\" in (element.text or "") or "href" in element.attrib for element in elements
    )


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


# -- Tables of notebooks (as pandas writes them) as accessible HTML, built anew from their text.


NUMBER = re.compile(r"[+-]?\d[\d,.]*(e[+-]?\d+)?%?|nan", re.IGNORECASE)


def data_tables(source: str) -> Markup:
    """The tables in a piece of HTML; empty if there is none. Whatever is in a cell is text."""
    found = BeautifulSoup(source, "html.parser").find_all("table")
    return Markup("").join(in_a_box(_table(table)) for table in found)


def _table(table: Tag) -> Markup:
    rows = [list(row.find_all(["th", "td"])) for row in table.find_all("tr")]
    if _only_counts(rows):
        rows = [row[1:] for row in rows]
    head = sum(all(cell.name == "th" for cell in row) for row in rows)
    parts = [
        Markup("<thead>{}</thead>").format(_rows(rows[:head], "col")),
        Markup("<tbody>{}</tbody>").format(_rows(rows[head:], "row")),
    ]
    return Markup("<table>{}</table>").format(Markup("\n").join(parts))


def _only_counts(rows: list[list[Tag]]) -> bool:
    """Whether the first column is pandas' own 0, 1, 2, ..., which says nothing."""
    first = [row[0].get_text() for row in rows if row]
    single = all(sum(cell.name == "th" for cell in row) == 1 for row in rows[1:])
    return single and first == ["", *map(str, range(len(rows) - 1))]


def _rows(rows: list[list[Tag]], scope: str) -> Markup:
    cells = (Markup("").join(_cell(cell, scope) for cell in row) for row in rows)
    return Markup("\n").join(Markup("<tr>{}</tr>").format(row) for row in cells)


def _cell(cell: Tag, scope: str) -> Markup:
    text = cell.get_text().strip()
    spans = "".join(
        f' {name}="{value}"'
        for name in ("colspan", "rowspan")
        if (value := str(cell.get(name, ""))).isdigit() and value != "1"
    )
    if cell.name == "td" or not text:  # an empty header heads nothing
        number = ' class="number"' if NUMBER.fullmatch(text) else ""
        return Markup("<td{}{}>{}</td>").format(Markup(spans), Markup(number), text)
    wide = "group" if ("colspan" if scope == "col" else "rowspan") in spans else ""
    return Markup("<th scope='{}{}'{}>{}</th>").format(scope, wide, Markup(spans), text)


# -- Pictures of the page: each once, small, with words for those who cannot see it.


WIDEST = 1500  # pixels; a figure is shown at about half of that
LOSSLESS_UP_TO = 120_000  # bytes; what is larger holds patches or many points
PICTURE_WITHHELD = (
    "A picture is left out here: it may show patches or reports that are not ours to pass on. "
    "It is in the executed notebook."
)


class Pictures:
    """What the page has shown so far.

    Args:
        shareable: whether any picture may be shown; if not, only those that are kept as figures,
            which show no patch and no report.
    """

    def __init__(self, profile: str, outline: Outline, shareable: bool) -> None:
        self._profile, self._outline, self._shareable = profile, outline, shareable
        self._shown: dict[str, str] = {}
        kept = sorted(paths.figures(profile).glob("*.png"))
        self._kept = {_digest(path.read_bytes()): path.stem for path in kept}

    def show(self, picture: bytes) -> Markup:
        """A picture as a figure of the page; a link to it if it has been shown before."""
        digest = _digest(picture)
        name = self._kept.get(digest)
        if name is None and not self._shareable:
            return Markup("<p class='withheld'>{}</p>\n").format(PICTURE_WITHHELD)
        if digest in self._shown:
            return Markup("<p><a href='#{}'>The figure shown above</a></p>\n").format(
                self._shown[digest]
            )
        words = (name and gallery.meaning(name)) or f"Figure in: {self._outline.title}"
        anchor = self._shown[digest] = self._outline.anchor(f"figure {name or self._outline.title}")
        source, width, height = _embedded(picture)
        return Markup(
            "<figure id='{}'><img src='{}' width='{}' height='{}' alt='{}'>{}</figure>\n"
        ).format(anchor, source, width, height, words, self._caption(name))

    def _caption(self, name: str | None) -> Markup:
        """Where a kept figure lies, and how many runs are behind it."""
        if name is None:
            return Markup("")
        sidecar = paths.figures(self._profile) / f"{name}.runs.json"
        runs = archive.keys(sidecar) if sidecar.exists() else []
        behind = f", from {len(runs)} runs" if runs else ""
        return Markup("<figcaption><code>figures/{}/{}.svg</code>{}</figcaption>").format(
            self._profile, name, behind
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _embedded(picture: bytes) -> tuple[str, int, int]:
    """A data URI in WebP, and the size in pixels at which it is shown."""
    with Image.open(io.BytesIO(picture)) as opened:
        image = Image.new("RGB", opened.size, "white")
        image.paste(opened.convert("RGBA"), mask=opened.convert("RGBA"))
    image.thumbnail((WIDEST, 10 * WIDEST))
    data = _webp(image, lossless=True)
    if len(data) > LOSSLESS_UP_TO:
        data = min(data, _webp(image, quality=82), key=len)
    text = base64.b64encode(data).decode("ascii")
    return f"data:image/webp;base64,{text}", image.width // 2, image.height // 2


def _webp(image: Image.Image, **options: int | bool) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "WEBP", method=6, **options)
    return stream.getvalue()


# -- Code cells as HTML: the code folded away, what came out of it in full.


REPRESENTATION = re.compile(r"<[\w.]+[^<>]*>\s*")  # of an object that has no text of its own
PRINTED = Markup("<pre class='printed' tabindex='0'>{}</pre>\n")
OUTPUT_WITHHELD = Markup(
    "<p class='withheld'>Printed text is left out here: it may quote reports that are not ours to "
    "pass on. It is in the executed notebook.</p>\n"
)


def code(sources: list[str]) -> Markup:
    """Code of one or more cells, folded away; nothing for none."""
    if not sources:
        return Markup("")
    text = "\n\n".join(sources)
    return Markup(
        "<details class='code'><summary>Code</summary><pre tabindex='0'><code>{}</code></pre>"
        "</details>\n"
    ).format(text)


def results(
    outputs: list[Any], outline: Outline, pictures: Pictures, level: int, shareable: bool
) -> Markup:
    """What came out of one code cell; empty if that is nothing to show.

    Args:
        level: the level of headings within its Markdown.
        shareable: whether printed text may be shown; tables and Markdown hold numbers and always
            are.
    """
    parts: list[Markup] = []
    for output in _distinct(outputs):
        data = output.get("data", {})
        if encoded := _picture(output):
            parts.append(pictures.show(base64.b64decode(encoded)))
        elif "text/markdown" in data:
            parts.append(prose(str(data["text/markdown"]), outline, level))
        elif tables := data_tables(str(data.get("text/html", ""))):
            parts.append(tables)
        elif text := _printed(output):
            parts.append(PRINTED.format(text) if shareable else OUTPUT_WITHHELD)
    return Markup("").join(dict.fromkeys(parts))  # what is left out is said once a cell


def _picture(output: Any) -> str | None:
    """A PNG or JPEG in base64."""
    data = output.get("data", {})
    return data.get("image/png") or data.get("image/jpeg")


def _distinct(outputs: list[Any]) -> list[Any]:
    """A figure that is the value of a cell is drawn a second time when the cell ends."""
    pictures = [_picture(output) for output in outputs]
    return [
        output
        for position, output in enumerate(outputs)
        if pictures[position] is None or pictures[position] not in pictures[:position]
    ]


def _printed(output: Any) -> str:
    """What a cell printed, without warnings, progress bars and names of objects."""
    if output.output_type == "stream":
        text = output.text if output.name == "stdout" else ""
    elif output.output_type == "error":
        text = f"{output.ename}: {output.evalue}"
    else:
        text = str(output.data.get("text/plain", ""))
        text = "" if REPRESENTATION.fullmatch(text) else text
    # A terminal shows what was written after the last carriage return of a line.
    lines = (line.rsplit("\r", 1)[-1].rstrip() for line in strip_ansi(text).split("\n"))
    return "\n".join(lines).strip("\n")


# -- Executed notebooks as sections of the page.


TITLE = re.compile(r"\A# +(.+?)\n")
FIRST_PER_PROFILE = 3  # notebooks below this number run once an encoder, data set or cell


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor and title for the contents, and its HTML."""

    anchor: str
    title: str
    html: Markup


def executed(profile: str) -> tuple[list[Path], list[Path]]:
    """Whole executed notebooks in number order: those run once a profile, and the others."""
    found = sorted(paths.executed_notebooks(profile).glob("[0-9]*.ipynb"))
    whole = [path for path in found if not path.stem.endswith(".failed")]
    once = [path for path in whole if _number(path) >= FIRST_PER_PROFILE]
    return once, [path for path in whole if _number(path) < FIRST_PER_PROFILE]


def section(
    path: Path, outline: Outline, pictures: Pictures, level: int, shareable: bool
) -> Section:
    """A notebook as a section whose own heading is of this level.

    Raises:
        ClipItError: the file is damaged.
    """
    with whole(path, "Delete it and run ./run_all.sh again"):
        cells = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4).cells
    first = cells[0].source + "\n" if cells and cells[0].cell_type == "markdown" else ""
    match = TITLE.match(first)
    title = match[1] if match else path.stem
    if about := path.stem.split("__")[1:]:  # which encoder, data set or cell
        title += f" ({', '.join(about)})"
    parts = [outline.heading(Markup.escape(title), level, path.stem)]
    anchor = outline.at
    if match:
        cells[0].source = first[match.end() :]
    folded: list[str] = []  # code whose result is still to come
    for cell in cells:
        if cell.cell_type == "markdown":
            parts += [code(folded), prose(cell.source, outline, level + 1)]
            folded = []
        elif cell.cell_type == "code" and cell.source.strip():
            folded.append(cell.source.strip("\n"))
            if shown := results(cell.outputs, outline, pictures, level + 1, shareable):
                parts += [code(folded), shown]
                folded = []
    return Section(anchor, title, Markup("").join([*parts, code(folded)]))


def _number(path: Path) -> int:
    digits = re.match(r"\d+", path.name)
    return int(digits[0]) if digits else 0


# -- How the results of a profile were made, from what its runs have kept.


CODE = ("clipit_lib", "companion", "notebooks", "profiles", "workflow")
KERNELS = {
    "avx2": "avx2: the same bytes on every x86-64 CPU with AVX2",
    "native": "native: those of the machine that made them; another gives other digits",
}


@dataclass(frozen=True)
class Provenance:
    """What the last section of the page says.

    Attributes:
        files: name and text of the files that ask for the runs.
        facts: a name and a sentence each.
        counts: number of cited runs, one row a setting, one column a data set.
    """

    files: dict[str, str]
    facts: dict[str, str]
    counts: pd.DataFrame


def provenance(profile: Profile) -> Provenance:
    """Read what is known of the runs that tables and figures cite."""
    asked = [paths.profiles() / f"{profile.name}.yaml", searched_path(profile.name)]
    cited = archive.listed(paths.results(profile.name))
    facts = {"Code": _code(), **_cost(cited), "Seeds": ", ".join(map(str, profile.seeds))}
    facts |= _software(profile.name, cited["key"]) | {"Machine of this page": _machine()}
    return Provenance(
        files={path.name: path.read_text(encoding="utf-8") for path in asked if path.exists()},
        facts=facts,
        counts=pd.crosstab(cited["setting"], cited["dataset"]),
    )


def _cost(cited: pd.DataFrame) -> dict[str, str]:
    if cited.empty:
        return {"Runs": "none is listed: runs.csv is not there"}
    hours, minutes = divmod(round(cited["seconds"].sum() / 60), 60)
    facts = {
        "Runs": f"{len(cited)} runs are behind the tables and figures, counted below",
        "Time": f"{hours} h {minutes} min in all, summed over these runs",
        "Kernels": "; ".join(KERNELS.get(each, each) for each in sorted(set(cited["kernels"]))),
    }
    if (peak := cited["peak_memory_mib"].max()) > 0:  # NaN where no run has measured it
        facts["Peak memory"] = f"{peak / 1024:.1f} GiB of the process of one run, at most"
    return facts


def _software(profile: str, keys: pd.Series[str]) -> dict[str, str]:
    """Versions that the cited runs were made with; several where runs differ."""
    found: dict[str, set[str]] = {}
    for path in (paths.runs(profile) / key / runs.DONE for key in keys):
        if not path.exists():
            continue
        with whole(path, runs.AGAIN):
            done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            for name, version in {"Python": done["python"], **done["versions"]}.items():
                found.setdefault(name, set()).add(version)
    said = "; ".join(f"{name} {' and '.join(sorted(found[name]))}" for name in found)
    return {"Versions": said or "unknown here: the folders of the runs are not kept"}


def _code() -> str:
    """The commit, if this is a git repository, and whether the code was as committed."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return "version unknown: no git repository"
    changed = _git("status", "--porcelain", "--", *CODE)
    return f"commit {commit[:12]}" + (", with changes that are not committed" if changed else "")


def _git(*arguments: str) -> str:
    """What git prints; nothing if there is no git or no repository here."""
    root = paths.repository()
    if not (root / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _machine() -> str:
    """System, processor and cores."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{platform.system()}, {processor}, {os.cpu_count()} cores"


# -- The page: what a profile is, its claims, its notebooks, and how it was made.


HERE = Path(__file__).parent / "page"
OWN_ANCHORS = ("content", "all-code", "made", "made-runs", "made-profile")  # of the template


def main(arguments: list[str]) -> None:
    """`report --profile NAME`: write results/NAME/report.html."""
    parser = argparse.ArgumentParser(prog="python -m companion report", description=main.__doc__)
    parser.add_argument("--profile", default="demo")
    path = write_page(load_profile(parser.parse_args(arguments).profile))
    print(f"report in {path} ({path.stat().st_size / 2**20:.1f} MiB)")


def write_page(profile: Profile) -> Path:
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
