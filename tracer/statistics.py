"""One pass over a tensor: extrema, moments, counts and the float-bit histogram.

On the CPU the compiled kernel reads the tensor where it lies. On an accelerator, or without numba, torch operations
compute the same numbers; nothing in them makes the host wait for the accelerator.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from .layout import HISTOGRAM_BINS, STATISTICS

__all__ = ["Statistics", "can_summarise", "measure", "measure_on_device", "summarise", "warm_up"]

_KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""Dtypes the kernel reads, by the number it knows them by."""
_REAL = frozenset(
    dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype) and not dtype.is_complex and not str(dtype).startswith("torch.q")
)
_PLAIN = (Tensor, torch.nn.Parameter)
_PIECE = 1 << 22
"""Elements that torch operations look at in one go; bounds the memory they take in float64."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is known of one tensor. Extrema and moments are over the finite values and NaN where there are none.

    `mean`, `std` (population) and `l2_norm` are accumulated in float64.
    """

    min: float
    max: float
    mean: float
    std: float
    l2_norm: float
    abs_max: float
    nans: int
    positive_infs: int
    negative_infs: int
    zeros: int
    count: int
    histogram: NDArray[np.uint32]
    """Shape (4096,): counts by the top 12 bits of the value as float32."""


def can_summarise(tensor: Tensor) -> bool:
    """Whether the tensor has numbers in memory: sparse, nested, quantised, complex and meta tensors do not count.

    Nor do tensors that are made of others, as those of torchao and of tensor parallelism are.
    """
    if type(tensor) not in _PLAIN and is_traceable_wrapper_subclass(tensor):
        return False
    return tensor.dtype in _REAL and tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_meta


def summarise(tensor: Tensor) -> Statistics:
    """Statistics of a tensor of any real dtype, shape and memory layout; the tensor is only read."""
    row, histogram = np.empty(len(STATISTICS)), np.empty(HISTOGRAM_BINS, np.uint32)
    measure(tensor, row, histogram)
    low, high, mean, std, norm, extreme = row[:6].tolist()
    nans, ups, downs, zeros, count = row[6:].astype(int).tolist()
    return Statistics(low, high, mean, std, norm, extreme, nans, ups, downs, zeros, count, histogram)


def measure(tensor: Tensor, row: NDArray[np.float64], histogram: NDArray[np.uint32]) -> None:
    """Fill a row of the statistics table, (11,) in the order of `STATISTICS`, and its histogram, (4096,)."""
    kernel, kind = _kernel(), _KINDS.get(tensor.dtype)
    readable = kind is not None and tensor.device.type == "cpu" and type(tensor) in _PLAIN
    if kernel is not None and readable and (count := tensor.numel()):
        dense = tensor.is_contiguous()
        sizes, strides = ((1, 1, 1, count), (0, 0, 0, 1)) if dense else _joined(tensor)
        if dense or (len(sizes) == kernel.DIMENSIONS and not tensor.is_neg()):
            kernel.measure(tensor.data_ptr(), kind, sizes, strides, row, histogram)
            return
    values, bins = measure_on_device(tensor)
    row[:], histogram[:] = values.cpu().numpy(), bins.cpu().numpy()


def measure_on_device(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The same numbers by torch operations, left on the tensor's device: float64 (11,) and int32 (4096,).

    No operation here has a size that depends on data, as each of those would make the host wait.
    """
    tensor = tensor.detach()
    if tensor.device.type == "mps":  # no float64 there
        tensor = tensor.cpu()
    pieces = torch.split(tensor.reshape(-1), _PIECE)
    zero = torch.zeros((), dtype=torch.float64, device=tensor.device)
    bins = torch.zeros(HISTOGRAM_BINS, dtype=torch.int32, device=tensor.device)
    counts, total, low, high = zero.repeat(5), zero.clone(), zero + torch.inf, zero - torch.inf
    for piece in pieces:
        wide = piece.double()
        finite = wide.isfinite()
        faults = [wide.isnan(), wide == torch.inf, wide == -torch.inf, wide == 0, finite]
        counts += torch.stack([fault.sum() for fault in faults])
        total += wide.where(finite, 0).sum()
        if piece.numel():
            low = torch.minimum(low, wide.where(finite, torch.inf).amin())
            high = torch.maximum(high, wide.where(finite, -torch.inf).amax())
        places = (piece.float().view(torch.int32) >> 20) & (HISTOGRAM_BINS - 1)
        bins.scatter_add_(0, places.long(), torch.ones_like(places))
    some, mean = counts[4] > 0, total / counts[4]
    squares = zero.clone()
    for piece in pieces:
        wide = piece.double()
        squares += (wide - mean).where(wide.isfinite(), 0).square().sum()
    norm = (squares + counts[4] * mean.square()).sqrt()
    moments = [low, high, mean, (squares / counts[4]).sqrt(), norm, torch.maximum(low.abs(), high.abs())]
    known = torch.stack(moments).where(some, torch.nan)
    return torch.cat([known, counts[:4], (zero + tensor.numel())[None]]), bins


def warm_up() -> None:
    """Compile the kernel before the run, so that the first step does not wait for the compiler."""
    _kernel()


def _joined(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and strides with neighbouring dimensions joined and filled up to four, the densest last.

    Statistics know no order, so dimensions may trade places. What needs more than four comes back longer.
    """
    joined: list[list[int]] = []
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if joined and stride == joined[-1][0] * joined[-1][1]:
            joined[-1][1] *= size
        elif size > 1:
            joined.append([stride, size])
    joined += [[0, 1]] * (4 - len(joined))
    return tuple(size for _, size in reversed(joined)), tuple(stride for stride, _ in reversed(joined))


@functools.cache
def _kernel() -> ModuleType | None:
    try:
        from . import kernel
    except ImportError:  # no numba: slower, same numbers
        return None
    return kernel
