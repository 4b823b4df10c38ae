"""`python -m companion COMMAND`, or `clipit COMMAND`: all commands, and how they are called.

A command's module is imported once its arguments are read: help, and what is said about a mistyped
option, do not wait for PyTorch.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipit_lib import __version__
from clipit_lib.errors import ClipItError
from companion import other_clone, paths


def whole_from(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least `least`, for argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number, at least {least}")
        return int(text)

    return read


Argument = tuple[str, dict[str, Any]]  # its names, and what argparse is told about it


def _argument(name: str, about: str, **options: Any) -> Argument:
    return name, {"help": about, **options}


def _path(name: str, metavar: str, about: str, **options: Any) -> Argument:
    return _argument(name, about, metavar=metavar, type=Path, **options)


def _flag(name: str, about: str) -> Argument:
    return _argument(name, about, action="store_true")


PROFILE = _argument("-p --profile", "its name, or a YAML file of yours", default="demo")


@dataclass(frozen=True)
class Command:
    """What a command does, in a line and in `more` words, and its arguments.

    `module` is that of `companion` whose `main` takes what was parsed, if not that of its name.
    """

    about: str
    arguments: tuple[Argument, ...] = (PROFILE,)
    more: str = ""
    module: str = ""


COMMANDS = {
    "check": Command("what in data, reports or retriever will hurt, before anything is trained",
                     more="Fails if a finding must be resolved first.", module="own.checks"),
    "collect": Command("gather the predictions behind a profile's tables, and the figures' gallery",
                       module="archive"),
    "compare": Command("two folders of results, table by table: identical, close enough, or not", (
        _path("first", "FOLDER", "such as results/demo"),
        _path("second", "FOLDER", "of the same profile, from another machine or day"),
        _argument("--tolerance", "numbers a and b agree if |a - b| is at most this times 1 + |b|; "
                  "tables are rounded to four digits", type=float, default=0.001),
    ), more="Texts that differ, verdicts among them, are listed; exit code 1 if a table differs."),
    "doctor": Command("whether machine, data and models are as a profile needs them, with the fix",
                      more="One line of PASS, WARN or FAIL each; exit code 1 after a FAIL."),
    "fingerprint": Command("whether patches, encoders, runs and tables are another machine's", (
        PROFILE,
        _path("--against", "FILE", "a fingerprint made elsewhere (default: this repository's)"),
        _path("--output", "FILE", "write the fingerprint here (default: compare, write nothing)"),
    )),
    "fetch": Command("bring a data set or reports into $CLIPIT_DATA once its terms are accepted", (
        _argument("name", "what to fetch, of what --list shows", nargs="?"),
        _path("--from", "DIR", "take it from here, packed or unpacked (default: download it)",
              dest="local"),
        _flag("--accept-licence", "accept the terms; needed without a terminal"),
        _flag("--list", "what there is, its licence and size, and what is here"),
        _flag("--dry-run", "print what would be brought from where, only"),
    ), more="What is there is kept: the same command again goes on where an earlier one stopped."),
    "export": Command("an image-only classifier as a folder: merged weights, ONNX, model card", (
        _path("run", "RUN_DIR", "the folder of a finished run"),
        _path("--output", "DIR", "folder to write (default: RUN_DIR/export)"),
        _flag("--no-onnx", "leave model.onnx out"),
    ), more="It needs neither cache nor text encoder.", module="deploy"),
    "merge": Command("runs that others have made join ours, checked, under their name", (
        _path("folder", "FOLDER", "results/PROFILE of theirs, unpacked, or its folder runs"),
        PROFILE,
        _argument("--from", "whose they are, as tables shall say", dest="by", metavar="NAME",
                  required=True),
    ), more="Keys, patches, labels and predictions are checked; what is here is never written "
            "over."),
    "notebook": Command("run one notebook with parameters", (
        _argument("name", "a notebook in notebooks/, without .ipynb"),
        _argument("-p --profile", "its name, or a YAML file of yours (default: as declared)"),
        _path("--output", "FILE", "the executed notebook", required=True),
        _argument("--set", "a parameter of it, as YAML, such as --set seeds '[0, 1]'; may be "
                  "repeated (default: as declared)", nargs=2,
                  action="append", default=[], metavar=("KEY", "VALUE")),
    )),
    "plan": Command("print what a profile will run, what is done, and time and disk of the rest", (
        PROFILE,
        _flag("--runs", "list every run, one line per setting"),
        _argument("--study", "this study alone (default: all)", metavar="NAME"),
        _argument("--gpu", "hours on this GPU, term by term, such as h100 or 4090 (default: this "
                  "machine is measured)", metavar="NAME"),
        _argument("--price", "of a GPU-hour (default: no cost is said)", type=float, metavar="P"),
    )),
    "train": Command("run what is missing of some studies, or of a part of them", (
        _argument("study", "as profiles/NAME.yaml names them", metavar="STUDY[,STUDY...]"),
        PROFILE,
        _argument("--seed", "this seed only (default: all)", type=whole_from(0)),
        _argument("--dataset", "this data set only (default: all)"),
        _argument("--backbone", "this backbone only (default: all)"),
        _path("--output", "FILE", "where to list the runs' keys (default: nowhere)"),
    ), more="By `accelerate launch --num_processes N -m companion train ...` N processes train "
            "each run."),
    "predict": Command("class probabilities of images, tiles or whole slides, from images alone", (
        _path("model", "MODEL", "a run's folder, or an exported classifier"),
        _path("images", "IMAGE", "files, or folders at any depth", nargs="+"),
        _path("--output", "FILE", "write the csv here (default: print it)"),
        _flag("--skip-unreadable",
              "succeed although images are unreadable; their probabilities are empty either way"),
        _argument("--tiles", "cut large images into tiles of this side in pixels (default: an "
                  "image is one patch)", type=int, metavar="SIDE"),
        _argument("--stride", "pixels from tile to tile (default: the side)", type=int),
        _argument("--mpp", "the images are whole slides: find their tissue, and see it at so many "
                  "microns per pixel (default: they are images)", type=float, metavar="MICRONS"),
        _argument("--mpp-of-slide", "microns per pixel of its finest level (default: as the slide "
                  "says)", type=float, metavar="MICRONS"),
        _path("--heatmap", "PNG", "draw the probabilities of the tiles here (default: no drawing)"),
        _path("--geojson", "FILE", "write the tiles for QuPath here (default: not written)"),
        _argument("--class", "draw this class only (default: all)", dest="of_class"),
        # White glass of value 245 has 0.017. Fat is hardly denser (0.02 to 0.08 in the phantom).
        _argument("--background", "leave out tiles below this mean optical density; 0: none",
                  type=float, default=0.02, metavar="DENSITY"),
        _argument("--max-megapixels", "refuse larger images: read as a whole, a megapixel takes "
                  "4 MB of memory", type=int, default=200, metavar="N"),
    )),
    "rebuild": Command("tables and figures of a profile from its stored predictions, untrained"),
    "rehearse": Command("make the miniature data and weights of ./run_all.sh --rehearse"),
    "report": Command("all results of a profile on one page, results/PROFILE/report.html"),
    "search": Command("find adapters and lambda for a profile on validation, at equal budgets", (
        PROFILE,
        _argument("--dataset", "a data set of the profile; needed unless --show"),
        _argument("--backbone", "the backbone that is adapted; needed unless --show"),
        _argument("--trials", "of each setting", type=whole_from(1), default=20),
        _argument("--processes", "trials at a time", type=whole_from(1), default=1),
        _argument("--seeds", "that a trial trains", type=int, nargs="+", default=[1000, 1001]),
        _flag("--show", "print the chosen values only"),
    ), more="LoRA rank, scale and targets, and lambda where there is text."),
    "synthesize": Command("have a language model write reports, class by class, after real ones", (
        PROFILE,
        _argument("--dataset", "a data set of the profile: its classes and reports", required=True),
        _argument("--endpoint", "address before /chat/completions: https://HOST/v1", required=True),
        _argument("--model", "as the endpoint calls it", required=True),
        _path("--output", "CSV", "the csv to write", required=True),
        _argument("--per-class", "reports of each class", type=whole_from(1), default=500),
        _argument("--examples", "real reports shown", type=whole_from(0), default=10),
        _argument("--temperature", "of sampling", type=float, default=1.0),
        _argument("--seed", "of examples and of each request", type=whole_from(0), default=0),
        _argument("--timeout", "seconds to wait for an answer", type=float, default=120.0),
        _argument("--price-in", "of a million prompt tokens (default: not estimated)", type=float),
        _argument("--price-out", "of a million completion tokens (default: not estimated)",
                  type=float),
        _flag("--dry-run", "print the first request and an estimate, only"),
        _flag("--yes", "agree that the examples leave this machine"),
    ), more="Writes a csv (id, class, text). Any endpoint that speaks OpenAI's chat completions "
            "will do, one on this machine too. Its key is read from the environment variable "
            "CLIPIT_LLM_KEY. Answers are kept as they come in a .jsonl beside the csv: the same "
            "command again asks only for what is missing."),
    "trace": Command("the runs behind a figure or table, one line each", (
        _path("file", "FILE", "such as figures/demo/table1.png"),
    )),
}  # fmt: skip


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Names a default only where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        none = action.default is None or action.default is False or action.default == []
        return action.help if none else super()._get_help_string(action)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    whole = argparse.ArgumentParser(prog="python -m companion")
    whole.add_argument("--version", action="version", version=__version__)
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, what in COMMANDS.items():
        about = f"{what.about[0].upper()}{what.about[1:]}. {what.more}".strip()
        one = commands.add_parser(
            command, help=what.about, description=about, formatter_class=_Help
        )
        for name, options in what.arguments:
            one.add_argument(*name.split(), **options)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one line on standard error and exit code 2.

    Raises:
        SystemExit: help or the version was asked for, or an argument is wrong (exit code 2).
    """
    given = parser().parse_args((sys.argv[1:] if arguments is None else arguments) or ["--help"])
    module = COMMANDS[given.command].module or given.command
    try:
        if clone := other_clone(Path.cwd()):
            print(f"note: the code of {paths.repository()} runs, not {clone}'s", file=sys.stderr)
        run = importlib.import_module(f"companion.{module}").main
        if (threads := paths.threads()) is not None and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        run(given)
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
        fix = "Fix its kind or its permissions"
        print(f"error: {error.filename}: cannot be used ({reason}). {fix}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
