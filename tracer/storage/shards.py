"""A shard file that grows: data at its end, and a place in its index for each chunk."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from .direct import PAGE

__all__ = ["INDEX_ENTRY", "Shard", "write_at", "written_chunks"]

INDEX_ENTRY = struct.Struct("<QQ")
"""Where a chunk lies in its shard: offset and length."""
_NO_CHUNK = b"\xff" * INDEX_ENTRY.size

FILE, DIRECT, STRIDE, END, START, LENGTH, HEAD = range(7)
"""Words of a shard's state: the file's descriptor; that of direct writes, or -1; of what chunks' offsets are multiples;
where the latest chunk ends; of that chunk its offset, its length (in this order, as in the index), and its first bytes,
to tell it from the next."""
HEAD_BYTES = 64
STATE_WORDS = HEAD + HEAD_BYTES // 8


class Files(Protocol):
    """Opens files by name."""

    def open(self, name: str, flags: int) -> int:
        """A descriptor."""
        ...

    def open_direct(self, name: str) -> int:
        """A descriptor for writing past the page cache, or -1."""
        ...


class Shard:
    """Appends chunks to one file. It stays open between chunks until it is closed, and opens again when needed.

    Args:
        files: Opens files by name.
        name: Of the file.
        slots: Chunks that its index has room for.
        large: Whether chunks begin on page boundaries, so that they can be written past the page cache.
    """

    def __init__(self, files: Files, name: str, slots: int, *, large: bool = False) -> None:
        self.name = name
        self._files = files
        self.state = np.zeros(STATE_WORDS, np.int64)
        self.state[FILE] = self.state[DIRECT] = self.state[LENGTH] = -1
        self.state[STRIDE] = PAGE if large else 1
        self.state_address = self.state.ctypes.data
        self.is_large = large
        self.is_open = False
        self._slots = slots
        self._head = self.state[HEAD:].view(np.uint8)

    @property
    def is_new(self) -> bool:
        """Whether nothing has been written yet."""
        return not self.state[END]

    def open(self, *, direct: bool = False) -> None:
        """Open the file, and write an empty index where it is new.

        Args:
            direct: Write its large chunks past the page cache where that can be.
        """
        if self.state[FILE] < 0:
            self.state[FILE] = self._files.open(self.name, os.O_RDWR | (os.O_CREAT if self.is_new else 0))
        if self.is_new:
            self.state[END] = write_at(int(self.state[FILE]), _NO_CHUNK * self._slots, 0)
        self.is_open = True
        if not direct:
            self._close(DIRECT)
        elif self.state[STRIDE] == PAGE and self.state[DIRECT] < 0:
            self.state[DIRECT] = self._files.open_direct(self.name)

    def append(self, slot: int, data: bytes | memoryview, *, durable: bool) -> None:
        """Write a chunk, then its entry in the index: a reader sees all of it or nothing.

        A chunk equal to the one appended before it (a constant key of cross-attention, say) is not written again: its
        entry points to the same bytes.
        """
        self.open()
        descriptor, stride = int(self.state[FILE]), int(self.state[STRIDE])
        if not self._repeats(data):
            start = -(-int(self.state[END]) // stride) * stride
            self.state[END] = write_at(descriptor, data, start)
            self.state[START], self.state[LENGTH] = start, len(data)
            head = np.frombuffer(data[:HEAD_BYTES], np.uint8)
            self._head[: len(head)] = head
        write_at(descriptor, INDEX_ENTRY.pack(int(self.state[START]), int(self.state[LENGTH])), 16 * slot)
        if durable:
            os.fsync(descriptor)

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """Slot and contents of every chunk."""
        self.open()
        descriptor = int(self.state[FILE])
        for slot, offset, length in written_chunks(descriptor, self.name, self._slots, range(self._slots)):
            yield slot, os.pread(descriptor, length, offset)

    def close(self) -> None:
        """Close the file; all of it is written."""
        self.is_open = False
        self._close(FILE)
        self._close(DIRECT)

    def _close(self, word: int) -> None:
        if self.state[word] >= 0:
            os.close(int(self.state[word]))
            self.state[word] = -1

    def _repeats(self, data: bytes | memoryview) -> bool:
        """Whether the latest chunk has these very bytes; it is read back only where its beginning fits."""
        length, head = int(self.state[LENGTH]), bytes(data[:HEAD_BYTES])
        if len(data) != length or head != self._head[: len(head)].tobytes():
            return False
        return os.pread(int(self.state[FILE]), length, int(self.state[START])) == data


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write all of `data` and return the offset after it; a short write is an error of the disk."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
    return offset


def written_chunks(descriptor: int, name: str, slots: int, wanted: range) -> Iterator[tuple[int, int, int]]:
    """Slot, offset and length of the chunks of a shard that were written.

    Args:
        descriptor: The open file.
        name: Of the file, for errors.
        slots: Chunks that the index has room for.
        wanted: Slots to look at.

    Raises:
        ValueError: The index promises what the file does not hold, or is itself cut off.
    """
    end, size = os.fstat(descriptor).st_size, INDEX_ENTRY.size
    index = os.pread(descriptor, size * len(wanted), size * wanted.start)
    for number, slot in enumerate(wanted):
        entry = index[size * number : size * (number + 1)]
        if entry == _NO_CHUNK and end >= size * slots:
            continue
        offset, length = INDEX_ENTRY.unpack(entry) if len(entry) == size else (0, 0)
        if offset < size * slots or offset + length > end:
            raise ValueError(f"{name} is torn at its step {slot}")
        yield slot, offset, length
