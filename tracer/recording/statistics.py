"""One pass over a tensor: extrema, moments, counts and the float-bit histogram.

On the CPU the compiled kernel reads the tensor where it lies. On an accelerator, or without numba, torch operations
compute the same numbers; nothing in them makes the host wait for the accelerator.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..errors import said
from ..layout import HISTOGRAM_BINS, MEASURED

__all__ = [
    "MOST_ELEMENTS",
    "Dense",
    "Place",
    "Statistics",
    "can_summarise",
    "dense_kernel",
    "measure",
    "measure_many",
    "measure_on_device",
    "slower_because",
    "summarise",
    "warm_up",
]

_KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""Dtypes the kernel reads, by the number it knows them by."""
_MEASURED = frozenset(
    dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype) and not str(dtype).startswith("torch.q")
)
_is_transformed = getattr(torch._C._functorch, "is_functorch_wrapped_tensor", lambda _: False)
_PLAIN = (Tensor, torch.nn.Parameter)
_SMALL = 1 << 16
"""Up to here, some 50 microseconds, it costs less to keep the interpreter's lock than to ask for it again."""
MOST_ELEMENTS = 2**32 - 1
"""What a bin of the histogram, a uint32, can count."""
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


class Place:
    """Where the statistics of one tensor belong.

    Args:
        row: float64, whose first 11 entries are in the order of `layout.MEASURED`; any others are not of interest here.
        histogram: (4096,) uint32.
    """

    __slots__ = ("histogram", "histogram_address", "row", "row_address")

    def __init__(self, row: NDArray[np.float64], histogram: NDArray[np.uint32]) -> None:
        self.row, self.histogram = row, histogram
        self.row_address, self.histogram_address = row.ctypes.data, histogram.ctypes.data


def can_summarise(tensor: Tensor) -> bool:
    """Whether the tensor has numbers in memory: sparse, nested, quantised and meta tensors do not count.

    Nor do tensors that are made of others, as those of torchao and of tensor parallelism are, nor those that stand for
    many within a transformation of `torch.func`.
    """
    if type(tensor) not in _PLAIN and is_traceable_wrapper_subclass(tensor):
        return False
    if _is_transformed(tensor):
        return False
    return tensor.dtype in _MEASURED and tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_meta


def summarise(tensor: Tensor) -> Statistics:
    """Statistics of a tensor of any dtype, shape and memory layout, of a complex one those of its magnitude."""
    place = Place(np.empty(len(MEASURED)), np.empty(HISTOGRAM_BINS, np.uint32))
    measure(tensor, place)
    low, high, mean, std, norm, extreme = place.row[:6].tolist()
    nans, ups, downs, zeros, count = place.row[6:].astype(int).tolist()
    return Statistics(low, high, mean, std, norm, extreme, nans, ups, downs, zeros, count, place.histogram)


def measure(tensor: Tensor, place: Place) -> None:
    """Put the statistics of a tensor where they belong."""
    dense, kernel = dense_kernel(tensor), _kernel()
    if dense is not None and tensor.is_contiguous():
        dense.measure(tensor.data_ptr(), dense.kind, dense.count, place.row_address, place.histogram_address)
        return
    if dense is not None and kernel is not None:
        sizes, strides = _joined(tensor)
        if len(sizes) == kernel.DIMENSIONS:
            kernel.measure(tensor.data_ptr(), _KINDS[tensor.dtype], sizes, strides, place.row, place.histogram)
            return
    values, bins = measure_on_device(tensor)
    place.row[: len(MEASURED)], place.histogram[:] = values.cpu().numpy(), bins.cpu().numpy()


@dataclass(frozen=True, slots=True)
class Dense:
    """What measures tensors of one dtype and size from their address, where they lie in host memory without holes."""

    measure: Callable[[int, int, int, int, int], None]
    """Called with the address, `kind`, `count`, and the two addresses of a `Place`."""
    kind: int
    count: int


def dense_kernel(tensor: Tensor) -> Dense | None:
    """What measures tensors like this one, if they all lie in host memory without holes."""
    kernel, kind, count = _kernel(), _kind(tensor), tensor.numel()
    if kernel is None or kind is None:
        return None
    return Dense(kernel.measure_small if count <= _SMALL else kernel.measure_dense, kind, count)


def measure_many(tensors: Sequence[tuple[int, int, int, int, int]]) -> None:
    """Measure several tensors in one call, each given by what `Dense.measure` is called with."""
    kernel = _kernel()
    assert kernel is not None
    kernel.measure_many(np.array(tensors, np.int64))


def measure_on_device(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The same numbers by torch operations, left on the tensor's device: float64 (11,) and int32 (4096,).

    No operation here has a size that depends on data, as each of those would make the host wait.
    """
    tensor = magnitude(tensor.detach().resolve_neg())
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


def magnitude(tensor: Tensor) -> Tensor:
    """What is measured of a tensor: of complex numbers how large they are."""
    if not tensor.is_complex():
        return tensor
    return tensor.to(torch.complex64).abs() if tensor.dtype is torch.complex32 else tensor.abs()


def warm_up() -> None:
    """Compile the kernel before the run, so that the first step does not wait for the compiler."""
    _kernel()


def _kind(tensor: Tensor) -> int | None:
    """The kernel's number of the dtype, where the tensor's values stand in host memory as they are."""
    if not tensor.is_cpu or type(tensor) not in _PLAIN or tensor.is_neg() or not tensor.numel():
        return None
    return _KINDS.get(tensor.dtype)


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


def slower_because() -> str:
    """Why the kernel cannot be had, in words; "" where it can."""
    return _loaded()[1]


@functools.cache
def _kernel() -> ModuleType | None:
    return _loaded()[0]


@functools.cache
def _loaded() -> tuple[ModuleType | None, str]:
    """The kernel, or why there is none."""
    try:
        from . import kernel
    except Exception as error:  # noqa: BLE001 — no numba, or one that fits neither numpy nor this: slower, same numbers
        return None, said(error)
    return kernel, ""
