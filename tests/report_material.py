"""Executed notebooks, tables and figures that a report is made of."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from companion import archived

EVIL = "<script>alert('name')</script>"
SENTENCE = "Specimen received in formalin, labelled with a name."


def png(seed: int) -> bytes:
    """A picture of its own for each seed, without a smooth part."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def value(**data: str) -> nbformat.NotebookNode:
    types = {"png": "image/png", "html": "text/html", "md": "text/markdown", "text": "text/plain"}
    return new_output("execute_result", {types[name]: text for name, text in data.items()})


def picture(seed: int) -> nbformat.NotebookNode:
    return value(png=base64.b64encode(png(seed)).decode(), text="<Figure size 640x480>")


def write_notebook(
    output: Path, profile: str, name: str, cells: list[nbformat.NotebookNode]
) -> None:
    folder = output / "results" / profile / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")


def profile_with_results(output: Path, profile: str) -> None:
    """Three notebooks, a failed one, a kept figure and a list of runs."""
    figures = output / "figures" / profile
    figures.mkdir(parents=True)
    (figures / "table1.png").write_bytes(png(1))
    (figures / "table1.runs.json").write_text(json.dumps(["a" * 16, "b" * 16]))
    classes = pd.DataFrame({"class": [EVIL, "ADI"], "accuracy": [51.5, 7.0]})
    table1 = [
        new_markdown_cell(f"# 03 · Table & one\n\nThe class $\\lambda$ of {EVIL}.\n\n#### Deep"),
        new_code_cell("import clipit_lib"),
        new_code_cell(
            f"x = '{EVIL}'",
            outputs=[
                new_output("stream", name="stderr", text="/home/somebody/site-packages warns"),
                new_output("stream", name="stdout", text=f"10%\r100%\n{SENTENCE}"),
                value(html=classes.to_html(), text="a frame"),
            ],
        ),
        new_markdown_cell("## The picture\n\n![far](https://example.org/far.png)"),
        new_code_cell("Image(picture)", outputs=[picture(1)]),
        new_code_cell("again", outputs=[picture(1)]),
        # Not as pandas writes it: a cell that holds an element.
        new_code_cell("r", outputs=[value(html=f"<table><tr><td>raw {EVIL}</td></tr></table>")]),
        new_code_cell("p", outputs=[value(text=f"['{EVIL}']")]),
        new_code_cell("f", outputs=[value(md=f"| a |\n|---|\n| {EVIL} |\n\n[x](javascript:y)")]),
    ]
    pairing = [
        new_markdown_cell("# 01 · Pairing\n\n## The patches"),
        # The figure is the value of the cell, and drawn again when the cell ends.
        new_code_cell("sheet", outputs=[picture(2), picture(2)]),
        new_code_cell("corpus[0]", outputs=[new_output("stream", name="stdout", text=SENTENCE)]),
    ]
    counted = new_output("stream", name="stdout", text=f"{profile}: 27 runs, key 0a1b")
    cost = [
        new_markdown_cell("# 12 · Cost"),
        new_code_cell("t", outputs=[picture(3)]),
        new_code_cell('print(f"{name}: {len(stored)} runs, key {key}")', outputs=[counted]),
        new_code_cell("history_figure(stored)", outputs=[picture(4)]),
    ]
    for name, cells in (
        ("03_table1", table1), ("12_cost", cost), ("01_pairing__one", pairing),
        ("05_pareto.failed", [new_markdown_cell("# 05 · Half a notebook")]),
    ):  # fmt: skip
        write_notebook(output, profile, name, cells)
    runs = [
        ("a" * 16, "d", "b", "clip_it", 0, "avx2", 60.0, 2048),
        ("b" * 16, "d", "b", "x", 1, "avx2", 3600, 512),
    ]
    listed = pd.DataFrame(runs, columns=list(archived.LISTED)[:8])
    listed.to_csv(output / "results" / profile / archived.RUNS, index=False)
