"""Is a shard whole? Zarr reads the fill value for chunks that lie beyond the end of a file, and blosc reads on."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .layout import item_size
from .shards import INDEX_ENTRY

__all__ = ["check_shards"]

_NOT_WRITTEN = 2**64 - 1
_BLOSC_HEADER = struct.Struct("<4xI4xI")
"""Bytes of the data, and bytes they are stored in."""


def check_shards(folder: Path, metadata: Mapping[str, Any], step: int | None) -> None:
    """Refuse what the index of a shard promises but the file does not hold.

    There are no checksums: a flipped bit within the data is not found.

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
    nbytes = math.prod(inner["chunk_shape"]) * item_size(metadata["data_type"])
    packed = inner["codecs"][-1]["name"] == "blosc"
    per_shard = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
    for file in folder.glob("c.*" if step is None else f"c.{step // per_shard}.*"):
        if file.suffix == ".partial":
            continue
        with file.open("rb") as stream:
            for slot in range(per_shard) if step is None else [step % per_shard]:
                if not _is_whole(stream, slot, per_shard, nbytes=nbytes, packed=packed):
                    raise ValueError(f"{file.name} is torn at its step {slot}")


def _is_whole(stream: BinaryIO, slot: int, slots: int, *, nbytes: int, packed: bool) -> bool:
    descriptor, index = stream.fileno(), 16 * slots
    entry = os.pread(descriptor, 16, 16 * slot)
    if len(entry) < 16:
        return False
    offset, length = INDEX_ENTRY.unpack(entry)
    if offset == length == _NOT_WRITTEN:
        return True
    if offset < index or offset + length > os.fstat(descriptor).st_size:
        return False
    if packed:
        header = os.pread(descriptor, 16, offset)
        return len(header) == 16 and _BLOSC_HEADER.unpack(header) == (nbytes, length)
    return bool(length == nbytes and (offset - index) % max(nbytes, 1) == 0)
