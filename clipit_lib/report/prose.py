"""Markdown as HTML that is safe to show: raw HTML is text, formulas are MathML."""

from __future__ import annotations

from xml.etree import ElementTree

from latex2mathml.converter import convert
from markupsafe import Markup, escape
from mistune.util import safe_entity
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from clipit_lib.report.outline import Outline

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
