"""Is a chunk whole? Zarr reads the fill value for chunks that lie beyond the end of a file, and blosc reads on."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..layout import item_size
from .direct import PAGE
from .shards import INDEX_ENTRY, written_chunks

__all__ = ["FRAME_HEADER", "check_shards", "frame_header"]

_CHECKSUM = 4
"""Bytes that the codec crc32c adds to a chunk."""
FRAME_HEADER = struct.Struct("<4B3I")
"""Of a Blosc frame: versions, flags, type size; bytes of data, of a block, of the frame."""


def check_shards(folder: Path, metadata: Mapping[str, Any], step: int | None) -> None:
    """Refuse what the index of a shard promises but the file does not hold.

    Without checksums, which are optional, a flipped bit within the data is not found.

    Args:
        folder: Of the array.
        metadata: Of the array; one without shards passes.
        step: The only step that is going to be read; None for all.

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
    summed = _CHECKSUM if codecs[-1] == "crc32c" else 0  # which the library checks as it decodes
    packed = "blosc" in codecs
    per_shard = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
    for file in folder.glob("c.*" if step is None else f"c.{step // per_shard}.*"):
        if file.suffix == ".partial":
            continue
        with file.open("rb") as stream:
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


def frame_header(data: bytes, nbytes: int, length: int) -> tuple[int, ...]:
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
