"""`python -m companion COMMAND`: check, run a notebook, predict, plan, search, synthesize."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from clipit_lib import __version__
from clipit_lib.errors import ClipItError
from companion import other_clone, paths

COMMANDS = {
    "check": "what in a profile's data, reports or retriever will hurt, before anything is trained",
    "collect": "gather the predictions behind a profile's tables, and the gallery of figures",
    "doctor": "whether machine, data and models are as a profile needs them, and what to do if not",
    "fingerprint": "whether patches, encoders, runs and tables are those of another machine",
    "fetch": "bring a data set or reports into $CLIPIT_DATA, checked, once its terms are accepted",
    "export": "an image-only classifier as a folder: merged weights, ONNX, model card",
    "notebook": "run one notebook with parameters",
    "plan": "print what a profile will run, and how long that takes",
    "train": "run what is missing of one study",
    "predict": "class probabilities of images, by an image-only classifier",
    "rebuild": "tables and figures from stored predictions, without training",
    "report": "all results of a profile on one page, results/PROFILE/report.html",
    "search": "find adapters and lambda for a profile on validation, at equal budgets",
    "synthesize": "have a language model write reports, class by class",
    "trace": "the runs behind a figure or table",
}

# Commands whose code is not in a module of their name.
ELSEWHERE = {"collect": "archive", "check": "own.checks", "export": "deploy"}


def main(arguments: list[str]) -> int:
    """Run one command; a user's mistake is one line on standard error and exit code 2."""
    usage = "\n".join(f"  {name:12}{text}" for name, text in COMMANDS.items())
    if arguments[:1] == ["--version"]:
        print(__version__)
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        helped = arguments[:1] in (["-h"], ["--help"])
        print(
            f"usage: python -m companion COMMAND ...\n{usage}",
            file=sys.stdout if helped else sys.stderr,
        )
        if arguments and not helped:
            print(f"error: unknown command {arguments[0]!r}. Name one of these", file=sys.stderr)
        return 0 if helped else 2
    try:
        if clone := other_clone(Path.cwd()):
            print(f"note: the code of {paths.repository()} runs, not {clone}'s", file=sys.stderr)
        if (threads := paths.threads()) is not None and arguments[0] != "notebook":
            importlib.import_module("torch").set_num_threads(threads)
        module = ELSEWHERE.get(arguments[0], arguments[0])
        importlib.import_module(f"companion.{module}").main(arguments[1:])
    except ClipItError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who reads, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        reason = error.strerror or type(error).__name__
        fix = "Mend its kind or its permissions"
        print(f"error: {error.filename}: cannot be used ({reason}). {fix}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
