"""Arrays of a folder read without the library, whose import alone takes longer than a table.

Only forms that the writer makes are known here: chunks of bytes or of Blosc frames, one by one or, along the first
dimension, in shards with their index in front. Anything else is left to zarr-python, which decodes to the same values.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layout import fill_number, item_size
from .checksum import CHECKSUM, checked
from .integrity import frame_header
from .regular import open_regular
from .shards import written_chunks

__all__ = ["is_plain", "read_plain", "without_checksum"]


def is_plain(metadata: Mapping[str, Any]) -> bool:
    """Whether an array is in a form that is known here."""
    try:
        _, inner, outer, codecs = _form(metadata)
        encoding = metadata["chunk_key_encoding"]
        known = metadata["data_type"].startswith(("float", "complex", "int", "uint")) and outer[1:] == inner[1:]
        known = known and len(inner) == len(metadata["shape"]) and all(size > 0 for size in outer)
        known = known and encoding == {"name": "default", "configuration": {"separator": "."}}
        little = codecs[0]["configuration"]["endian"] == "little"
        return bool(known and little and without_checksum(codecs) in (["bytes"], ["bytes", "blosc"]))
    except (AttributeError, LookupError, TypeError):
        return False


def read_plain(
    folder: Path, metadata: Mapping[str, Any], place: tuple[int, ...], root: Path | None = None
) -> NDArray[Any]:
    """An array that `is_plain`, or its part at `place`.

    Args:
        folder: Of the array.
        metadata: Of the array.
        place: Indices along the first dimensions.
        root: Folder of the trace, which no link may lead out of; the array's by default.

    Returns:
        Shape as that of the array without its first `len(place)` dimensions; the fill value where nothing is written.

    Raises:
        ValueError: A file does not hold what its index or its header promises.
        IndexError: `place` is outside.
        OSError: A file cannot be read.
    """
    shape = tuple(metadata["shape"])
    sharded, inner, outer, codecs = _form(metadata)
    if len(place) > len(shape) or any(not 0 <= at < size for at, size in zip(place, shape, strict=False)):
        raise IndexError(f"{place} is outside of {shape}")
    dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
    fill = metadata["fill_value"]
    number = fill_number(fill) if isinstance(fill, str | list) else fill
    result = np.full(shape[len(place) :], number, dtype.newbyteorder("="))
    nbytes = math.prod(inner) * item_size(metadata["data_type"])
    names = [codec["name"] for codec in codecs]
    grid = [
        [place[axis] // size] if axis < len(place) else range(-(-shape[axis] // size))
        for axis, size in enumerate(outer)
    ]
    for at in itertools.product(*grid):
        file = folder / ".".join(["c", *map(str, at)])
        try:
            stream = open_regular(file, root or folder)
        except FileNotFoundError:
            continue
        with stream:
            slots = outer[0] if sharded else 1
            first, last = (place[0] % slots, place[0] % slots + 1) if place and sharded else (0, slots)
            for slot, data in _chunks(stream.fileno(), file.name, sharded, slots, range(first, last)):
                values = np.frombuffer(_decoded(data, nbytes, names), dtype).reshape(inner)
                corner = [index * size for index, size in zip(at, outer, strict=True)]
                if sharded:
                    corner[0] += slot
                _put(result, values, corner, place, shape)
    return result


def _form(metadata: Mapping[str, Any]) -> tuple[bool, list[int], list[int], list[Any]]:
    """Whether it is in shards, the extent of a chunk and of a file, and the codecs of a chunk."""
    outer, codecs = metadata["chunk_grid"]["configuration"]["chunk_shape"], metadata["codecs"]
    if codecs[0]["name"] != "sharding_indexed":
        return False, outer, outer, codecs
    sharding = codecs[0]["configuration"]
    if sharding["index_location"] != "start" or len(sharding["index_codecs"]) != 1 or sharding["chunk_shape"][0] != 1:
        raise LookupError("another kind of shards")
    return True, sharding["chunk_shape"], outer, sharding["codecs"]


def _chunks(descriptor: int, name: str, sharded: bool, slots: int, wanted: range) -> Iterator[tuple[int, bytes]]:  # noqa: FBT001
    """The chunks of a file that are written, each with its slot."""
    if not sharded:
        yield 0, os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        return
    for slot, offset, length in written_chunks(descriptor, name, slots, wanted):
        yield slot, os.pread(descriptor, length, offset)


def without_checksum(codecs: list[Any]) -> list[str]:
    """Names of the codecs of a chunk, but for the checksum that comes last."""
    names = [codec["name"] for codec in codecs]
    return names[:-1] if names[1:] and names[-1] == CHECKSUM else names


def _decoded(chunk: bytes, nbytes: int, codecs: list[str]) -> bytes | memoryview:
    data: bytes | memoryview = checked(chunk) if codecs[-1] == CHECKSUM else chunk
    if "blosc" in codecs:
        from numcodecs.blosc import Blosc

        frame_header(data, nbytes, len(data))
        data = Blosc().decode(data)
    if len(data) != nbytes:
        raise ValueError(f"a chunk of {nbytes} bytes has {len(data)}")
    return data


def _put(
    result: NDArray[Any], values: NDArray[Any], corner: list[int], place: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    """Copy what a chunk holds of the part wanted to where it belongs."""
    source: list[Any] = []
    target = []
    for axis, (start, size) in enumerate(zip(corner, values.shape, strict=True)):
        if axis < len(place):
            source.append(place[axis] - start)
        else:
            stop = min(start + size, shape[axis])
            source.append(slice(0, stop - start))
            target.append(slice(start, stop))
    result[tuple(target)] = values[tuple(source)]
