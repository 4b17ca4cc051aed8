"""The statistics kernel: one pass over a tensor where it lies in memory, compiled by numba.

The elements are taken in blocks that fit the processor's first cache. In each block the float bits are binned, extrema
and zeros are found on the bits as integers (which vectorises, as floats with NaN do not), and mean and squared
deviation are joined to those of the blocks before (Chan, Golub & LeVeque 1983, eq. 1.5), so that a large offset costs
no digits. Half-precision and strided elements are first widened into a block of their own; nothing else is copied.

Importing this module imports numba and compiles, or loads what an earlier process compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..compiled import as_array, as_pointer, compiled
from ..layout import HISTOGRAM_BINS

__all__ = ["BFLOAT16", "DIMENSIONS", "FLOAT16", "FLOAT32", "measure", "measure_dense", "measure_many", "measure_small"]

FLOAT32, FLOAT16, BFLOAT16 = 0, 1, 2
DIMENSIONS = 4
"""Dimensions a tensor may have once neighbouring ones are joined."""

_BLOCK = 4096
_MANY = 4 * _BLOCK
"""From here on four histograms are filled in turn: two equal values in a row then do not wait for one another."""

_SIGN, _REST, _INFINITY = np.int32(31), np.int32(0x7FFFFFFF), np.int32(0x7F800000)
_MIN, _MAX, _MEAN, _STD, _L2, _ABS_MAX, _NANS, _UPS, _DOWNS, _ZEROS, _COUNT = range(11)


@compiled()
def _bin(bits: Any, count: Any, first: Any, second: Any, third: Any, fourth: Any) -> None:
    whole = count - count % 4
    shift, one = np.uint32(20), np.uint32(1)
    for i in range(0, whole, 4):
        first[bits[i] >> shift] += one
        second[bits[i + 1] >> shift] += one
        third[bits[i + 2] >> shift] += one
        fourth[bits[i + 3] >> shift] += one
    for i in range(whole, count):
        first[bits[i] >> shift] += one


@compiled()
def _extrema(bits: Any, count: Any) -> Any:
    """Smallest and largest value as integers in the order of the floats, and the number of zeros."""
    low, high, zeros = _REST, np.int32(-_REST - 1), np.int32(0)
    for i in range(count):
        pattern = bits[i]
        key = np.int32(pattern ^ ((pattern >> _SIGN) & _REST))
        low, high = min(low, key), max(high, key)
        zeros += np.int32((pattern & _REST) == 0)
    return low, high, zeros


@compiled(fast=True)
def _sum(values: Any, count: Any) -> Any:
    total = 0.0
    for i in range(count):
        total += np.float64(values[i])
    return total


@compiled(fast=True)
def _squares(values: Any, count: Any, mean: Any) -> Any:
    total = 0.0
    for i in range(count):
        deviation = np.float64(values[i]) - mean
        total += deviation * deviation
    return total


@compiled()
def _finite_first(values: Any, count: Any, row: Any) -> Any:
    """Count what is not finite, move the finite values to the front of the block, and return how many they are."""
    kept = 0
    for i in range(count):
        value = values[i]
        if np.isfinite(value):
            values[kept] = value
            kept += 1
        elif np.isnan(value):
            row[_NANS] += 1
        elif value > 0:
            row[_UPS] += 1
        else:
            row[_DOWNS] += 1
    return kept


@compiled()
def _add_block(address: Any, count: Any, spare: Any, row: Any, bins: Any) -> None:
    """Join one block of float32 to the statistics so far.

    Until the end `row` holds the squared deviation in place of `std`, the number of finite values in that of `l2_norm`.
    """
    patterns = as_array(as_pointer(address), (count,), np.uint32)
    bits = as_array(as_pointer(address), (count,), np.int32)
    values = as_array(as_pointer(address), (count,), np.float32)
    _bin(patterns, count, bins[0], bins[1], bins[2], bins[3])
    low, high, zeros = _extrema(bits, count)
    row[_ZEROS] += zeros
    if high >= _INFINITY or low <= np.int32(~_INFINITY):  # infinite or NaN: work on a copy without them
        for i in range(count):
            spare[i] = patterns[i]
        values = spare.view(np.float32)
        count = _finite_first(values, count, row)
        low, high, _ = _extrema(spare.view(np.int32), count)
    if count == 0:
        return
    edges = np.array([low, high], np.int32)
    edges ^= (edges >> _SIGN) & _REST
    row[_MIN], row[_MAX] = min(row[_MIN], edges.view(np.float32)[0]), max(row[_MAX], edges.view(np.float32)[1])
    mean = _sum(values, count) / count
    squares = _squares(values, count, mean)
    before = row[_L2]
    apart, together = mean - row[_MEAN], before + count
    row[_MEAN] += apart * count / together
    row[_STD] += squares + apart * apart * before * count / together
    row[_L2] = together


@compiled()
def _gather(source: Any, stride: Any, count: Any, target: Any) -> None:
    for i in range(count):
        target[i] = source[i * stride]


@compiled()
def _widen_bfloat16(half: Any, count: Any, target: Any) -> None:
    for i in range(count):
        target[i] = np.uint32(half[i]) << np.uint32(16)


@compiled()
def _widen_float16(half: Any, count: Any, target: Any, spare: Any) -> None:
    """Exponent and mantissa move to where float32 has them, and the bias is put right.

    A subnormal number gets an implied bit, which is then subtracted as a float; that needs no subnormal float32.
    """
    floats = spare.view(np.float32)
    for i in range(count):
        spare[i] = ((np.uint32(half[i]) & np.uint32(0x7FFF)) << np.uint32(13)) + np.uint32(0x38800000)
    for i in range(count):
        floats[i] -= np.float32(2.0**-14)
    for i in range(count):
        bits = np.uint32(half[i])
        exponent = bits & np.uint32(0x7C00)
        magnitude = ((bits & np.uint32(0x7FFF)) << np.uint32(13)) + np.uint32(0x38000000)
        magnitude = magnitude + np.uint32(0x38000000) if exponent == np.uint32(0x7C00) else magnitude
        magnitude = spare[i] if exponent == np.uint32(0) else magnitude
        target[i] = magnitude | ((bits & np.uint32(0x8000)) << np.uint32(16))


@compiled()
def _widen(address: Any, kind: Any, stride: Any, count: Any, target: Any, spare: Any, halves: Any) -> None:
    """Bits of `count` elements as float32."""
    reach = (count - 1) * stride + 1
    if kind == FLOAT32:
        _gather(as_array(as_pointer(address), (reach,), np.uint32), stride, count, target)
        return
    half = as_array(as_pointer(address), (reach,), np.uint16)
    if stride != 1:
        _gather(half, stride, count, halves)
        half = halves
    if kind == BFLOAT16:
        _widen_bfloat16(half, count, target)
    else:
        _widen_float16(half, count, target, spare)


@compiled()
def _add_in_place(address: Any, count: Any, row: Any, bins: Any) -> None:
    spare = np.empty(_BLOCK, np.uint32)
    for start in range(0, count, _BLOCK):
        _add_block(address + 4 * start, min(_BLOCK, count - start), spare, row, bins)


@compiled()
def _add_widened(address: Any, kind: Any, sizes: Any, strides: Any, row: Any, bins: Any) -> None:
    block, spare, halves = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint16)
    width, filled = 4 if kind == FLOAT32 else 2, 0
    outer, middle, inner, run = sizes
    for line in range(outer * middle * inner):
        i, j, k = line // (middle * inner), line // inner % middle, line % inner
        start, left = i * strides[0] + j * strides[1] + k * strides[2], run
        while left > 0:
            taken = min(left, _BLOCK - filled)
            _widen(address + width * start, kind, strides[3], taken, block[filled:], spare, halves)
            start, left, filled = start + taken * strides[3], left - taken, filled + taken
            if filled == _BLOCK:
                _add_block(block.ctypes.data, filled, spare, row, bins)
                filled = 0
    if filled:
        _add_block(block.ctypes.data, filled, spare, row, bins)


@compiled("void(intp, intp, UniTuple(intp, 4), UniTuple(intp, 4), float64[::1], uint32[::1])")
def measure(address: Any, kind: Any, sizes: Any, strides: Any, row: Any, histogram: Any) -> None:
    """Fill `row` and `histogram` with the statistics of a tensor.

    Args:
        address: Of the first element.
        kind: `FLOAT32`, `FLOAT16` or `BFLOAT16`.
        sizes: Extent of each dimension, the fastest last; at least 1.
        strides: Elements between neighbours along each dimension.
        row: float64, whose first 11 entries are in the order of `layout.MEASURED`; any further ones become 0.
        histogram: (4096,) uint32.
    """
    count = sizes[0] * sizes[1] * sizes[2] * sizes[3]
    row[:] = 0.0
    row[_MIN], row[_MAX], row[_COUNT] = np.inf, -np.inf, count
    histogram[:] = 0
    if count < _MANY:
        bins = (histogram, histogram, histogram, histogram)
    else:
        spare = np.zeros((3, HISTOGRAM_BINS), np.uint32)
        bins = (histogram, spare[0], spare[1], spare[2])
    if kind == FLOAT32 and count == sizes[3] and strides[3] == 1:
        _add_in_place(address, count, row, bins)
    else:
        _add_widened(address, kind, sizes, strides, row, bins)
    if count >= _MANY:
        for i in range(HISTOGRAM_BINS):
            histogram[i] += bins[1][i] + bins[2][i] + bins[3][i]
    finite, deviation = row[_L2], row[_STD]
    if finite:
        row[_STD] = np.sqrt(deviation / finite)
        row[_L2] = np.sqrt(deviation + finite * row[_MEAN] * row[_MEAN])
        row[_ABS_MAX] = max(abs(row[_MIN]), abs(row[_MAX]))
    else:
        row[_MIN] = row[_MAX] = row[_MEAN] = row[_STD] = row[_L2] = row[_ABS_MAX] = np.nan


_DENSE = "void(intp, intp, intp, intp, intp)"


@compiled(_DENSE)
def measure_dense(address: Any, kind: Any, count: Any, row: Any, histogram: Any) -> None:
    """As `measure`, of `count` elements without holes; row and histogram are addresses."""
    values, bins = (
        as_array(as_pointer(row), (11,), np.float64),
        as_array(as_pointer(histogram), (HISTOGRAM_BINS,), np.uint32),
    )
    measure(address, kind, (1, 1, 1, count), (0, 0, 0, 1), values, bins)


@compiled(_DENSE, nogil=False)
def measure_small(address: Any, kind: Any, count: Any, row: Any, histogram: Any) -> None:
    """As `measure_dense`, keeping the interpreter's lock: to get it back takes longer than a small tensor does."""
    measure_dense(address, kind, count, row, histogram)


@compiled("void(int64[:, ::1])")
def measure_many(tensors: Any) -> None:
    """`measure_dense` for each row of five numbers."""
    for i in range(len(tensors)):
        address, kind, count, row, histogram = tensors[i]
        measure_dense(address, kind, count, row, histogram)
