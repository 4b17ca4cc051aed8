"""What the statistics of a tensor are, computed by numpy in float64, and how a stored tensor should read."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_xray.tracer.layout import MEASURED

_MOMENTS = [MEASURED.index(name) for name in ("mean", "std", "l2_norm")]
"""Sums, whose last digits depend on the order of adding; all other statistics are exact."""


def widened(tensor: Tensor) -> NDArray[np.generic]:
    """The values as the store keeps them: small floats but float16 as float32, everything else as it is."""
    if tensor.dtype.is_floating_point and tensor.dtype.itemsize < 4 and tensor.dtype != torch.float16:
        tensor = tensor.float()
    return np.asarray(tensor.detach().numpy())


def in_xarray(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """The same where xarray decodes them: float16 as float64, so that sums do not overflow."""
    return values.astype(np.float64) if values.dtype == np.float16 else values


def row_of(tensor: Tensor) -> NDArray[np.float64]:
    """What is measured in a row of the statistics table."""
    values = widened(tensor).astype(np.float64).ravel()
    finite = values[np.isfinite(values)]
    row = {
        "nans": np.isnan(values).sum(),
        "positive_infs": (values == np.inf).sum(),
        "negative_infs": (values == -np.inf).sum(),
        "zeros": (values == 0).sum(),
        "count": values.size,
    }
    if finite.size:
        row |= {"min": finite.min(), "max": finite.max(), "abs_max": np.abs(finite).max()}
        row |= {"mean": finite.mean(), "std": finite.std(), "l2_norm": np.sqrt(np.square(finite).sum())}
    return np.array([row.get(name, math.nan) for name in MEASURED], np.float64)


def assert_rows(seen: NDArray[np.float64], expected: NDArray[np.float64], what: object = "") -> None:
    """Rows of statistics, shape (..., statistic): counts and extrema exact, moments to nine digits of the largest.

    What else the rows seen have, when they were made, is not compared.
    """
    seen = seen[..., : len(MEASURED)]
    right = (seen == expected) | (np.isnan(seen) & np.isnan(expected))
    largest = np.nan_to_num(expected[..., MEASURED.index("abs_max"), None])
    close = np.abs(seen - expected) <= 1e-9 * np.abs(expected) + 1e-12 * largest
    right[..., _MOMENTS] |= close[..., _MOMENTS]
    assert right.all(), f"{what}: {seen[~right]} instead of {expected[~right]}, in columns {np.argwhere(~right)[:, -1]}"


def assert_same(seen: NDArray[np.generic], expected: NDArray[np.generic], what: object = "") -> None:
    """Equal in type, shape and value, NaN included."""
    assert seen.dtype == expected.dtype, what
    assert seen.shape == expected.shape, what
    right = (seen == expected) | ((seen != seen) & (expected != expected))
    assert right.all(), f"{what}: {seen[~right]} instead of {expected[~right]}"
