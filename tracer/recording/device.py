"""From an accelerator to the host without waiting: copies on a stream of their own, results fetched once a step."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ..layout import MEASURED
from .statistics import MOST_ELEMENTS, Place, measure_on_device

__all__ = ["SMALL", "Results", "copy_to_host", "own_copy"]

Wait = Callable[[], None]

SMALL = 1 << 19
"""Bytes up to which it takes longer to get the interpreter's lock back than to copy without giving it away."""


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def copy_to_host(tensor: Tensor, buffer: Tensor) -> Wait | None:
    """Copy a tensor into host memory.

    On CUDA the tensor is duplicated where it is, which the run's own stream does in passing, and crosses to the host
    on a side stream; the run may overwrite the tensor at once.

    Returns:
        A function that waits until the buffer is filled, or None when it already is.
    """
    plain = tensor.is_contiguous() and buffer.is_contiguous() and not (tensor.is_neg() or tensor.is_conj())
    if tensor.is_cpu and tensor.nbytes <= SMALL and plain:
        ctypes.memmove(buffer.data_ptr(), tensor.data_ptr(), tensor.nbytes)  # keeps the interpreter's lock
        return None
    if tensor.requires_grad:
        tensor = tensor.detach()
    if not tensor.is_cuda:
        buffer.copy_(tensor)
        return None
    duplicate = tensor.clone()
    side = _side_stream(tensor.device)
    side.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(side):
        buffer.copy_(duplicate, non_blocking=True)
    duplicate.record_stream(side)
    event: torch.cuda.Event = side.record_event()
    return event.synchronize


def own_copy(tensor: Tensor) -> Tensor | None:
    """A copy where the tensor is, to compare with later; None where it cannot be had, as of 4 TB of zeros."""
    if tensor.numel() > MOST_ELEMENTS:
        return None
    try:
        return tensor.detach().clone()
    except (RuntimeError, MemoryError):
        return None


class Results:
    """Statistics that are still on the accelerators."""

    def __init__(self) -> None:
        self._pending: dict[torch.device, list[tuple[Tensor, Tensor, Place]]] = {}

    def measure(self, tensor: Tensor, place: Place) -> None:
        """Start measuring; the place is filled by what `fetch` returns."""
        values, bins = measure_on_device(tensor)
        self._pending.setdefault(values.device, []).append((values, bins, place))

    def fetch(self) -> Wait:
        """Bring everything measured so far to the host; the returned function waits for it and fills the rows in."""
        batches = []
        for pending in self._pending.values():
            values, bins, places = zip(*pending, strict=True)
            hosts = [_host_like(torch.stack(parts)) for parts in (values, bins)]
            batches.append((hosts, places))
        self._pending.clear()

        def fill() -> None:
            for ((values, wait_values), (bins, wait_bins)), places in batches:
                for wait in (wait_values, wait_bins):
                    if wait is not None:
                        wait()
                for place, row, histogram in zip(places, values.numpy(), bins.numpy(), strict=True):
                    place.row[: len(MEASURED)], place.histogram[:] = row, histogram

        return fill


def _host_like(tensor: Tensor) -> tuple[Tensor, Wait | None]:
    with torch.inference_mode(mode=False):
        pinned = tensor.device.type == "cuda"
        buffer = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=pinned)
    return buffer, copy_to_host(tensor, buffer)
