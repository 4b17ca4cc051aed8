"""Past the page cache: large chunks go from memory to the disk by themselves.

A write through the page cache has the processor copy every byte into pages that must be found first: 1.3 to 2.9 s a GB
where that was measured, against 0.2 s for a write that goes to the disk directly, which the disk does while the traced
run goes on. Such writes begin on page boundaries, in memory and in the file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["LARGE", "PAGE", "Pace", "aligned_memory", "open_direct"]

PAGE = 4096
"""Bytes of which beginnings and lengths are multiples."""
LARGE = 1 << 20
"""Bytes from which it is worth it."""
_ENOUGH = 128 << 20
"""Bytes after which the pace of a disk is known."""
_SLOW = 0.1
"""Bytes a nanosecond, which are GB a second: what is slower than that is left to the page cache, which takes a while
to fill."""
_O_DIRECT = getattr(os, "O_DIRECT", 0)
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


class Pace:
    """How fast direct writes are; compiled code adds to it."""

    def __init__(self) -> None:
        self._words = np.zeros(2, np.int64)
        self.address = self._words.ctypes.data

    @property
    def is_slow(self) -> bool:
        """Whether the disk holds the run up."""
        nbytes, nanoseconds = self._words.tolist()
        return nbytes > _ENOUGH and nbytes < _SLOW * nanoseconds


def open_direct(file: Path | str, *, dir_fd: int | None = None) -> int:
    """A descriptor for direct writes to an existing file; -1 where the system or the file's disk has none."""
    if not _O_DIRECT:
        return -1
    try:
        return os.open(file, os.O_WRONLY | _O_DIRECT | _FLAGS, dir_fd=dir_fd)
    except OSError:
        return -1


def aligned_memory(nbytes: int) -> NDArray[np.uint8]:
    """Memory (nbytes,) that begins on a page boundary, and goes back to the system whole once nothing refers to it."""
    if not nbytes or not hasattr(mmap, "MAP_ANONYMOUS"):
        return np.empty(nbytes, np.uint8)
    region = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            region.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(region, np.uint8)
