"""Copied tensors on their way to the store: made in the run's thread, measured and written in batches by the writer."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..storage.store import StoreWriter
from .buffers import Buffer, Kind
from .device import SMALL, copy_to_host
from .sites import Known
from .statistics import Dense, Place, dense_kernel, measure, measure_many
from .writer import BackgroundWriter

__all__ = ["Copies"]

_BATCH_BYTES = 4 << 20
"""To wake the writer for each tensor would disturb the run; this much stays in the caches until it is written."""


class _Copy(NamedTuple):
    array: str
    step: int | None
    buffer: Buffer
    dtype: str
    """As stored."""
    place: Place | None
    """Where its statistics belong, when they are not known yet."""
    dense: Dense | None
    """Measures it, where that is known to be possible."""
    arrived: Callable[[], None] | None
    """Waits until the copy is complete."""


class Copies:
    """Copies tensors, and hands the copies to the writer."""

    def __init__(self, writer: BackgroundWriter) -> None:
        self._writer = writer
        self._waiting: list[_Copy] = []
        self._bytes = 0

    def buffer(self, kind: Kind, nbytes: int, *, wait: bool) -> Buffer | None:
        """Memory for a copy; None when the budget is spent and `wait` is false, or the writer has failed."""
        buffer = self._writer.pool.take(kind, nbytes, wait=False)
        if buffer is None:
            self.send()
            buffer = self._writer.pool.take(kind, nbytes, wait=wait)
        return buffer

    def add(
        self, tensor: Tensor, buffer: Buffer, *, array: str, step: int | None, dtype: str, place: Place | None
    ) -> None:
        """Copy a tensor now, to be written later.

        Args:
            tensor: On any device.
            buffer: From `buffer`.
            array: Path of the array it goes into.
            step: Step in which it goes there; None for an array without steps.
            dtype: What it is stored as.
            place: Where its statistics belong; None when they are not wanted of the copy.
        """
        arrived = copy_to_host(tensor, buffer.tensor)
        dense = dense_kernel(buffer.tensor) if place is not None and buffer.tensor.is_contiguous() else None
        self._queue(_Copy(array, step, buffer, dtype, place, dense, arrived))

    def add_again(self, tensor: Tensor, address: int, known: Known, *, step: int | None, place: Place) -> bool:
        """`add` a tensor at an address that is as it was in the step before; false where there is no memory now."""
        buffer = self._writer.pool.take(known.buffers, known.nbytes, wait=False)
        if buffer is None:
            return False
        if known.nbytes <= SMALL:
            ctypes.memmove(buffer.address, address, known.nbytes)  # keeps the interpreter's lock
        else:
            copy_to_host(tensor, buffer.tensor)
        self._queue(_Copy(known.array, step, buffer, known.stored_dtype, place, known.dense, None))
        return True

    def send(self) -> None:
        """Hand over what was copied so far."""
        if self._waiting:
            copies, self._waiting, self._bytes = self._waiting, [], 0
            self._writer.submit(functools.partial(_store, copies), buffers=[copy.buffer for copy in copies])
            self._writer.send()

    def _queue(self, copy: _Copy) -> None:
        self._waiting.append(copy)
        self._bytes += copy.buffer.nbytes
        if self._bytes >= _BATCH_BYTES:
            self.send()


def _store(copies: Sequence[_Copy], store: StoreWriter) -> None:
    """Measure and write copies; what is asked of every one is as little as can be, as the run may wait for the lock."""
    dense = []
    for copy in copies:
        _, _, buffer, _, place, kernel, arrived = copy
        if arrived is not None:
            arrived()
        if place is None:
            continue
        if kernel is None:
            measure(buffer.tensor, place)
        else:
            dense.append((buffer.address, kernel.kind, kernel.count, place.row_address, place.histogram_address))
    if dense:
        measure_many(dense)
    chunks = []
    for array, step, buffer, dtype, *_ in copies:
        values, address = buffer.array, buffer.address
        if values is None or (values.dtype.kind == "f" and values.dtype.name != dtype):
            values, address = buffer.tensor.to(getattr(torch, dtype)).numpy(), 0
        if step is None:
            store.write(array, (0,) * values.ndim, values)
        else:
            chunks.append((array, step, values, address))
    store.append_all(chunks)
