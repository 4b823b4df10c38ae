"""Every notebook as its reader meets it: opened in JupyterLab and run there, in a real browser.

Takes minutes, so it is no part of an ordinary run of the tests. By hand, with Chromium installed:

    python -m pytest -m browser tests/tools/test_jupyterlab.py --basetemp /tmp/jupyterlab

The browser is driven by its own DevTools protocol. A picture of each notebook lies afterwards in
the folder named, under `pictures0`.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import websocket
from browsers import BROWSER, QUIET

from companion import paths

NOTEBOOKS = sorted(path.stem for path in paths.notebooks().glob("*.ipynb"))
DRIVEN = (
    "--headless=new", "--disable-quic", "--window-size=1400,2400", "--remote-debugging-port=0",
)  # fmt: skip
ONLY_TABLES = ("00_doctor",)  # its notebook draws nothing
TOKEN = "of-this-test"
# Settings of JupyterLab: all cells are in the page, also those out of sight; no news is fetched.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false"},
}
PANEL = "document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden)')"
STATUS = f"{PANEL}?.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status"
KERNEL = f"{PANEL}?.querySelector('.jp-Toolbar-kernelName')?.innerText"
FAILED = (
    f"[...{PANEL}.querySelectorAll('[data-mime-type$=\"jupyter.error\"]')].map(e => e.innerText)"
)
COMPLAINTS = f"[...{PANEL}.querySelectorAll('[data-mime-type$=\"stderr\"]')].map(e => e.innerText)"
PROMPTS = f"[...{PANEL}.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.innerText)"
PICTURES = f"[...{PANEL}.querySelectorAll('.jp-OutputArea-output :is(img, svg)')]"
SIZES = f"{PICTURES}.map(e => [e.naturalWidth ?? e.clientWidth, e.clientWidth, e.clientHeight])"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is here"),
]


def until(
    ready: Callable[[], Any], seconds: float, what: str, alive: subprocess.Popen[bytes]
) -> Any:
    """What `ready` gives as soon as it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if alive.poll() is not None:
            pytest.fail(f"{alive.args[0]} ended while waiting for {what}")  # type: ignore[index]
        if found := ready():
            return found
        time.sleep(0.3)
    pytest.fail(f"waited {seconds:.0f} s for {what}")


class Page:
    """One tab of a browser: what a reader does with eyes and mouse."""

    def __init__(self, process: subprocess.Popen[bytes], port: str) -> None:
        self.process, self.numbers = process, itertools.count(1)
        new = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(new) as answer:
            address = json.load(answer)["webSocketDebuggerUrl"]
        self.socket = websocket.create_connection(address, suppress_origin=True, timeout=60)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := json.loads(self.socket.recv())).get("id") != number:
            pass  # events between the answers
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    def value(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str, what: str, seconds: float = 60) -> Any:
        return until(lambda: self.value(script), seconds, what, self.process)

    def click(self, selector: str, text: str) -> None:
        """Click on the middle of the element that shows this text."""
        where = self.wait(
            f"""(() => {{
                const found = [...document.querySelectorAll({selector!r})]
                    .find(e => e.innerText.trim() === {text!r} && e.getClientRects().length);
                const box = found?.getBoundingClientRect();
                return box && [box.x + box.width / 2, box.y + box.height / 2];
            }})()""",
            f"{text!r} to click on",
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=where[0], y=where[1], clickCount=1,
                button="none" if kind == "mouseMoved" else "left",
            )  # fmt: skip

    def menu(self, menu: str, entry: str) -> None:
        self.click(".lm-MenuBar-itemLabel", menu)
        self.click(".lm-Menu-itemLabel", entry)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """The process of a browser, and the port of its protocol."""
    folder = tmp_path_factory.mktemp("browser")
    command = [str(BROWSER), *QUIET, *DRIVEN, f"--user-data-dir={folder}", "about:blank"]
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        said = folder / "DevToolsActivePort"
        until(lambda: said.exists() and said.read_text(), 60, "the browser", process)
        yield process, said.read_text().split()[0]
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def page(browser: tuple[Any, str]) -> Iterator[Page]:
    """A tab for each notebook: one that failed, unsaved, would hold the next up with a question."""
    found = Page(*browser)
    yield found
    found.socket.close()


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of the notebooks that ask for the smallest profile."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name in NOTEBOOKS:
        copy = nbformat.read(paths.notebooks() / f"{name}.ipynb", as_version=4)
        first = next(c for c in copy.cells if "parameters" in c.metadata.get("tags", ()))
        first.source = "\n".join(
            'profile: str = "smoke"' if line.startswith("profile:") else line
            for line in first.source.splitlines()
        )
        nbformat.write(copy, folder / f"{name}.ipynb")
    return folder


@pytest.fixture(scope="module")
def server(
    output_folder: Path, notebooks: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a JupyterLab that knows nothing of the user's settings."""
    own = tmp_path_factory.mktemp("jupyter")
    for name, values in SETTINGS.items():
        file = own / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    environment = os.environ | {
        "PYTHONPATH": str(paths.repository()),
        "IPYTHONDIR": str(own / "ipython"),
        **{f"JUPYTER_{kind}_DIR": str(own / kind) for kind in ("CONFIG", "DATA", "RUNTIME")},
        **{f"JUPYTERLAB_{k}_DIR": str(own / k.lower()) for k in ("SETTINGS", "WORKSPACES")},
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", "--allow-root",
        f"--ServerApp.root_dir={notebooks}",
    ]  # fmt: skip
    with (own / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: asked(address, "api/status"), 90, "JupyterLab", process)
        yield address
    finally:
        process.terminate()
        process.wait()


def asked(address: str, path: str, method: str = "GET") -> Any:
    """The server's answer, or None as long as there is none."""
    header = {"Authorization": f"token {TOKEN}"}
    request = urllib.request.Request(f"{address}/{path}", headers=header, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or "null")
    except urllib.error.URLError:
        return None


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_all_cells_run_in_jupyterlab(
    page: Page, server: str, notebooks: Path, pictures: Path, name: str
) -> None:
    file = notebooks / f"{name}.ipynb"
    code = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    page.call("Page.navigate", url=f"{server}/lab/tree/{name}.ipynb?reset&token={TOKEN}")
    page.wait(f"{KERNEL}?.startsWith('Python 3') && {STATUS} === 'idle'", "the kernel")
    assert len(page.value(PROMPTS)) == len(code)

    page.menu("Run", "Run All Cells")
    # A cell that waits shows [*]; one that fails sends those after it back to [ ].
    begun, waits = (rf"{PROMPTS}.some(text => /{what}/.test(text))" for what in (r"\d", r"\*"))
    try:
        page.wait(f"{begun} && !{waits} && {STATUS} === 'idle'", "all cells", 400)
    finally:
        page.picture(pictures / f"{name}.png")
    assert page.value(FAILED) == []
    assert page.value(COMPLAINTS) == []  # neither warnings nor bars that went
    assert page.value(PROMPTS) == [f"[{number}]:" for number in range(1, len(code) + 1)]
    sizes = page.value(SIZES)
    assert bool(sizes) != (name in ONLY_TABLES)
    assert all(side > 100 for size in sizes for side in size)
    sources = page.value(f"{PICTURES}.map(e => e.src ?? e.outerHTML)")
    assert len(sources) == len(set(sources)), "a picture is shown twice"

    # What was shown is what is kept.
    page.menu("File", "Save Notebook")
    kept = until(lambda: executed(file), 30, "the saved notebook", page.process)
    assert [cell.execution_count for cell in kept] == list(range(1, len(code) + 1))
    assert not [out for cell in kept for out in cell.outputs if out.output_type == "error"]
    for session in asked(server, "api/sessions"):
        asked(server, f"api/sessions/{session['id']}", "DELETE")


def executed(file: Path) -> list[nbformat.NotebookNode]:
    """The code cells of a notebook, once all are executed."""
    cells = [c for c in nbformat.read(file, as_version=4).cells if c.cell_type == "code"]
    return cells if all(cell.execution_count for cell in cells) else []
