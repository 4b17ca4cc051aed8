"""What a sub-command of ``dxray`` is."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..info import printable

__all__ = ["Command", "add_trace_argument", "print_json", "print_table"]


class Command(Protocol):
    """A sub-command; its class docstring is the help text, the first line of it the summary in the list.

    A third-party package adds one through the entry point group ``diffusion_xray.commands``, naming the class.

    One whose arguments argparse does not know may have a method ``complete(before, word)`` as well, for tab completion:
    what `word` after the words `before` may become, or None where argparse knows it.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments."""
        ...

    def run(self, options: argparse.Namespace) -> int:
        """Do it; the result is the exit code. Errors of `diffusion_xray.tracer.errors` become one line and code 2."""
        ...


def add_trace_argument(parser: argparse.ArgumentParser) -> None:
    """The arguments that every command on a trace has."""
    parser.add_argument("trace", metavar="TRACE", help="the trace: a folder such as run.zarr, a zip file, or a URL")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def print_json(value: Any) -> None:
    """Print a value as JSON; NaN becomes null, as JSON has no such number. Nothing in it can control the terminal."""
    text = json.dumps(_plain(value), indent=2, allow_nan=False)
    sys.stdout.write(text.replace("\x7f", "\\u007f") + "\n")  # DEL: the one control character that ASCII JSON leaves


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print columns, the first (or first few: `left`) aligned left and the others right.

    Nothing in them can control the terminal.
    """
    cells = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(padded).rstrip())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
