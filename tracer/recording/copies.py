"""Copied tensors on their way to the store: made in the run's thread, measured and written in batches by the writer."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..storage.store import StoreWriter
from .buffers import Buffer, kind_of
from .device import SMALL, copy_to_host
from .losses import Losses
from .sites import Known
from .statistics import Dense, Place, dense_kernel, measure, measure_many
from .writer import BackgroundWriter

__all__ = ["Copied", "Copies"]

_BATCH_BYTES = 4 << 20
"""To wake the writer for each tensor would disturb the run; this much stays in the caches until it is written."""


class Copied(NamedTuple):
    """A copy of a tensor, in memory of the writer's pool."""

    buffer: Buffer
    arrived: Callable[[], None] | None
    """Waits until the copy is complete."""


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
    """Copies tensors, and hands the copies to the writer. Thread-safe.

    Args:
        writer: Stores them.
        losses: Told of those that could not be.
    """

    def __init__(self, writer: BackgroundWriter, losses: Losses | None = None) -> None:
        self._writer = writer
        self._losses = losses or Losses()
        self._waiting: deque[_Copy] = deque()
        self._bytes = 0
        self._line = writer.pool.line
        writer.feed = self._submit

    def copy(self, tensor: Tensor, *, wait: bool) -> Copied | None:
        """Copy a tensor now, to be stored by `add` or given back by `drop`.

        Args:
            tensor: On any device.
            wait: Wait for the writer while the budget is spent.

        Returns:
            None when the budget is spent and `wait` is false, or the writer has failed.

        Raises:
            Exception: Memory cannot be had, or the tensor cannot be copied. Nothing is held then.
        """
        kind, nbytes, pool = kind_of(tensor), tensor.nbytes, self._writer.pool
        buffer = pool.take(kind, nbytes, wait=False)
        if buffer is None:
            self.send()
            buffer = pool.take(kind, nbytes, wait=wait)
        if buffer is None:
            return None
        try:
            return Copied(buffer, copy_to_host(tensor, buffer.tensor))
        except BaseException:
            pool.give([buffer])
            raise

    def drop(self, copied: Copied) -> None:
        """Give back a copy that is not stored after all."""
        self._writer.pool.give([copied.buffer])

    def add(self, copied: Copied, *, array: str, step: int | None, dtype: str, place: Place | None) -> None:
        """Have a copy written.

        Args:
            copied: From `copy`.
            array: Path of the array it goes into.
            step: Step in which it goes there; None for an array without steps.
            dtype: What it is stored as.
            place: Where its statistics belong; None when they are not wanted of the copy.
        """
        buffer, arrived = copied
        dense = dense_kernel(buffer.tensor) if place is not None and buffer.tensor.is_contiguous() else None
        self._queue(_Copy(array, step, buffer, dtype, place, dense, arrived))

    def add_again(self, tensor: Tensor, address: int, known: Known, *, step: int | None, place: Place) -> bool:
        """Copy and `add` a tensor at an address that is as in the step before; false where that cannot be now."""
        try:
            buffer = self._writer.pool.take(known.buffers, known.nbytes, wait=False)
        except MemoryError:
            return False
        if buffer is None:
            return False
        if known.nbytes <= SMALL:
            ctypes.memmove(buffer.address, address, known.nbytes)  # keeps the interpreter's lock
        else:
            try:
                copy_to_host(tensor, buffer.tensor)
            except BaseException:
                self._writer.pool.give([buffer])
                raise
        self._queue(_Copy(known.array, step, buffer, known.stored_dtype, place, known.dense, None))
        return True

    def send(self) -> None:
        """Hand over what was copied so far."""
        self._writer.send()

    def _submit(self) -> None:
        copies, self._bytes = [], 0
        with contextlib.suppress(IndexError):
            while True:
                copies.append(self._waiting.popleft())
        if copies:
            self._writer.submit(functools.partial(self._store, copies), buffers=[copy.buffer for copy in copies])

    def _store(self, copies: Sequence[_Copy], store: StoreWriter) -> None:
        """Measure and write copies; where memory does not suffice for all, one after the other."""
        try:
            _measure(copies)
            _write(copies, store)
        except MemoryError:
            gc.collect()
            for copy in copies:
                self._store_one(copy, store)

    def _store_one(self, copy: _Copy, store: StoreWriter) -> None:
        is_measured = False
        try:
            _measure([copy])
            is_measured = True
            _write([copy], store)
        except MemoryError:
            self._losses.note(copy.array, copy.step, is_measured=is_measured)

    def _queue(self, copy: _Copy) -> None:
        self._waiting.append(copy)
        self._bytes += copy.buffer.nbytes
        if self._bytes >= _BATCH_BYTES or self._line:  # one who waits has sent what was there before, and not this
            self.send()


def _measure(copies: Sequence[_Copy]) -> None:
    """Fill in statistics; what is asked of every copy is as little as can be, as the run may wait for the lock."""
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


def _write(copies: Sequence[_Copy], store: StoreWriter) -> None:
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
