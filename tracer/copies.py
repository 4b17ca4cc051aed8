"""Copied tensors on their way to the store: made in the run's thread, measured and written in batches by the writer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .buffers import Kind
from .device import copy_to_host
from .statistics import Place, measure_all
from .store import StoreWriter
from .writer import BackgroundWriter

__all__ = ["Copies"]

_BATCH_BYTES = 1 << 20
"""To wake the writer for each tensor would disturb the run; this much stays in the caches until it is written."""


@dataclass(slots=True)
class _Copy:
    array: str
    step: int | None
    tensor: Tensor
    dtype: str
    """As stored."""
    place: Place | None
    """Where its statistics belong, when they are not known yet."""
    arrived: Callable[[], None] | None
    """Waits until the copy is complete."""


class Copies:
    """Copies tensors, and hands the copies to the writer."""

    def __init__(self, writer: BackgroundWriter) -> None:
        self._writer = writer
        self._waiting: list[_Copy] = []
        self._bytes = 0

    def buffer(self, kind: Kind, nbytes: int, *, wait: bool) -> Tensor | None:
        """Memory for a copy; None when the budget is spent and `wait` is false, or the writer has failed."""
        buffer = self._writer.pool.take(kind, nbytes, wait=False)
        if buffer is None:
            self.send()
            buffer = self._writer.pool.take(kind, nbytes, wait=wait)
        return buffer

    def add(
        self, tensor: Tensor, buffer: Tensor, *, array: str, step: int | None, dtype: str, place: Place | None
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
        arrived = copy_to_host(tensor, buffer)
        self._waiting.append(_Copy(array, step, buffer, dtype, place, arrived))
        self._bytes += buffer.nbytes
        if self._bytes >= _BATCH_BYTES:
            self.send()

    def send(self) -> None:
        """Hand over what was copied so far."""
        if self._waiting:
            copies, self._waiting, self._bytes = self._waiting, [], 0
            self._writer.submit(functools.partial(_store, copies), buffers=[copy.tensor for copy in copies])
            self._writer.send()


def _store(copies: Sequence[_Copy], store: StoreWriter) -> None:
    for copy in copies:
        if copy.arrived is not None:
            copy.arrived()
    measure_all([(copy.tensor, copy.place) for copy in copies if copy.place is not None])
    chunks = []
    for copy in copies:
        tensor = copy.tensor
        if tensor.dtype.is_floating_point:
            tensor = tensor.to(getattr(torch, copy.dtype))
        if copy.step is None:
            store.write(copy.array, (0,) * tensor.dim(), tensor.numpy())
        else:
            chunks.append((copy.array, copy.step, tensor.numpy()))
    store.append_all(chunks)
