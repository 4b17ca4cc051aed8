"""CRC-32C of chunks, as Zarr's codec `crc32c` puts it behind each, so that every Zarr library checks it as it reads.

google-crc32c, which zarr-python brings, has it at the speed of the hardware; its library is called directly, as its
Python function takes nothing but bytes. Where it comes without compiled code, chunks are written without checksums,
and read as slowly as Python takes.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import struct
from typing import Any

from numpy.typing import NDArray

__all__ = ["CHECKSUM", "CHECKSUM_BYTES", "checked", "checksum_of", "extend_address"]

CHECKSUM = "crc32c"
"""Name of the codec."""
CHECKSUM_BYTES = 4
_SUM = struct.Struct("<I")


@functools.cache
def extend_address() -> int | None:
    """Address of ``uint32_t crc32c_extend(uint32_t before, const uint8_t *data, size_t count)``; None without it."""
    try:
        library = importlib.import_module("google_crc32c._crc32c").__file__
        return ctypes.cast(ctypes.CDLL(library).crc32c_extend, ctypes.c_void_p).value
    except (ImportError, OSError, AttributeError):
        return None


@functools.cache
def _extend() -> Any:
    address = extend_address()
    kind = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t)
    return None if address is None else kind(address)


def checksum_of(data: bytes | NDArray[Any]) -> bytes:
    """The four bytes that follow on `data`, which lies without holes."""
    if isinstance(data, bytes):
        return _SUM.pack(_sum_of(data, len(data)))
    extend = _extend()
    if extend is None or not data.flags.c_contiguous:
        return checksum_of(data.tobytes())
    return _SUM.pack(extend(0, data.__array_interface__["data"][0], data.nbytes))


def checked(data: bytes) -> memoryview:
    """A chunk without the checksum that it ends in.

    Raises:
        ValueError: It is another one than its bytes have.
    """
    whole = memoryview(data)
    end = len(data) - CHECKSUM_BYTES
    if end < 0:
        raise ValueError(f"a chunk of {len(data)} bytes has no room for its checksum")
    (promised,), found = _SUM.unpack(whole[end:]), _sum_of(data, end)
    if promised != found:
        raise ValueError(f"a chunk of {end} bytes has the checksum {promised:08x}, its bytes have {found:08x}")
    return whole[:end]


def _sum_of(data: bytes, count: int) -> int:
    extend = _extend()
    if extend is not None:
        return int(extend(0, data, count))
    import google_crc32c

    return int(google_crc32c.value(data[:count]))
