"""Arrays of other libraries as tensors: what a port of a model computes, which no module of torch ever sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

__all__ = ["as_tensor"]


def as_tensor(value: object) -> Tensor | None:
    """A tensor of the same numbers, in the same memory where that can be.

    Args:
        value: A tensor, an array of numpy, or anything that can be exchanged by DLPack or as an array of numpy, such
            as those of jax, mlx, cupy, tensorflow and onnxruntime.

    Returns:
        None where it is none of these, or holds what torch has no numbers for.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return _from_numpy(np.asarray(value))
    if hasattr(value, "__dlpack__"):
        try:
            return from_dlpack(value)
        except Exception:  # noqa: BLE001, S110 — a device or dtype that torch does not know; numpy may
            pass
    if hasattr(value, "__array__") and not isinstance(value, type):
        try:
            return _from_numpy(np.asarray(value))
        except Exception:  # noqa: BLE001 — whatever the other library raises: it gives no array
            return None
    return None


def _from_numpy(array: NDArray[Any]) -> Tensor | None:
    """Copied where torch could not lay a tensor over its memory, or would warn of doing so."""
    native = array.dtype.newbyteorder("=")
    if not array.flags.writeable or array.dtype != native or any(stride < 0 for stride in array.strides):
        array = array.astype(native, order="C", copy=True)
    try:
        return torch.from_numpy(array)
    except TypeError:  # text, objects, and the small floats that packages add to numpy under torch's names
        known = getattr(torch, array.dtype.name, None)
        if not isinstance(known, torch.dtype) or known.itemsize != array.dtype.itemsize:
            return None
        return torch.from_numpy(np.ascontiguousarray(array).view(f"u{known.itemsize}")).view(known)
