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

import yaml

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


KINDS = {"path": Path, "int": int, "float": float, "whole_from_0": whole_from(0),
         "whole_from_1": whole_from(1)}  # fmt: skip


@dataclass(frozen=True)
class Command:
    """What a command does, and its arguments, as commands.yaml explains."""

    about: str
    arguments: dict[str, dict[str, Any]]
    more: str = ""
    module: str = ""


_READ = yaml.safe_load(Path(__file__).with_name("commands.yaml").read_text(encoding="utf-8"))
COMMANDS = {name: Command(**said) for name, said in _READ.items()}


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
        for name, options in what.arguments.items():
            kind = {"type": KINDS[options["type"]]} if "type" in options else {}
            if isinstance(names := options.get("metavar"), list):  # YAML has no tuples
                kind["metavar"] = tuple(names)
            one.add_argument(*name.split(), **options | kind)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one line on standard error and exit code 2.

    Raises:
        SystemExit: help or the version was asked for, or an argument is wrong (exit code 2).
    """
    given = parser().parse_args((sys.argv[1:] if arguments is None else arguments) or ["--help"])
    module, _, function = (COMMANDS[given.command].module or given.command).partition(":")
    try:
        if clone := other_clone(Path.cwd()):
            print(f"note: the code of {paths.repository()} runs, not {clone}'s", file=sys.stderr)
        run = getattr(importlib.import_module(f"companion.{module}"), function or "main")
        if (threads := paths.threads()) is not None and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        run(given)
        sys.stdout.flush()
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
