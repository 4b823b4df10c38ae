"""What comes with data is data: it is never run, and never becomes markup or a formula."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell
from PIL import Image
from report_material import EVIL, value, write_notebook

from clipit_lib.data.folder import FolderData
from companion import findings, paths, reading, report, tables
from companion.figures.space import contact_sheet, heat_map, pair_sheet
from companion.own.checks import COLUMNS, imbalance, shared_groups
from companion.profile import load_profile

READERS = ("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "pandas.read_pickle",
           "pandas.read_hdf", "yaml.unsafe_load", "yaml.full_load",
           "yaml.load_all", "shelve.open", "marshal.load",
           "marshal.loads", "torch.hub.load", "exec", "eval", "os.system", "os.popen")  # fmt: skip
# What an option must be, with what it is if it is left out ("" is never right).
OPTIONS = {"torch.load": ("weights_only", "True", ""),
           "numpy.load": ("allow_pickle", "False", "False")}  # fmt: skip
ANYWHERE = {"trust_remote_code": "True", "shell": "True"}


def names_of(tree: ast.Module) -> dict[str, str]:
    """What imported names stand for: np is numpy, load may be pickle.load."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {each.asname: each.name for each in node.names if each.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return names


def faults(source: str) -> list[str]:
    """Calls that may run code which comes with data."""
    tree, found = ast.parse(source), []
    names = names_of(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, dot, rest = ast.unparse(node.func).partition(".")
        name = f"{names.get(first, first)}{dot}{rest}"
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        option, right, default = OPTIONS.get(name, ("", "", ""))
        if name in READERS or name == "yaml.load" or given.get(option, default) != right:
            found.append(name)
        found += [f"{name}: {each}" for each, wrong in ANYWHERE.items() if given.get(each) == wrong]
    return found


def code_of(path: Path) -> Iterator[str]:
    """Python of a module, or of the cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield text
        return
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not source.startswith("%"):
            yield source


def test_nothing_that_is_read_can_run_code() -> None:
    root = paths.repository()
    files = [
        path
        for folder in ("clipit_lib", "companion", "workflow", "benchmarks", "notebooks")
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in (".py", ".ipynb")
    ]
    assert len(files) > 80
    found = {(path.name, each) for path in files for code in code_of(path) for each in faults(code)}
    assert found == {("archive.py", "exec")}  # the cells of this repository's notebooks
    assert issubclass(reading._Loader, yaml.SafeLoader)  # and makes fewer kinds of values
    assert set(reading._Loader.yaml_constructors) < set(yaml.SafeLoader.yaml_constructors)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(f)",
        "from pickle import load as read\nread(f)",
        "import pandas as pd\npd.read_pickle(f)",
        "import joblib\njoblib.load(f)",
        "import torch\ntorch.load(f)",
        "import torch as t\nt.load(f, weights_only=False)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import yaml\nyaml.load(f, yaml.Loader)",
        "from transformers import AutoModel\nAutoModel.from_pretrained(f, trust_remote_code=True)",
        "import subprocess\nsubprocess.run(f, shell=True)",
        "def f(x): return eval(x)",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert len(faults(source)) == 1


def test_the_search_lets_safe_readers_pass() -> None:
    safe = "import torch\nimport numpy as np\ntorch.load(f, weights_only=True)\nnp.load(f)\n"
    assert faults(safe + "np.load(f, mmap_mode='r')\nimport yaml\nyaml.safe_load(f)") == []


@pytest.fixture
def images(tmp_path: Path) -> FolderData:
    """Patches of three classes whose names and patients are markup and formulas."""
    lines = ["path,label,split,group"]
    for number, label in enumerate((EVIL, "A&B &lt; $x_$", "a|b\nc $")):
        for split in ("train", "validation", "test"):
            name = f"<b>{number}{split}.png"
            noise = np.random.default_rng(len(lines)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / name)
            lines.append(f'{name},"{label}",{split},"{EVIL}{name}"')
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    return FolderData(source="folder", folder=str(tmp_path), manifest="list.csv", side=8,
                      corpus="none")  # fmt: skip


def test_markup_in_data_is_text_in_tables_and_in_the_report(
    images: FolderData, output_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLIPIT_OUTPUT", str(tmp_path / "output"))
    table = pd.read_csv(Path(images.folder) / "list.csv")
    counted = np.repeat(np.arange(3), [100, 1, 1])
    labels = list(table["label"].unique())
    shared = shared_groups(table.assign(group=table["label"]))
    found = [*shared, *imbalance(counted, [labels[1], labels[0], labels[2]], 8)]
    listed = findings.table(found, COLUMNS)
    listed["what"] += " " + labels[1] + " " + labels[2]
    text = tables.markdown(listed)
    tables.save_table("smoke", "own_findings", listed, text, [])
    kept = (paths.tables("smoke") / "own_findings.md").read_text(encoding="utf-8")
    assert "<script" not in kept and len(kept.splitlines()) == 2 + len(found)
    shown = [value(md=text), value(html=listed.to_html()), value(text=repr(labels))]
    write_notebook(paths.output(), "smoke", "16_data", [new_code_cell("x", outputs=shown)])
    read = report.page(load_profile("smoke"))
    soup = BeautifulSoup(read, "html.parser")
    own = soup.find_all("script")
    assert len(own) == 1 and "alert" not in str(own) and not soup.find_all("b")
    # pandas shows a line end as two characters.
    cells = [cell.get_text().replace("\\n", " ") for cell in soup.find_all("td")]
    whole = [cell for cell in cells if all(each in cell for each in (EVIL, "&lt; $x_$", "a|b c $"))]
    assert len(whole) == 2 * len(found)


def test_a_dollar_sign_in_data_starts_no_formula(images: FolderData) -> None:
    data = images.open("odd")
    probability = np.zeros((2, 2))
    drawn = [
        contact_sheet(data, columns=2),
        pair_sheet(data, np.array([0]), ["costs $x_$"], ["$y_$"]),
        heat_map(data.pixels[0], dict.fromkeys(data.classes, probability), (8, 8), 4),
    ]
    for figure in drawn:
        figure.savefig(Path(images.folder) / "drawn.svg")  # raises where a formula is not one
