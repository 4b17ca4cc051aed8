"""The folder of a trace, held by descriptor: what is written goes there, whatever its path leads to by then."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path

from .direct import open_direct
from .shards import write_at

__all__ = ["Folder"]

_RELATIVE = {os.open, os.mkdir, os.rename, os.unlink, os.stat} <= os.supports_dir_fd and hasattr(os, "O_DIRECTORY")
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _FLAGS
_EXHAUSTED = (errno.EMFILE, errno.ENFILE)
_MOST_OPEN = 6
"""Folders held open on the way to the latest file, as the next one is mostly near it."""


class Folder:
    """A new folder, and the files below it by their names, which are relative to it.

    Where the system can, the folder is held by descriptor, and those in it are opened one after the other from there:
    one that is moved goes on receiving what is written, and a link that takes the place of any of them leads nowhere.
    A folder that was deleted is not made again.

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
        self._descriptor = os.open(path, _FOLDER) if _RELATIVE else None
        self._way: list[tuple[str, int]] = []
        """The folders that lead to the latest file, each with its descriptor, -1 where it is not held."""

    def open(self, name: str, flags: int) -> int:
        """A descriptor of a file; links are not followed."""
        try:
            folder, file = self._find(name)
            return os.open(file, flags | _FLAGS, 0o644, dir_fd=folder)
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
        self.free_descriptors()
        self._leave(0)
        folder, file = self._find(name)
        return os.open(file, flags | _FLAGS, 0o644, dir_fd=folder)

    def open_direct(self, name: str) -> int:
        """A descriptor for writing past the page cache, or -1; see `direct.open_direct`."""
        folder, file = self._find(name)
        return open_direct(file, dir_fd=folder)

    def exists(self, name: str) -> bool:
        """Whether a file or folder is there."""
        try:
            folder, file = self._find(name)
            os.stat(file, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def make(self, name: str) -> None:
        """Make a folder, and those above it, where they are missing."""
        if not name or self.exists(name):
            return
        above = name.rpartition("/")[0]
        self.make(above)
        folder, own = self._find(name)
        os.mkdir(own, dir_fd=folder)
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
            (folder, source), (_, target) = self._find(partial), self._find(name)
            os.replace(source, target, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            self.remove(partial)
            raise
        self.sync(name.rpartition("/")[0])

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        try:
            folder, file = self._find(name)
            os.unlink(file, dir_fd=folder)
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
        self._leave(0)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            self.path = Path(os.devnull) / "closed"  # nothing may be written by a path that leads elsewhere now

    def _find(self, name: str) -> tuple[int | None, str]:
        """The folder that a file is in, by descriptor, and what the file is called there.

        The descriptor is good until the next call.
        """
        if self._descriptor is None:
            return None, f"{self.path}/{name}"
        *folders, own = name.split("/")
        try:
            return self._go(folders), own
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
        self.free_descriptors()
        self._leave(0)
        return self._go(folders), own

    def _go(self, folders: list[str]) -> int:
        """Open the folders that lead somewhere, one in the other, from the last that is on the way already."""
        assert self._descriptor is not None
        steps = zip(folders, self._way, strict=False)
        shared = sum(1 for _ in itertools.takewhile(lambda step: step[0] == step[1][0], steps))
        self._leave(shared if shared and self._way[shared - 1][1] >= 0 else 0)
        at = self._way[-1][1] if self._way else self._descriptor
        for folder in folders[len(self._way) :]:
            at = os.open(folder, _FOLDER, dir_fd=at)
            self._way.append((folder, at))
            if (far := len(self._way) - 1 - _MOST_OPEN) >= 0 and self._way[far][1] >= 0:
                passed, descriptor = self._way[far]
                self._way[far] = passed, -1
                os.close(descriptor)
        return at

    def _leave(self, depth: int) -> None:
        """Hold no more than the first `depth` folders of the way."""
        while len(self._way) > depth:
            _, descriptor = self._way.pop()
            if descriptor >= 0:
                os.close(descriptor)


def _nothing() -> None:
    """There are none."""
