"""Files of a trace opened for reading: regular ones alone, and none that a link leads to out of the trace."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["MOST_METADATA", "check_inside", "open_regular", "read_regular", "stored_size"]

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Not waiting: to open a pipe for reading would, until somebody writes into it."""

MOST_METADATA = 1 << 26
"""Bytes of the root's document; that of ten thousand arrays has a fifth."""
_BLOCK = 512
"""Bytes that a file's blocks are counted in."""


def open_regular(path: Path, root: Path | None = None) -> BinaryIO:
    """Open a file that is one: no pipe, socket, device or folder.

    Args:
        path: The file.
        root: Folder that links may not lead out of; None where that was looked at already.

    Raises:
        FileNotFoundError: There is none.
        OSError: It is something else, or leads out of the trace.
    """
    if root is not None:
        check_inside(path, root)
    stream = os.fdopen(os.open(path, _FLAGS), "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(f"{path.name} is no regular file")
    return stream


def read_regular(path: Path, root: Path | None = None, *, most: int = MOST_METADATA) -> bytes:
    """What is in such a file, which may have so many bytes at most.

    Raises:
        FileNotFoundError: There is none.
        OSError: It is something else, larger, or leads out of the trace.
    """
    with open_regular(path, root) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > most:
            raise OSError(f"{path.name} has {size} bytes, more than the {most} that it may have")
        return stream.read(size) or b""


def check_inside(path: Path, root: Path) -> None:
    """Make sure that a file is no link that leads out of a folder.

    Raises:
        OSError: It is.
    """
    try:
        leads_out = path.is_symlink() and not path.resolve().is_relative_to(root.resolve())
    except RuntimeError:  # as Python before 3.13 has it
        raise OSError(f"{path.name} is a link that leads to itself") from None
    if leads_out:
        raise OSError(f"{path.name} is a link that leads out of the trace")


def stored_size(path: Path) -> tuple[int, int] | None:
    """Length of a file, and what it takes on the disk, which of a sparse one is little; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size, min(status.st_size, getattr(status, "st_blocks", 1 << 60) * _BLOCK)
