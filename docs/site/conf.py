"""The site of one profile, for Sphinx: `./run_all.sh --site`. Nothing is executed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import clipit_lib
from companion import paths, report

project = html_title = "A companion to CLIP-IT"
author = "CLIP-IT companion contributors"
extensions = [f"sphinx.ext.{name}" for name in ("autodoc", "autosummary", "napoleon")] + ["myst_nb"]
root_doc, default_role, html_copy_source = "README", "py:obj", False
html_theme, html_theme_options = "sphinx_book_theme", {"use_download_button": False}
html_static_path = html_css_files = ["style.css"]
html_math_renderer = "mathml"  # MathJax would be fetched: the site is read offline
myst_enable_extensions, myst_heading_anchors = ["dollarmath"], 3
nb_execution_mode, nb_render_markdown_format, nb_merge_streams = "off", "myst", True
autosummary_generate, autodoc_member_order, add_module_names = False, "bysource", False
# Made by scikit-learn, whose words refer to its own pages.
METHODS = [f"set_{name}_request" for name in ("fit", "predict", "predict_proba", "score")]
autodoc_default_options = {"exclude-members": ", ".join(METHODS)}
napoleon_custom_sections = [("Attributes", "params_style")]  # which may name several at once
python_maximum_signature_line_length = 88

LINK = re.compile(r"\]\(([^)#\s]+)")
TREE = "\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {}\n\n{}\n```\n"
TREES = {
    "Notebooks": "notebooks/*", "Documentation": "docs/*\nfigures/*", "Library": "api/clipit_lib",
    "More": "results/**\ntests/**",
}  # fmt: skip
FOUND = walk_packages(clipit_lib.__path__, "clipit_lib.")
MODULES = sorted(each.name for each in FOUND if not each.ispkg and "__" not in each.name)
MEMBERS = "# {0}\n\n```{{eval-rst}}\n.. automodule:: {0}\n   :members:\n```\n"
SUMMARY = "# API of clipit_lib\n\n```{{eval-rst}}\n{}\n\n.. autosummary::\n\n   {}\n```\n"


def files(profile: str) -> dict[str, Path]:
    """Where each file lies in the site, and what it is made of: pages, and all they link to."""
    once, others, _ = report.executed(profile)
    found = {}
    for source in sorted(paths.notebooks().glob("*.ipynb")):
        made = [path for path in once + others if path.stem.split("__")[0] == source.stem]
        found |= {f"notebooks/{path.name}": path for path in made or [source]}
    docs = sorted(path.name for path in (paths.repository() / "docs").glob("*.md"))
    todo = [*found, *(f"docs/{name}" for name in docs), "figures/README.md", "README.md"]
    for place in todo:
        file = found.setdefault(place, _own(place))
        links = LINK.findall(file.read_text("utf-8")) if file.suffix in (".md", ".ipynb") else []
        linked = {os.path.normpath(Path(place).parent / link): None for link in links}
        todo += [to for to in linked if to not in todo and to[0] != "." and _own(to).is_file()]
    return found


def _own(place: str) -> Path:
    made = paths.output() / place
    return made if made.exists() else paths.repository() / place


def page(place: str, file: Path) -> str:
    """A page's source with a title; a notebook's says for what it was run, or that it was not."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return text if text.startswith("#") else f"# {place}\n\n{text}"
    title, _, rest = "".join((book := json.loads(text))["cells"][0]["source"]).partition("\n")
    about = f" ({', '.join(run)})" if (run := file.stem.split("__")[1:]) else ""
    if file.parent == paths.notebooks():
        about += "\n\n*Not executed in this profile: this is its source.*"
    book["cells"][0]["source"] = f"{title}{about}\n{rest}"
    return json.dumps(book)


def stage(app: Any, config: Any) -> None:
    """Write the sources of the site, each where links of the repository find it."""
    places, library = files(config.profile), "api/clipit_lib.md"
    texts = {each: page(each, places[each]) for each in places if each.endswith((".md", ".ipynb"))}
    texts["README.md"] += "".join(map(TREE.format, TREES, TREES.values()))
    texts |= {f"api/{name}.md": MEMBERS.format(name) for name in MODULES}
    texts[library] = SUMMARY.format(clipit_lib.__doc__, "\n   ".join(MODULES))
    texts[library] += TREE.format("Modules", "*")
    for place in places | texts:
        (to := Path(app.srcdir, place)).parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(texts[place].encode() if place in texts else places[place].read_bytes())


def math(translator: Any, node: Any) -> None:
    display = "inline" if node.tagname == "math" else "block"
    translator.body.append(report.formula(node.astext(), display))
    node.clear()


def setup(app: Any) -> None:
    app.add_config_value("profile", "demo", "html")
    app.add_html_math_renderer("mathml", (math, lambda *_: None), (math, lambda *_: None))
    app.connect("config-inited", stage)
