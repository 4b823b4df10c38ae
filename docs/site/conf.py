"""The site of one profile, for Sphinx: `./run_all.sh --site`. Nothing is executed."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

from latex2mathml.converter import convert

import clipit_lib
from companion import paths, report

project = html_title = "A companion to CLIP-IT"
extensions = [f"sphinx.ext.{name}" for name in ("autodoc", "autosummary", "napoleon")] + ["myst_nb"]
root_doc, default_role, html_theme, html_copy_source = (
    "README",
    "py:obj",
    "sphinx_book_theme",
    False,
)
html_math_renderer = "mathml"  # MathJax would be fetched: the site is read offline
myst_enable_extensions, myst_heading_anchors = ["dollarmath"], 3
nb_execution_mode, nb_render_markdown_format, nb_merge_streams = "off", "myst", True
autosummary_generate, napoleon_use_ivar, autodoc_member_order = False, True, "bysource"

LINK = re.compile(r"\]\(([^)#\s]+)")
TREE = "\n```{{toctree}}\n:hidden:\n:caption: {}\n\n{}\n```\n"
FOUND = walk_packages(clipit_lib.__path__, "clipit_lib.")
MODULES = sorted(each.name for each in FOUND if not each.ispkg and "__" not in each.name)
MEMBERS = "# {0}\n\n```{{eval-rst}}\n.. automodule:: {0}\n   :members:\n```\n"
SUMMARY = "# API of clipit_lib\n\n```{eval-rst}\n.. automodule:: clipit_lib\n\n.. autosummary::\n\n"


def files(profile: str) -> dict[str, Path]:
    """Where each file lies in the site, and what it is made of: pages, and all they link to."""
    once, others, _ = report.executed(profile)
    found = {}
    for source in sorted(paths.notebooks().glob("*.ipynb")):
        made = [path for path in once + others if path.stem.split("__")[0] == source.stem]
        found |= {f"notebooks/{path.name}": path for path in made or [source]}
    docs = sorted(path.name for path in (paths.repository() / "docs").glob("*.md"))
    todo = ["README.md", *found, *(f"docs/{name}" for name in docs), "figures/README.md"]
    for place in todo:
        file = found.setdefault(place, _own(place))
        links = LINK.findall(file.read_text("utf-8")) if file.suffix in (".md", ".ipynb") else []
        linked = {os.path.normpath(Path(place).parent / link): None for link in links}
        todo += [to for to in linked if to not in todo and to[0] != "." and _own(to).is_file()]
    return found


def _own(place: str) -> Path:
    made = paths.output() / place
    return made if made.exists() else paths.repository() / place


def notebook(file: Path) -> str:
    """A notebook that says in its title for what it was run, and below it if it was not."""
    book = json.loads(file.read_text(encoding="utf-8"))
    title, _, rest = "".join(book["cells"][0]["source"]).partition("\n")
    if about := ", ".join(file.stem.split("__")[1:]):
        title += f" ({about})"
    if file.parent == paths.notebooks():
        title += "\n\n*Not executed in this profile: this is its source.*"
    book["cells"][0]["source"] = f"{title}\n{rest}"
    return json.dumps(book)


def _stage(app: Any, config: Any) -> None:
    """Write the sources of the site, each where links of the repository find it."""
    texts = {f"api/{name}.md": MEMBERS.format(name) for name in MODULES}
    texts["api/clipit_lib.md"] = SUMMARY + "".join(f"   {name}\n" for name in MODULES) + "```\n"
    texts["api/clipit_lib.md"] += TREE.format("Modules", "\n".join(MODULES))
    places = files(config.profile)
    pages = [place for place in places if place.endswith((".md", ".ipynb"))]
    read = [place for place in pages if place.startswith("docs/") or place == "figures/README.md"]
    notebooks = [place for place in pages if place.endswith(".ipynb")]
    texts |= {place: notebook(places[place]) for place in notebooks}
    rest = [place for place in pages if place not in (*read, *notebooks, "README.md")]
    parts = {
        "Notebooks": notebooks,
        "Documentation": read,
        "Library": ["api/clipit_lib"],
        "Linked": rest,
    }
    texts["README.md"] = places["README.md"].read_text("utf-8") + "".join(
        TREE.format(caption, "\n".join(listed)) for caption, listed in parts.items()
    )
    for place in {**places, **texts}:
        (to := Path(app.srcdir, place)).parent.mkdir(parents=True, exist_ok=True)
        if place in texts:
            to.write_text(texts[place], encoding="utf-8")
        else:
            shutil.copyfile(places[place], to)


def _math(translator: Any, node: Any) -> None:
    display = "block" if node.tagname == "math_block" else "inline"
    translator.body.append(convert(node.astext(), display=display))
    node.clear()


def setup(app: Any) -> None:
    app.add_config_value("profile", "demo", "html")
    app.add_html_math_renderer("mathml", (_math, lambda *_: None), (_math, lambda *_: None))
    app.connect("config-inited", _stage)
