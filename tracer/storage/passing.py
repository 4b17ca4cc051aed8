"""What a library is about to decode: frames and lists of texts that promise more than their array has are refused."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from .integrity import FRAME_HEADER, frame_header
from .shards import INDEX_ENTRY
from .sizes import Form, form_of

__all__ = ["check_passing"]

_COUNT = struct.Struct("<I")
_NO_CHUNK = np.iinfo(np.uint64).max
_CHECKSUM = 4


def check_passing(metadata: Mapping[str, Any], data: bytes, start: int | None, *, is_whole: bool) -> None:
    """Make sure that what was read of an array's file decodes to what its metadata say, and to no more.

    Args:
        metadata: Of the array.
        data: What was read.
        start: Where in the file that begins; None where it was counted from the end.
        is_whole: Whether it is the whole file.

    Raises:
        ValueError: It is not so.
    """
    form = form_of(metadata)
    if not form.slots:
        if is_whole:
            _check_chunk(form, data)
        return
    before, after = form.index
    if is_whole:
        index = data[:before] if before else data[len(data) - after :]
        count = min(len(index) // INDEX_ENTRY.size, form.slots)
        for offset, length in np.frombuffer(index[: count * INDEX_ENTRY.size], "<u8").reshape(-1, 2).tolist():
            if offset != _NO_CHUNK:
                _check_chunk(form, data[offset : offset + length])
    elif start is not None and (start or not before):
        _check_chunk(form, data)


def _check_chunk(form: Form, data: bytes) -> None:
    summed = _CHECKSUM if form.codecs[-1] == "crc32c" else 0
    if form.is_text:
        _check_texts(data[: len(data) - summed], math.prod(form.chunk))
    elif "blosc" in form.codecs:
        frame_header(data[: FRAME_HEADER.size], form.nbytes, len(data) - summed)
    elif len(form.codecs) - bool(summed) == 1 and len(data) != form.nbytes + summed:
        raise ValueError(f"a chunk of {form.nbytes} bytes has {len(data) - summed}")


def _check_texts(data: bytes, count: int) -> None:
    """Lengths and texts, one after the other, as many as a chunk has elements."""
    found = _COUNT.unpack_from(data)[0] if len(data) >= _COUNT.size else 0
    if found != count or len(data) < _COUNT.size * (1 + count):
        raise ValueError(f"a chunk of {count} texts has {found} in {len(data)} bytes")
    at = _COUNT.size
    for _ in range(count):
        if at + _COUNT.size > len(data):
            break
        at += _COUNT.size + _COUNT.unpack_from(data, at)[0]
    if at != len(data):
        raise ValueError(f"a chunk of {count} texts is not what its lengths say")
