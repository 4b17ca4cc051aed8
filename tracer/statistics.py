"""One pass over a tensor: extrema, moments, counts and the float-bit histogram.

On the CPU a compiled kernel reads the tensor where it lies. On an accelerator, or without numba, torch operations
compute the same numbers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .layout import HISTOGRAM_BINS, STATISTICS

__all__ = ["Statistics", "can_summarise", "summarise", "warm_up"]


_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


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

    def row(self) -> tuple[float, ...]:
        """The numbers in the order of the statistics table."""
        return tuple(float(getattr(self, name)) for name in STATISTICS)


def can_summarise(tensor: Tensor) -> bool:
    """Whether the tensor has numbers in memory: sparse, nested, quantised, complex and meta tensors do not count."""
    return (
        tensor.layout == torch.strided
        and not tensor.is_nested
        and not tensor.is_quantized
        and not tensor.is_complex()
        and tensor.device.type != "meta"
    )


def summarise(tensor: Tensor) -> Statistics:
    """Statistics of a tensor of any real dtype, shape and memory layout; the tensor is only read."""
    tensor = tensor.detach()
    if tensor.numel() == 0:
        return _finish(np.zeros(6), np.zeros(4, np.int64), 0, np.zeros(HISTOGRAM_BINS, np.uint32))
    flat = _flat(tensor)
    kernel = _kernel()
    if kernel is None or flat.device.type != "cpu" or flat.dtype not in _FLOATS:
        return _summarise_with_torch(flat)
    return _summarise_with_numba(kernel, flat)


def warm_up() -> None:
    """Compile the kernels before the run, so that the first step does not wait for the compiler."""
    summarise(torch.ones(1))


def _flat(tensor: Tensor) -> Tensor:
    """The elements in memory order when they fill their memory, else in a copy; statistics know no order."""
    if not tensor.is_contiguous():
        strides = sorted((stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1)
        expected = 1
        for stride, size in strides:
            if stride != expected:
                return tensor.reshape(-1)
            expected *= size
        return tensor.as_strided((tensor.numel(),), (1,))
    return tensor.view(-1)


def _finish(sums: NDArray[np.float64], counts: NDArray[np.int64], size: int, histogram: NDArray[Any]) -> Statistics:
    shift, total, square, norm, low, high = sums.tolist()
    finite = size - int(counts[:3].sum())
    if finite:
        mean = shift + total / finite
        std = math.sqrt(max(square / finite - (total / finite) ** 2, 0.0))
        l2, extreme = math.sqrt(norm), max(abs(low), abs(high))
    else:
        low = high = mean = std = l2 = extreme = math.nan
    nans, ups, downs, zeros = counts.tolist()
    bins = histogram.astype(np.uint32, copy=False)
    return Statistics(low, high, mean, std, l2, extreme, nans, ups, downs, zeros, size, bins)


def _summarise_with_numba(kernel: Callable[..., None], flat: Tensor) -> Statistics:
    sums, counts = np.empty(6), np.zeros(4, np.int64)
    histogram = np.zeros(HISTOGRAM_BINS, np.uint32)
    values = flat.float().numpy()
    kernel(values, values.view(np.uint32), sums, counts, histogram)
    return _finish(sums, counts, flat.numel(), histogram)


def _summarise_with_torch(flat: Tensor) -> Statistics:
    if flat.device.type == "mps":  # no float64 there
        flat = flat.cpu()
    wide = flat.double()
    finite_mask = wide.isfinite()
    finite = wide[finite_mask]
    sums = torch.zeros(6, dtype=torch.float64, device=flat.device)
    if finite.numel():
        shift = finite[0]
        centred = finite - shift
        parts = [shift, centred.sum(), centred.square().sum(), finite.square().sum(), finite.min(), finite.max()]
        sums = torch.stack(parts)
    counts = torch.stack([wide.isnan().sum(), (wide == math.inf).sum(), (wide == -math.inf).sum(), (wide == 0).sum()])
    bins = (flat.float().view(torch.int32) >> 20) & (HISTOGRAM_BINS - 1)
    histogram = torch.bincount(bins, minlength=HISTOGRAM_BINS).cpu().numpy()
    return _finish(sums.cpu().numpy(), counts.cpu().numpy(), flat.numel(), histogram)


@functools.cache
def _kernel() -> Callable[..., None] | None:
    try:
        import numba
    except ImportError:  # slower, same numbers
        return None
    compile_with = functools.partial(numba.njit, nogil=True, error_model="numpy")
    try:
        compiled: Callable[..., None] = compile_with(cache=True)(_one_pass)
    except RuntimeError:  # no folder to keep the compiled kernel in
        compiled = compile_with()(_one_pass)
    return compiled


def _one_pass(
    values: NDArray[np.float32],
    bits: NDArray[np.uint32],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    histogram: NDArray[np.uint32],
) -> None:
    """Fill `sums`, `counts` and `histogram`; moments are about the first finite value, which keeps them accurate."""
    shift, total, square, norm = 0.0, 0.0, 0.0, 0.0
    low, high = np.inf, -np.inf
    nans, ups, downs, zeros = 0, 0, 0, 0
    first = True
    for i in range(values.size):
        histogram[bits[i] >> 20] += 1
        value = np.float64(values[i])
        if np.isfinite(value):
            if first:
                shift, first = value, False
            if value == 0.0:
                zeros += 1
            low, high = min(low, value), max(high, value)
            centred = value - shift
            total += centred
            square += centred * centred
            norm += value * value
        elif np.isnan(value):
            nans += 1
        elif value > 0:
            ups += 1
        else:
            downs += 1
    sums[:] = (shift, total, square, norm, low, high)
    counts[:] = (nans, ups, downs, zeros)
