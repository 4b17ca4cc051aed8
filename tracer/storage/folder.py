"""The folder of a trace, held by descriptor: what is written goes there, whatever its path leads to by then."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from .direct import open_direct
from .shards import write_at

__all__ = ["Folder"]

_RELATIVE = {os.open, os.mkdir, os.rename, os.unlink, os.stat} <= os.supports_dir_fd and hasattr(os, "O_DIRECTORY")
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE)


class Folder:
    """A new folder, and the files below it by their names, which are relative to it.

    Where the system can, the folder is held by descriptor: one that is moved goes on receiving what is written, and a
    link that takes its place leads nowhere. A folder that was deleted is not made again.

    Args:
        path: Where; must not exist.
        durable: Wait until files and the names of files are on the disk.

    Raises:
        OSError: It cannot be made, or is there already.
    """

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        self.path = path
        self.free_descriptors: Callable[[], None] = _nothing
        """Closes files that can be opened again; called when the process may open no more."""
        self._durable = durable
        path.mkdir(parents=True)
        made = path.stat()
        self._identity = made.st_dev, made.st_ino
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _FLAGS) if _RELATIVE else None

    def open(self, name: str, flags: int) -> int:
        """A descriptor of a file; links are not followed."""
        try:
            return os.open(self._named(name), flags | _FLAGS, 0o644, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
        self.free_descriptors()
        return os.open(self._named(name), flags | _FLAGS, 0o644, dir_fd=self._descriptor)

    def open_direct(self, name: str) -> int:
        """A descriptor for writing past the page cache, or -1; see `direct.open_direct`."""
        return open_direct(self._named(name), dir_fd=self._descriptor)

    def exists(self, name: str) -> bool:
        """Whether a file or folder is there."""
        try:
            os.stat(self._named(name), dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def make(self, name: str) -> None:
        """Make a folder, and those above it, where they are missing."""
        if not name or self.exists(name):
            return
        above = name.rpartition("/")[0]
        self.make(above)
        os.mkdir(self._named(name), dir_fd=self._descriptor)
        self.sync(above)

    def replace(self, name: str, data: bytes | memoryview) -> None:
        """Write or replace a whole file in one move."""
        partial = f"{name}.partial"
        try:
            descriptor = self.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                write_at(descriptor, data, 0)
                if self._durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            places = {"src_dir_fd": self._descriptor, "dst_dir_fd": self._descriptor}
            os.replace(self._named(partial), self._named(name), **places)  # noqa: PTH105 — pathlib knows no descriptors
        except OSError:
            self.remove(partial)
            raise
        self.sync(name.rpartition("/")[0])

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        try:
            os.unlink(self._named(name), dir_fd=self._descriptor)
        except FileNotFoundError:
            return

    def sync(self, name: str) -> None:
        """Have the names of the files in a folder on the disk, where that is wanted."""
        if not self._durable:
            return
        descriptor = self.open(name or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def is_in_place(self) -> bool:
        """Whether its path still leads to it."""
        try:
            found = self.path.stat(follow_symlinks=False)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            self.path = Path(os.devnull) / "closed"  # nothing may be written by a path that leads elsewhere now

    def _named(self, name: str) -> str:
        return name if self._descriptor is not None else f"{self.path}/{name}"


def _nothing() -> None:
    """There are none."""
