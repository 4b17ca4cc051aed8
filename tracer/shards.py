"""A shard file that grows: data at its end, and a place in its index for each chunk."""

from __future__ import annotations

import os
import struct
from pathlib import Path

__all__ = ["INDEX_ENTRY", "Shard", "write_at"]

_NO_CHUNK = b"\xff" * 16
INDEX_ENTRY = struct.Struct("<QQ")
"""Where a chunk lies in its shard: offset and length."""
_HEAD = 64
"""First bytes of a chunk that are kept in memory to tell it from the next."""


class Shard:
    """Appends chunks to one file. It stays open between chunks until it is closed, and opens again when needed."""

    def __init__(self, file: Path, slots: int) -> None:
        self.file = file
        self._slots = slots
        self._descriptor = -1
        self._end = 0
        self._start, self._length, self._head = 0, -1, b""
        """Where the latest chunk begins, its length, its first bytes."""

    @property
    def is_new(self) -> bool:
        """Whether nothing has been written yet."""
        return not self._end

    def append(self, slot: int, data: bytes | memoryview, *, durable: bool) -> None:
        """Write a chunk, then its entry in the index: a reader sees all of it or nothing.

        A chunk equal to the one appended before it (a constant key of cross-attention, say) is not written again: its
        entry points to the same bytes.
        """
        if self._descriptor < 0:
            self._descriptor = os.open(self.file, os.O_RDWR | (0 if self._end else os.O_CREAT), 0o644)
        if not self._end:
            self._end = write_at(self._descriptor, _NO_CHUNK * self._slots, 0)
        if not self._repeats(data):
            start, self._end = self._end, write_at(self._descriptor, data, self._end)
            self._start, self._length, self._head = start, len(data), bytes(data[:_HEAD])
        write_at(self._descriptor, INDEX_ENTRY.pack(self._start, self._length), 16 * slot)
        if durable:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; all of it is written."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _repeats(self, data: bytes | memoryview) -> bool:
        """Whether the latest chunk has these very bytes; it is read back only where its beginning fits."""
        if len(data) != self._length or data[:_HEAD] != self._head:
            return False
        return os.pread(self._descriptor, self._length, self._start) == data


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write all of `data` and return the offset after it; a short write is an error of the disk."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
    return offset
