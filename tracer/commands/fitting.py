"""Tables that fit the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["fit", "terminal_width"]

_LEAST_NAME: Final = 24
"""Characters of the first column below which other columns make room for it."""


def terminal_width() -> int | None:
    """Columns of the terminal, or as COLUMNS says; None where the output goes elsewhere, which has room for all."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS", "").isdigit():
        return None
    return shutil.get_terminal_size().columns


def fit(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None, droppable: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """A table of at most so many characters a line, two between columns.

    Columns are left out in the order given as long as the first one is too narrow to tell its names apart; then names
    lose their beginning, as their ends differ.

    Args:
        header: Titles.
        rows: Cells, as safe for a terminal as they are to be.
        width: Characters of a line; None for as many as it takes.
        droppable: Titles of columns that may be left out.
    """
    table = [list(header), *(list(row) for row in rows)]
    if width is None:
        return table[0], table[1:]
    most = max(len(row[0]) for row in table)
    for name in droppable:
        if _room(table, width) >= min(most, _LEAST_NAME):
            break
        if name in table[0]:
            at = table[0].index(name)
            table = [row[:at] + row[at + 1 :] for row in table]
    room = max(_room(table, width), 2)
    short = [[_shortened(row[0], room), *row[1:]] for row in table]
    return short[0], short[1:]


def _room(table: Sequence[Sequence[str]], width: int) -> int:
    """Characters left for the first column."""
    return width - sum(2 + max(map(len, column)) for column in list(zip(*table, strict=True))[1:])


def _shortened(name: str, room: int) -> str:
    return name if len(name) <= room else f"…{name[len(name) - room + 1 :]}"
