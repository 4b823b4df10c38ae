"""Code cells as HTML: the code folded away, what came out of it in full."""

from __future__ import annotations

import base64
import re
from typing import Any

from markupsafe import Markup
from nbconvert.filters.ansi import strip_ansi

from clipit_lib.report.data_tables import data_tables
from clipit_lib.report.outline import Outline
from clipit_lib.report.pictures import Pictures
from clipit_lib.report.prose import prose

REPRESENTATION = re.compile(r"<[\w.]+[^<>]*>\s*")  # of an object that has no text of its own
PRINTED = Markup("<pre class='printed' tabindex='0'>{}</pre>\n")
WITHHELD = Markup(
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
            parts.append(PRINTED.format(text) if shareable else WITHHELD)
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
