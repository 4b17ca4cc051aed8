"""A part of a chunk of an array in a folder, without decoding the rest of it.

A Blosc frame is a row of blocks that were compressed one by one. A frame made of the blocks wanted, their bytes as they
are, decodes to the part wanted: one head of an attention, say, out of the queries of all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layout import item_size
from .checksum import CHECKSUM, CHECKSUM_BYTES, checked
from .integrity import FRAME_HEADER, frame_header
from .plain_chunks import without_checksum
from .regular import open_regular
from .shards import written_chunks

__all__ = ["is_one_chunk", "read_part"]

_VERSION = 2
"""Of the frame's format."""
_STORED = 0x02
"""Flag of a frame whose data were not compressed."""


def is_one_chunk(metadata: Mapping[str, Any]) -> bool:
    """Whether each step of the array, or all of it where it has no steps, is one chunk in a form that is known here."""
    try:
        codecs, shape = metadata["codecs"], metadata["shape"]
        chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        if codecs[0]["name"] == "sharding_indexed":
            inner = codecs[0]["configuration"]
            known = inner["index_location"] == "start" and len(inner["index_codecs"]) == 1
            return known and inner["chunk_shape"] == [1, *shape[1:]] == [1, *chunk[1:]] and _is_known(inner["codecs"])
        return bool(chunk == shape) and _is_known(codecs)
    except (AttributeError, LookupError, TypeError):
        return False


def read_part(
    folder: Path,
    metadata: Mapping[str, Any],
    step: int | None,
    start: int,
    count: int,
    *,
    root: Path | None = None,
    known: set[tuple[Path, int]] | None = None,
) -> NDArray[Any] | None:
    """Elements `start` to `start + count` of one step of an array that `is_one_chunk`, in row-major order.

    Args:
        folder: Of the array.
        metadata: Of the array.
        step: None for an array without steps.
        start: First element.
        count: Number of elements.
        root: Folder of the trace, which no link may lead out of; the array's by default.
        known: File and offset of chunks whose checksums were found right; this one's is added, which reads all of it.

    Returns:
        Shape (count,); None where the step was not written.

    Raises:
        ValueError: The file does not hold what its index or its header promises.
        OSError: It cannot be read.
    """
    shape, codecs = metadata["shape"], metadata["codecs"]
    dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
    size = item_size(metadata["data_type"])
    slots = 0 if step is None else metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
    place = [0] * len(shape) if step is None else [step // slots, *[0] * (len(shape) - 1)]
    file = folder / ".".join(["c", *map(str, place)])
    try:
        stream = open_regular(file, root or folder)
    except FileNotFoundError:
        return None
    with stream:
        descriptor = stream.fileno()
        offset, length = 0, os.fstat(descriptor).st_size
        if step is not None:
            slot = step % slots
            for _, *where in written_chunks(descriptor, file.name, slots, range(slot, slot + 1)):
                offset, length = where
                break
            else:
                return None
            codecs = codecs[0]["configuration"]["codecs"]
        elements = math.prod(shape if step is None else shape[1:])
        if not 0 <= start <= start + count <= elements:
            raise ValueError(f"{count} elements from {start} are outside of a chunk of {elements}")
        if codecs[-1]["name"] == CHECKSUM:
            known = set() if known is None else known
            if (file, offset) not in known:
                checked(_bytes(descriptor, length, offset))
                known.add((file, offset))
            length -= CHECKSUM_BYTES
        found: bytes | memoryview
        if without_checksum(codecs) == ["bytes"]:
            found = _bytes(descriptor, count * size, offset + start * size)
        else:
            found = _decoded(descriptor, offset, length, elements * size, start * size, count * size)
    return np.frombuffer(found, dtype)


def _is_known(codecs: Any) -> bool:
    names = without_checksum(codecs)
    little = codecs[0].get("configuration", {}).get("endian", "little") == "little"
    return names in (["bytes"], ["bytes", "blosc"]) and little


def _decoded(  # noqa: PLR0917
    descriptor: int, offset: int, length: int, nbytes: int, start: int, count: int
) -> bytes | memoryview:
    """Bytes of the data of the Blosc frame at `offset`."""
    from numcodecs.blosc import Blosc

    header = frame_header(_bytes(descriptor, FRAME_HEADER.size, offset), nbytes, length)
    *versions, flags, type_size, _, block, frame = header
    stored = bool(flags & _STORED)
    fits = 0 < block <= nbytes and versions[0] == _VERSION and (not stored or frame == FRAME_HEADER.size + nbytes)
    if not fits:
        raise ValueError(f"a chunk of {nbytes} bytes has a header of version {versions[0]}, blocks of {block} bytes")
    if stored:
        return _bytes(descriptor, count, offset + FRAME_HEADER.size + start)
    blocks = -(-nbytes // block)
    starts = np.frombuffer(_bytes(descriptor, 4 * blocks, offset + FRAME_HEADER.size), "<u4").astype(np.int64)
    ordered = np.append(np.sort(starts), frame)
    lengths = ordered[np.searchsorted(ordered, starts, side="right").clip(max=blocks)] - starts
    if starts.min() < FRAME_HEADER.size + 4 * blocks or starts.max() >= frame:
        raise ValueError("a chunk has blocks outside of it")
    # The last block is shorter; a frame of it alone would not say of which size blocks are.
    first, last = min(start // block, max(blocks - 2, 0)), -(-(start + count) // block)
    if first == 0 and last >= blocks:
        return memoryview(Blosc().decode(_bytes(descriptor, length, offset)))[start : start + count]
    wanted = range(first, max(last, first + 1))
    head = FRAME_HEADER.size + 4 * len(wanted)
    places = head + np.concatenate([[0], np.cumsum(lengths[first : wanted.stop])])
    data = min(wanted.stop * block, nbytes) - first * block
    parts = [
        FRAME_HEADER.pack(*versions, flags, type_size, data, block, int(places[-1])),
        places[:-1].astype("<u4").tobytes(),
        *_runs(descriptor, offset, starts[first : wanted.stop], lengths[first : wanted.stop]),
    ]
    return memoryview(Blosc().decode(b"".join(parts)))[start - first * block :][:count]


def _runs(descriptor: int, offset: int, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[bytes]:
    """The bytes of blocks; those that follow one another are read at once."""
    breaks = np.flatnonzero(starts[1:] != (starts + lengths)[:-1]) + 1
    runs = zip([0, *breaks.tolist()], [*breaks.tolist(), len(starts)], strict=True)
    return [_bytes(descriptor, int(lengths[begin:end].sum()), offset + int(starts[begin])) for begin, end in runs]


def _bytes(descriptor: int, count: int, offset: int) -> bytes:
    found = os.pread(descriptor, count, offset)
    if len(found) != count:
        raise ValueError(f"{count} bytes at {offset} are missing")
    return found
