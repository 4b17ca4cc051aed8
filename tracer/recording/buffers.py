"""Memory for copies on their way to the disk: reused, so that it is warm, and never more than a budget in all.

Copying into pages the process already has costs a quarter of copying into new ones, and the shapes of a run repeat
every step: a buffer that comes back from the writer fits the same module's next output.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..storage.direct import LARGE, aligned_memory

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


class BufferPool:
    """Hands out buffers to copy into, and counts every byte that is in flight. Thread-safe.

    A request larger than the whole budget is granted once nothing else is in flight, so that no run gets stuck.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._idle: dict[Kind | int, list[Buffer]] = {}
        self._idle_bytes = 0
        self._in_flight = 0
        self._closed = False
        self._changed = threading.Condition()

    def claim(self, nbytes: int, *, wait: bool) -> bool:
        """Count `nbytes` as in flight; idle buffers make room. False when they do not fit, or the pool is closed."""
        with self._changed:
            return self._claim(nbytes, wait=wait)

    def release(self, nbytes: int) -> None:
        """What was claimed is gone."""
        with self._changed:
            self._in_flight -= nbytes
            self._changed.notify_all()

    def take(self, kind: Kind, nbytes: int, *, wait: bool) -> Buffer | None:
        """A buffer of `nbytes` in host memory, its contents undefined; None when none is to be had."""
        key = _serves(kind, nbytes)
        with self._changed:
            if self._closed:
                return None
            known = None
            if idle := self._idle.get(key):
                self._idle_bytes -= nbytes
                self._in_flight += nbytes
                known = idle.pop()
                if key is kind:
                    return known
            elif not self._claim(nbytes, wait=wait):
                return None
        return Buffer(_memory(kind, nbytes, known), key)

    def give(self, buffers: Sequence[Buffer]) -> None:
        """Return buffers that `take` handed out."""
        with self._changed:
            for buffer in buffers:
                self._in_flight -= buffer.nbytes
                self._idle_bytes += buffer.nbytes
                self._idle.setdefault(buffer.key, []).append(buffer)
            self._changed.notify_all()

    def close(self) -> None:
        """Let go of idle buffers and of everyone who waits; nothing is handed out any more."""
        with self._changed:
            self._closed = True
            self._idle.clear()
            self._idle_bytes = 0
            self._changed.notify_all()

    def _claim(self, nbytes: int, *, wait: bool) -> bool:
        while not self._closed:
            self._evict(self._in_flight + nbytes - self._budget)
            if not self._in_flight or self._in_flight + nbytes <= self._budget:
                self._in_flight += nbytes
                return True
            if not wait:
                return False
            self._changed.wait()
        return False

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
