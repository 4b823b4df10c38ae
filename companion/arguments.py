"""What all commands have in common: how they read their arguments, and how they ask."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from clipit_lib.errors import ClipItError


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Names a default only where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        none = action.default is None or action.default is False or action.default == []
        return action.help if none else super()._get_help_string(action)


def parser_of(command: str, about: str | None, profile: bool = True) -> argparse.ArgumentParser:
    """The parser of `python -m companion COMMAND`.

    Args:
        about: what its help says it does.
        profile: whether it takes a profile.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m companion {command}", description=about, formatter_class=_Help
    )
    if profile:
        parser.add_argument(
            "-p", "--profile", default="demo", metavar="NAME", help="its name, or a file of yours"
        )
    return parser


def whole_from(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least `least`, for argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number, at least {least}")
        return int(text)

    return read


def agree(question: str, unattended: ClipItError, refused: ClipItError) -> None:
    """Go on only if somebody at a terminal says yes; raise what else is the case."""
    if not sys.stdin.isatty():
        raise unattended
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise refused
