"""Is a chunk whole? Zarr reads the fill value for chunks that lie beyond the end of a file, and blosc reads on."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..info import printable
from ..layout import MOST_STEPS, ROOT_ARRAYS, item_size
from .checksum import CHECKSUM, CHECKSUM_BYTES
from .direct import PAGE
from .regular import open_regular
from .shards import INDEX_ENTRY, written_chunks

__all__ = ["FRAME_HEADER", "check_shards", "frame_header", "reason_against"]

_LARGE_CHUNK = 1 << 20
"""Elements that a chunk may have however small its array is: 256 histograms."""
_ROOM = 4
"""How many times as large as its array a larger one may be; else it decodes to what nobody asked for."""
FRAME_HEADER = struct.Struct("<4B3I")
"""Of a Blosc frame: versions, flags, type size; bytes of data, of a block, of the frame."""


def reason_against(name: str, metadata: Mapping[str, Any]) -> str:
    """Why the metadata of an array cannot be those of one; "" where they can.

    Args:
        name: Path of the array; those at the root have an element for each step.
        metadata: As its document has them.
    """
    return next(_reasons(name, metadata), "")


def _reasons(name: str, metadata: Mapping[str, Any]) -> Iterator[str]:
    try:
        chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    except (LookupError, TypeError):
        yield "it has no chunks"
        return
    shape = metadata.get("shape")
    for what, sizes, least in (("shape", shape, 0), ("chunks", chunk, 1)):
        if not isinstance(sizes, list) or not all(type(size) is int and size >= least for size in sizes):
            yield f"its {what} are {printable(repr(sizes))[:80]}"
            return
    assert isinstance(shape, list)
    if len(shape) != len(chunk):
        yield f"it has {len(shape)} dimensions in chunks of {len(chunk)}"
    if not isinstance(metadata.get("codecs"), list) or not isinstance(metadata.get("data_type"), str | dict):
        yield "it does not say how it is stored"
    inner = _inner_chunk(metadata) or chunk
    if math.prod(inner) > max(_LARGE_CHUNK, _ROOM * math.prod(max(size, 1) for size in shape)):
        yield f"its shape is {shape}, in chunks of {printable(repr(inner))[:80]}"
    if name in ROOT_ARRAYS and (len(shape) != 1 or shape[0] > MOST_STEPS):
        yield f"it has the shape {shape}, and may have up to {MOST_STEPS} steps"


def _inner_chunk(metadata: Mapping[str, Any]) -> list[int]:
    """The extent of a chunk within a shard; empty where there are no shards."""
    try:
        inner = metadata["codecs"][0]["configuration"]["chunk_shape"]
    except (LookupError, TypeError):
        return []
    return inner if isinstance(inner, list) and all(type(size) is int for size in inner) else []


def check_shards(folder: Path, metadata: Mapping[str, Any], step: int | None, root: Path | None = None) -> None:
    """Refuse what the index of a shard promises but the file does not hold.

    A flipped bit within the data is found by the chunk's checksum as it is decoded, not here.

    Args:
        folder: Of the array.
        metadata: Of the array; one without shards passes.
        step: The only step that is going to be read; None for all.
        root: Folder of the trace, which no link may lead out of; the array's by default.

    Raises:
        ValueError: A chunk is torn; the message names file and step.
    """
    sharding = metadata["codecs"][0]
    if sharding["name"] != "sharding_indexed":
        return
    inner = sharding["configuration"]
    if inner.get("index_location") != "start":  # not as the writer makes them
        return
    nbytes = math.prod(inner["chunk_shape"]) * item_size(metadata["data_type"])
    codecs = [codec["name"] for codec in inner["codecs"]]
    summed = CHECKSUM_BYTES if codecs[-1] == CHECKSUM else 0
    packed = "blosc" in codecs
    per_shard = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
    for file in folder.glob("c.*" if step is None else f"c.{step // per_shard}.*"):
        if file.suffix == ".partial":
            continue
        with open_regular(file, root or folder) as stream:
            descriptor, wanted = stream.fileno(), range(per_shard)
            wanted = wanted if step is None else wanted[step % per_shard :][:1]
            for slot, offset, length in written_chunks(descriptor, file.name, per_shard, wanted):
                if packed:
                    frame_header(os.pread(descriptor, FRAME_HEADER.size, offset), nbytes, length - summed)
                elif summed:
                    if length != nbytes + summed:
                        raise ValueError(f"{file.name} is torn at its step {slot}")
                elif length != nbytes or (offset % PAGE and (offset - INDEX_ENTRY.size * per_shard) % max(nbytes, 1)):
                    raise ValueError(f"{file.name} is torn at its step {slot}")


def frame_header(data: bytes | memoryview, nbytes: int, length: int) -> tuple[int, ...]:
    """The fields of `FRAME_HEADER` at the beginning of a Blosc frame.

    Args:
        data: The frame, or its beginning.
        nbytes: What the frame must decode to.
        length: Bytes that the frame must have.

    Raises:
        ValueError: It has other sizes.
    """
    fields = FRAME_HEADER.unpack_from(data) if len(data) >= FRAME_HEADER.size else (0,) * 7
    promised, frame = fields[4], fields[6]
    if (promised, frame) != (nbytes, length):
        raise ValueError(f"a chunk of {nbytes} bytes has a header of {promised} bytes in {frame}")
    return fields
