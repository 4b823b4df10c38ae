"""Notebooks run through papermill, with its silent failures made loud."""

from __future__ import annotations

import ast
import inspect
import logging
import os
import re
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from clipit_lib.errors import ClipItError
from clipit_lib.files import written_beside
from clipit_lib.paths import named
from clipit_lib.settings import known
from companion import other_clone, paths
from companion.reading import is_file_name, plain

INJECTED = "# Parameters"  # how papermill begins the cell it injects
NAMED = "notebook parameters"


def parameters(namespace: Mapping[str, Any]) -> SimpleNamespace:
    """Check what was injected into a notebook against what it declares; return the values.

    A notebook's setup cell calls this with `globals()`. The declaration is the cell of annotated
    assignments above it. Papermill passes a list on its command line as text: it is read as JSON.

    Raises:
        ClipItError: a parameter was injected that is not declared; a value has the wrong type; the
            code is another clone's; a folder is given that depends on where a kernel starts.
    """
    declared = namespace["__annotations__"]
    for cell in namespace.get("In", []):
        if cell.startswith(INJECTED):
            for line in ast.parse(cell).body:
                if isinstance(line, ast.Assign):
                    known(ast.unparse(line.targets[0]), declared, "parameter", NAMED)
    # A kernel imports what its environment has installed, and inherits what was exported.
    if clone := other_clone(Path.cwd()):
        fix = f"Run `export PYTHONPATH={clone}`, then start Jupyter or papermill again"
        what = f"the notebook is of this clone, its code of {paths.repository()}"
        raise ClipItError(what, clone, fix)
    if loose := paths.unsettled():
        fix = "Export an absolute path: a kernel starts in the notebook's folder, not in yours"
        raise ClipItError("relative to a folder", ", ".join(loose), fix)
    return SimpleNamespace(
        **{name: _checked(name, namespace[name], kind) for name, kind in declared.items()}
    )


def execute(name: str, output: Path, parameters: Mapping[str, Any]) -> None:
    """Run `notebooks/NAME.ipynb` and keep the executed notebook as `output`.

    `output` appears only when every code cell has completed. A notebook that fails is kept beside
    it as `*.failed.ipynb`.

    Raises:
        ClipItError: no such notebook; a parameter or a profile is wrong; a cell failed; the
            notebook stopped early; `output` cannot be written.
    """
    # Optional to jsonschema, which nbformat imports: it would compile 38 grammars at every start.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import nbformat
    from papermill.exceptions import PapermillExecutionError

    known(name, [path.stem for path in paths.notebooks().glob("*.ipynb")], "notebook", name)
    source = paths.notebooks() / f"{name}.ipynb"
    _check(source, parameters)
    output = output.resolve()
    failed = output.with_suffix(".failed.ipynb")
    with written_beside(output) as temporary:
        failed.unlink(missing_ok=True)
        draft = temporary.with_suffix(".ipynb")
        where = what = ""
        try:
            _run(source, draft, parameters)
            where, what = _first_unfinished(nbformat.read(draft, as_version=4))
        except PapermillExecutionError as error:
            where, what = f"In [{error.exec_count}]", _last_line(error)
        except RuntimeError as error:  # how nbclient says that a kernel died or did not start
            where, what = "kernel", f"{error} (most often memory ran out)"
        finally:
            if draft.exists():
                draft.replace(failed if what else temporary)
        if what:
            raise ClipItError(what, f"{name}, {where}", f"The notebook as far as it got: {failed}")


def main(options: Namespace) -> None:
    """Run one notebook; values of `--set` are read as YAML (see `execute`)."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    given = {key: plain(text, f"parameter {key}") for key, text in options.set}
    if (profile := options.profile) is not None:  # if a file, the kernel starts in another folder
        own = is_file_name(profile)
        given["profile"] = str(paths.expanded(profile).resolve()) if own else profile
    execute(options.name, options.output, given)


def _check(source: Path, values: Mapping[str, Any]) -> None:
    """Say before a kernel starts what a notebook's setup cell would say."""
    from papermill import inspect_notebook

    declared = inspect_notebook(_formatted(source))
    for name, value in values.items():
        known(name, declared, "parameter", NAMED)
        _checked(name, value, declared[name]["inferred_type_name"])
    profile = values.get("profile")
    if profile is not None and not (paths.profiles() / f"{profile}.yaml").is_file():
        from companion.profile import load_profile  # slow to import: ours are read by the kernel

        load_profile(profile)


def _checked(name: str, value: Any, kind: Any) -> Any:
    """`value` if it is of this type (or name of a type); an integer passes for a float."""
    annotation = kind if isinstance(kind, str) else inspect.formatannotation(kind)
    wanted: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        as_json = annotation.startswith("list") and isinstance(value, str)
        found = (wanted.validate_json if as_json else wanted.validate_python)(value, strict=True)
    except ValidationError as error:
        what = f"{name} is {value!r} ({type(value).__name__})"
        raise ClipItError(what, NAMED, f"Give {name} as {annotation}") from error
    if isinstance(found, list) and len(set(found)) < len(found):
        raise ClipItError(f"{name} is {value!r}", NAMED, "Name each once")
    return found


def _run(source: Path, draft: Path, values: Mapping[str, Any]) -> None:
    """Execute with the Python of this process, whatever kernels the user has installed."""
    import papermill
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import CaselessStrEnum, Unicode

    path = os.pathsep.join(filter(None, [str(paths.repository()), os.environ.get("PYTHONPATH")]))

    # A progress bar is a line of output each time: in a kept notebook, seldom is enough.
    wanted = {"PYTHONPATH": path, "TQDM_MININTERVAL": "30", **paths.settled()}
    environment = {name: value.replace("$", "$$") for name, value in wanted.items()}  # a template

    # A socket's whole path may have some 100 bytes, and a cluster's TMPDIR is deep.
    short = None if len(os.fsencode(tempfile.gettempdir())) < 75 else "/tmp"
    with tempfile.TemporaryDirectory(prefix="kernel-", dir=short) as sockets:

        class ThisPython(AsyncKernelManager):
            kernel_spec = KernelSpec(**get_kernel_dict(), env=environment)
            # TCP ports are chosen before a kernel binds them: kernels that start together may
            # choose the same. Sockets in a folder of their own cannot meet.
            transport = CaselessStrEnum(["tcp", "ipc"], default_value="ipc")
            ip = Unicode(str(Path(sockets) / "socket"))

        papermill.execute_notebook(
            _formatted(source),
            _formatted(draft),
            dict(values),
            kernel_name="python3",
            language="python",
            cwd=paths.notebooks(),
            progress_bar=False,
            log_output=True,
            kernel_manager_class=ThisPython,
            skip_cells_with_tag="inputs" if named("CLIPIT_PREDICTIONS") else "",
        )


def _formatted(path: Path) -> str:
    """Braces doubled: papermill takes what stands in single ones for the name of a parameter."""
    return re.sub("[{}]", r"\g<0>\g<0>", str(path))


def _first_unfinished(executed: Any) -> tuple[str, str]:
    """Where and why a notebook stopped early, which papermill takes for success."""
    for cell in executed.cells:
        if cell.cell_type == "code" and cell.metadata.papermill.status != "completed":
            head = cell.source.strip().partition("\n")[0][:60]
            return f"In [{cell.execution_count}]", f"stopped early at {head!r}"
    return "", ""


def _last_line(error: Any) -> str:
    """What the exception of a cell said; a ClipItError says all by itself."""
    lines = [each.strip() for each in error.evalue.strip().splitlines()]
    # Pydantic names the key a line before what is wrong with it, and its documentation after it.
    lines = [each for each in lines if not each.startswith("For further information visit ")]
    last = ": ".join(lines[-2:] if error.ename == "ValidationError" else lines[-1:])
    return last if error.ename in ("ClipItError", "Diverged") else f"{error.ename}: {last}"
