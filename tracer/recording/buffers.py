"""Memory for copies on their way to the disk: reused, so that it is warm, and never more than a budget in all.

Copying into pages the process already has costs a quarter of copying into new ones, and the shapes of a run repeat
every step: a buffer that comes back from the writer fits the same module's next output.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..storage.direct import LARGE, aligned_memory
from .memory import available_memory

__all__ = ["Buffer", "BufferPool", "Kind", "kind_of"]

Kind = tuple[torch.dtype, torch.Size, tuple[int, ...], bool]
"""What buffers have in common: dtype, shape, strides, and whether they are pinned."""

_IN_NUMPY = frozenset(
    dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype) and hasattr(np, name)
)


class Buffer:
    """Host memory for one tensor. What is asked of it for every copy is looked up once.

    Args:
        tensor: The memory as a tensor like the one that is to be copied.
        key: What it serves, see `_serves`.
    """

    __slots__ = ("address", "array", "key", "nbytes", "tensor")

    def __init__(self, tensor: Tensor, key: Kind | int) -> None:
        self.tensor, self.key = tensor, key
        self.address, self.nbytes = tensor.data_ptr(), tensor.nbytes
        self.array: NDArray[Any] | None = tensor.numpy() if tensor.dtype in _IN_NUMPY else None
        """The same memory for numpy, where numpy has the dtype."""


_HEALTH_CHECK = 0.5
"""Seconds after which one who waits looks whether anybody is left to wait for."""


def _nothing() -> None:
    """Nothing is queued anywhere."""


def _always() -> bool:
    return True


class BufferPool:
    """Hands out buffers to copy into, and counts every byte that is in flight. Thread-safe.

    A wait here always ends. Whoever waits first has `before_wait` send off what is queued, as only that comes back; who
    queues something while others stand in `line` sends it at once; claims are granted in the order in which they
    were made, so that a large one is not overtaken for ever; and once nobody is left to give anything back, the pool
    closes. A request larger than the whole budget is granted once nothing else is in flight.

    Args:
        budget: Bytes that may be in flight, idle buffers included.
        before_wait: Called before a wait, without the pool's lock: sends off everything that holds memory.
        is_served: Whether somebody is still there who gives memory back.
    """

    def __init__(
        self, budget: int, *, before_wait: Callable[[], None] = _nothing, is_served: Callable[[], bool] = _always
    ) -> None:
        self.budget = budget
        self.peak = 0
        """The most bytes that were in flight, idle buffers included."""
        self._before_wait, self._is_served = before_wait, is_served
        self._idle: dict[Kind | int, list[Buffer]] = {}
        self._idle_bytes = 0
        self._in_flight = 0
        self._closed = False
        self._changed = threading.Condition()
        self.line: deque[object] = deque()
        """Those who wait for memory to come back."""

    @property
    def in_flight(self) -> int:
        """Bytes that were handed out and have not come back."""
        return self._in_flight

    def claim(self, nbytes: int, *, wait: bool) -> bool:
        """Count `nbytes` as in flight; idle buffers make room. False when they do not fit, or the pool is closed."""
        with self._changed:
            if self._closed:
                return False
            if not self.line and self._grant(nbytes):
                return True
            if not wait:
                return False
            ticket = object()
            self.line.append(ticket)
        try:
            self._before_wait()
            with self._changed:
                while not self._closed:
                    if self.line[0] is ticket and self._grant(nbytes):
                        return True
                    if not self._changed.wait(_HEALTH_CHECK) and not self._is_served():
                        self._close()
                return False
        finally:
            with self._changed:
                self.line.remove(ticket)
                self._changed.notify_all()

    def release(self, nbytes: int) -> None:
        """What was claimed is gone."""
        with self._changed:
            self._in_flight -= nbytes
            self._changed.notify_all()

    def take(self, kind: Kind, nbytes: int, *, wait: bool) -> Buffer | None:
        """A buffer of `nbytes` in host memory, its contents undefined; None when none is to be had within the budget.

        Raises:
            MemoryError: The system has no memory for it. Nothing is in flight then that was not before.
        """
        key, known = _serves(kind, nbytes), None
        with self._changed:
            if not self.line and (idle := self._idle.get(key)) and not self._closed:
                self._idle_bytes -= nbytes
                self._in_flight += nbytes
                known = idle.pop()
                if key is kind:
                    return known
        if known is None and not self.claim(nbytes, wait=wait):
            return None
        try:
            return Buffer(self._memory(kind, nbytes, known), key)
        except BaseException:
            self.release(nbytes)
            raise

    def give(self, buffers: Sequence[Buffer]) -> None:
        """Return buffers that `take` handed out."""
        with self._changed:
            for buffer in buffers:
                self._in_flight -= buffer.nbytes
                if not self._closed:
                    self._idle_bytes += buffer.nbytes
                    self._idle.setdefault(buffer.key, []).append(buffer)
            self._changed.notify_all()

    def close(self) -> None:
        """Let go of idle buffers and of everyone who waits; nothing is handed out any more."""
        with self._changed:
            self._close()

    def _close(self) -> None:
        self._closed = True
        self._idle.clear()
        self._idle_bytes = 0
        self._changed.notify_all()

    def _memory(self, kind: Kind, nbytes: int, known: Buffer | None) -> Tensor:
        reason = f"no memory for a copy of {nbytes / 1e6:,.1f} MB"
        if known is None and nbytes > self.budget and nbytes > available_memory():
            raise MemoryError(reason)  # the system might promise it, and end the process later
        try:
            return _memory(kind, nbytes, known)
        except (RuntimeError, OSError, MemoryError) as error:  # of torch, of mmap, of numpy
            raise MemoryError(reason) from error

    def _grant(self, nbytes: int) -> bool:
        self._evict(self._in_flight + nbytes - self.budget)
        if self._in_flight and self._in_flight + nbytes > self.budget:
            return False
        self._in_flight += nbytes
        self.peak = max(self.peak, self._in_flight + self._idle_bytes)
        return True

    def _evict(self, limit: int) -> None:
        """Drop idle buffers, the longest unused kinds first, until at most `-limit` bytes of them are left."""
        while self._idle_bytes > 0 and self._idle_bytes + limit > 0:
            key = next(iter(self._idle))
            for buffer in self._idle.pop(key):
                self._idle_bytes -= buffer.nbytes


def _serves(kind: Kind, nbytes: int) -> Kind | int:
    """What an idle buffer fits: tensors of its kind, and a large one all of its size, whatever they are like.

    A budget holds few of the large tensors of a step: they would drive one another out before they came again.
    """
    return nbytes if nbytes >= LARGE and not kind[3] else kind


def _memory(kind: Kind, nbytes: int, known: Buffer | None) -> Tensor:
    """New memory, or that of an idle large buffer, as a tensor of this kind."""
    dtype, size, stride, pinned = kind
    with torch.inference_mode(mode=False):  # the writer could not change a tensor of inference mode
        if nbytes < LARGE or pinned:
            return torch.empty_strided(size, stride, dtype=dtype, device="cpu", pin_memory=pinned)
        memory = torch.from_numpy(aligned_memory(nbytes)) if known is None else known.tensor
        return torch.empty(0, dtype=dtype).set_(memory.untyped_storage(), 0, size, stride)


def kind_of(tensor: Tensor) -> Kind:
    """What a buffer for a copy must be like. It keeps the memory order of the usual layouts: copying is then a move."""
    stride = tensor.stride()
    if not (tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))):
        stride = torch.empty(tensor.shape, device="meta").stride()
    return tensor.dtype, tensor.shape, stride, tensor.device.type == "cuda"
