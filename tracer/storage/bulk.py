"""Many chunks encoded and appended to their shards in one compiled call, without the interpreter's lock.

A writer that goes through the interpreter for every chunk takes its lock some ten times a tensor, and each time the
traced run may have to wait for it: on a small network that costs more than the writing itself. What is done here is
what `store.encode` and `Shard.append` do, with the same writes in the same order.

Importing this module imports numba; it fails where numcodecs' compression library cannot be called directly.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import Any

import numcodecs.blosc
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..compiled import as_array, as_pointer, compiled
from ..layout import Codec
from .checksum import CHECKSUM_BYTES, extend_address
from .direct import LARGE, PAGE, Pace, aligned_memory
from .shards import DIRECT, END, FILE, HEAD, HEAD_BYTES, LENGTH, START, STATE_WORDS, STRIDE

__all__ = ["Append", "append_all", "scratch_for"]

_GROWTH = 16
"""Bytes by which blosc may make a chunk longer. It must not be given more room than that, as it would leave what cannot
be made shorter in blocks, which are longer than a plain copy."""

_BLOSC = ctypes.cast(ctypes.CDLL(numcodecs.blosc.__file__).blosc_compress_ctx, ctypes.c_void_p).value
_EXTEND = extend_address() or 0
_MONOTONIC = int(time.CLOCK_MONOTONIC)
_BUFFERS = {codec: ctypes.create_string_buffer(codec.encode()) for codec in ("lz4", "zstd")}
_NAMES = {"raw": 0} | {codec: ctypes.addressof(buffer) for codec, buffer in _BUFFERS.items()}
"""Address of each compressor's name, 0 for none."""


Append = tuple[int, int, Codec, int, int, bool, int, int]
"""A chunk on its way: address and number of its bytes, which lie without holes; `encoding.blosc_options`; whether it
ends in a checksum; address of its shard's state, and its slot there."""


def scratch_for(chunks: Sequence[Append], scratch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The scratch memory, or a larger one where these chunks need it."""
    needed = 2 * (max(nbytes for _, nbytes, *_ in chunks) + _GROWTH + CHECKSUM_BYTES)
    return scratch if scratch.nbytes >= needed else aligned_memory(needed)


def append_all(chunks: Sequence[Append], scratch: NDArray[np.uint8], pace: Pace) -> int:
    """Append chunks to their shards, which are open and have their index.

    Args:
        chunks: What to append, in this order.
        scratch: Memory to encode into, see `scratch_for`.
        pace: Told of direct writes.

    Returns:
        How many are written; fewer than given when the system did not take one whole, which can be appended again.
    """
    rows = [(data, nbytes, _NAMES[codec], *rest) for data, nbytes, codec, *rest in chunks]
    half = scratch.nbytes // 2
    return int(_append_all(np.array(rows, np.int64), scratch.ctypes.data, half, _BLOSC, _EXTEND, pace.address))


def _compress_by_address(
    _: Any,
    function: Any,  # noqa: ARG001 — they reach `generate` as `given`
    shuffle: Any,  # noqa: ARG001
    item: Any,  # noqa: ARG001
    count: Any,  # noqa: ARG001
    data: Any,  # noqa: ARG001
    to: Any,  # noqa: ARG001
    room: Any,  # noqa: ARG001
    name: Any,  # noqa: ARG001
) -> Any:
    word, number, text = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()

    def generate(_: Any, builder: Any, __: Any, given: Any) -> Any:
        # int blosc_compress_ctx(level, shuffle, item size, bytes, from, to, room, name, block size, threads)
        kind = ir.FunctionType(number, [number, number, word, word, text, text, word, text, word, number])
        function, shuffle, item, count, data, to, room, name = given
        data, to, name = (builder.inttoptr(address, text) for address in (data, to, name))
        one = ir.Constant(number, 1)
        arguments = [one, builder.trunc(shuffle, number), item, count, data, to, room, name, ir.Constant(word, 0), one]
        return builder.sext(builder.call(builder.inttoptr(function, kind.as_pointer()), arguments), word)

    return types.intp(*[types.intp] * 8), generate


def _extend_by_address(
    _: Any,
    function: Any,  # noqa: ARG001 — they reach `generate` as `given`
    data: Any,  # noqa: ARG001
    count: Any,  # noqa: ARG001
) -> Any:
    word, number, text = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()

    def generate(_: Any, builder: Any, __: Any, given: Any) -> Any:
        kind = ir.FunctionType(number, [number, text, word])
        function, data, count = given
        arguments = [ir.Constant(number, 0), builder.inttoptr(data, text), count]
        return builder.zext(builder.call(builder.inttoptr(function, kind.as_pointer()), arguments), word)

    return types.intp(*[types.intp] * 3), generate


_compress: Any = intrinsic(_compress_by_address)
_crc32c: Any = intrinsic(_extend_by_address)
_pwrite: Any = types.ExternalFunction("pwrite", types.intp(types.intc, types.voidptr, types.uintp, types.int64))
_clock: Any = types.ExternalFunction("clock_gettime", types.intc(types.intc, types.voidptr))
_pread: Any = types.ExternalFunction("pread", types.intp(types.intc, types.voidptr, types.uintp, types.int64))


@compiled()
def _same(first: Any, second: Any, count: Any) -> Any:
    one, two = as_array(as_pointer(first), (count,), np.uint8), as_array(as_pointer(second), (count,), np.uint8)
    for i in range(count):  # noqa: SIM110 — compiled
        if one[i] != two[i]:
            return False
    return True


@compiled()
def _now(words: Any) -> Any:
    """Nanoseconds of the monotonic clock; `words` is memory for two numbers."""
    _clock(np.intc(_MONOTONIC), as_pointer(words.ctypes.data))
    return words[0] * 1_000_000_000 + words[1]


@compiled()
def _write_direct(file: Any, data: Any, nbytes: Any, start: Any, pace: Any) -> Any:
    """Write the whole pages of a chunk past the page cache; returns the bytes written, none where that fails."""
    if file < 0 or nbytes < LARGE or data % PAGE:
        return 0
    words, totals = np.empty(2, np.int64), as_array(as_pointer(pace), (2,), np.int64)
    before, pages = _now(words), nbytes - nbytes % PAGE
    if _pwrite(np.intc(file), as_pointer(data), pages, start) != pages:
        return 0
    totals[0] += pages
    totals[1] += _now(words) - before
    return pages


@compiled()
def _append(state: Any, slot: Any, data: Any, nbytes: Any, tail: Any, spare: Any, pace: Any) -> Any:
    """Write a chunk and its entry in the index, as `Shard.append`; false when the system did not take all of it.

    The chunk is `nbytes` at `data` and then those of `tail`, which may have none.
    """
    file, head, length = np.intc(state[FILE]), min(nbytes, HEAD_BYTES), nbytes + len(tail)
    known = state[HEAD:].ctypes.data
    again = state[LENGTH] == length and _same(known, data, head)
    if again:
        again = _pread(file, as_pointer(spare), length, state[START]) == length and _same(spare, data, nbytes)
        again = again and _same(spare + nbytes, tail.ctypes.data, len(tail))
    if not again:
        start = (state[END] + state[STRIDE] - 1) // state[STRIDE] * state[STRIDE]
        done = _write_direct(state[DIRECT], data, nbytes, start, pace)
        if done < nbytes and _pwrite(file, as_pointer(data + done), nbytes - done, start + done) != nbytes - done:
            return False
        if len(tail) and _pwrite(file, as_pointer(tail.ctypes.data), len(tail), start + nbytes) != len(tail):
            return False
        state[START], state[LENGTH], state[END] = start, length, start + length
        target, source = as_array(as_pointer(known), (head,), np.uint8), as_array(as_pointer(data), (head,), np.uint8)
        for i in range(head):
            target[i] = source[i]
        begun = state[HEAD:].view(np.uint8)
        for i in range(min(len(tail), HEAD_BYTES - head)):
            begun[head + i] = tail[i]
    return bool(_pwrite(file, as_pointer(state[START:].ctypes.data), 16, 16 * slot) == 16)


@compiled("intp(int64[:, ::1], intp, intp, intp, intp, intp)")
def _append_all(chunks: Any, scratch: Any, half: Any, blosc: Any, extend: Any, pace: Any) -> Any:
    checksum = np.empty(CHECKSUM_BYTES, np.uint8)
    for i in range(len(chunks)):
        data, nbytes, name, item, shuffle, summed, shard, slot = chunks[i]
        state = as_array(as_pointer(shard), (STATE_WORDS,), np.int64)
        if name:
            nbytes = _compress(blosc, shuffle, item, nbytes, data, scratch, nbytes + _GROWTH, name)
            data = scratch
            if nbytes <= 0:
                return i
        tail = checksum[:0]
        if summed:
            number = _crc32c(extend, data, nbytes)
            tail = as_array(as_pointer(data + nbytes), (CHECKSUM_BYTES,), np.uint8) if name else checksum
            for place in range(CHECKSUM_BYTES):
                tail[place] = number >> (8 * place) & 0xFF
            if name:  # in the scratch memory, where there is room for it
                nbytes, tail = nbytes + CHECKSUM_BYTES, checksum[:0]
        if not _append(state, slot, data, nbytes, tail, scratch + half, pace):
            return i
    return len(chunks)
