"""The bytes of a chunk, as `ArraySpec.metadata` describes them."""

from __future__ import annotations

import functools
import math
import struct
from dataclasses import replace
from typing import Any

import numpy as np
from numcodecs.blosc import Blosc
from numpy.typing import NDArray

from ..layout import FLOATING, ArraySpec, Codec, fill_number, item_size
from .checksum import checksum_of

__all__ = ["blosc_options", "encode", "settled"]

_WORTH = 0.8
"""What compression may leave at most: else it takes more time than writing what it saves."""
_SAMPLE, _PARTS = 1 << 20, 4
"""Bytes that tell how well an array compresses, and the places all over a chunk that they are taken from."""


def encode(spec: ArraySpec, chunk: NDArray[Any]) -> bytes | memoryview:
    """The bytes of one chunk, as `ArraySpec.metadata` describes them; they may be those of `chunk` itself."""
    if spec.dtype == "string":
        texts = [str(text).encode("utf-8", "replace") for text in chunk.ravel()]
        texts += [b""] * (math.prod(spec.chunk) - len(texts))  # a chunk at the array's edge is stored whole
        told = struct.pack("<I", len(texts)) + b"".join(struct.pack("<I", len(text)) + text for text in texts)
        return told + checksum_of(told) if spec.has_checksums else told
    data = np.asarray(chunk, spec.dtype, order="C")  # ascontiguousarray would make a scalar one-dimensional
    full = data
    if data.shape != spec.chunk:  # a chunk at the array's edge is stored whole, the rest as not captured
        full = np.full(spec.chunk, fill_number(spec.fill), spec.dtype)
        full[tuple(slice(0, size) for size in data.shape)] = data
    if spec.codec == "raw":
        view = full.ravel().view(np.uint8)
        return b"".join((view.data, checksum_of(view))) if spec.has_checksums else view.data
    codec, _, shuffle = blosc_options(spec.codec, spec.dtype)
    encoded: bytes = _blosc(codec, shuffle).encode(full.ravel())
    return encoded + checksum_of(encoded) if spec.has_checksums else encoded


def settled(spec: ArraySpec, chunk: NDArray[Any]) -> ArraySpec:
    """An array whose codec is "auto" with lz4 where that saves a fifth of its first chunk, else raw."""
    if spec.dtype == "string":
        return replace(spec, codec="raw")
    values = np.asarray(chunk, spec.dtype, order="C").ravel()
    part = _SAMPLE // _PARTS // values.itemsize
    if len(values) > _PARTS * part:
        starts = np.linspace(0, len(values) - part, _PARTS).astype(int).tolist()
        values = np.concatenate([values[start : start + part] for start in starts])
    _, _, shuffle = blosc_options("lz4", spec.dtype)
    saves = len(_blosc("lz4", shuffle).encode(values)) <= _WORTH * values.nbytes
    return replace(spec, codec="lz4" if saves else "raw")


@functools.cache
def blosc_options(codec: Codec, dtype: str) -> tuple[Codec, int, int]:
    """Compressor, bytes of an element, and how blosc shuffles them, as `layout.codec_chain` says."""
    return codec, item_size(dtype), Blosc.BITSHUFFLE if dtype.startswith(FLOATING) else Blosc.SHUFFLE


@functools.cache
def _blosc(codec: str, shuffle: int) -> Blosc:
    return Blosc(cname=codec, clevel=1, shuffle=shuffle)
