"""Room on the disk that is kept back, so that a trace can say how it ended once the disk is full."""

from __future__ import annotations

import errno
import os

from .folder import Folder
from .shards import write_at

__all__ = ["RESERVE", "Reserve"]

RESERVE = ".reserve"
"""The file that takes up the room."""
_BYTES = 1 << 18
"""Kept back beside the size of the root's document, so that the last words fit."""


class Reserve:
    """What is kept back in one folder."""

    def __init__(self, files: Folder) -> None:
        self._files = files
        self._held: int | None = 0
        """Bytes kept back on disk; None once they were given back."""

    def hold(self, nbytes: int) -> None:
        """Have as much of the disk in reserve as a root document of so many bytes takes, and more for last words."""
        if self._held is None or nbytes + _BYTES <= self._held:
            return
        wanted = 2 * nbytes + _BYTES  # it grows along with the trace, and rarely
        descriptor = self._files.open(RESERVE, os.O_WRONLY | os.O_CREAT)
        try:
            write_at(descriptor, bytes(wanted - self._held), self._held)
        except OSError as error:
            if error.errno != errno.EFBIG:  # a limit on the size of files, which says nothing of the disk
                raise
        finally:
            os.close(descriptor)
        self._held = wanted

    def release(self) -> None:
        """Give the disk back what was kept; from now on nothing is."""
        self._files.remove(RESERVE)
        self._held = None
