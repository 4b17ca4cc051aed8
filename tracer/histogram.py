"""What a float-bit histogram tells without the tensor: percentiles, headroom to other dtypes, any linear histogram.

A value is binned by the top 12 bits of its float32 pattern: sign, 8 bits of exponent, 3 bits of mantissa. A bin thus
spans an eighth of a binade, and histograms of steps, batches and ranks simply add. Needs numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .layout import HISTOGRAM_BINS

__all__ = ["DTYPE_LIMITS", "Histogram"]

DTYPE_LIMITS: Final[dict[str, tuple[float, float]]] = {
    "float32": (3.4028235e38, 1.1754944e-38),
    "bfloat16": (3.3895314e38, 1.1754944e-38),
    "float16": (65504.0, 6.1035156e-05),
    "float8_e5m2": (57344.0, 6.1035156e-05),
    "float8_e4m3fn": (448.0, 0.015625),
}
"""Largest finite and smallest normal magnitude of each dtype."""

_INFINITE_BIN = 0x7F8  # exponent 255: infinities and NaN


def _edges() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Lower and upper edge of every finite bin, and the bins in ascending order of value."""
    magnitude = np.arange(_INFINITE_BIN + 1, dtype=np.uint32) << 20
    bounds = magnitude.view(np.float32).astype(np.float64)
    bounds[-1] = 2.0**128
    bins = np.arange(_INFINITE_BIN)
    lower = np.concatenate([bounds[:-1], -bounds[1:]])
    upper = np.concatenate([bounds[1:], -bounds[:-1]])
    order = np.concatenate([bins[::-1] + HISTOGRAM_BINS // 2, bins])
    return lower, upper, order


_LOWER, _UPPER, _ORDER = _edges()


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of one tensor's values by their float bits."""

    counts: NDArray[np.integer]
    """Shape (4096,)."""

    def finite(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Counts, lower and upper edges of the occupied finite bins in ascending order of value."""
        counts = self.counts[_ORDER].astype(np.int64)
        occupied = np.flatnonzero(counts)
        place = np.where(_ORDER >= HISTOGRAM_BINS // 2, _ORDER - HISTOGRAM_BINS // 2 + _INFINITE_BIN, _ORDER)[occupied]
        return counts[occupied], _LOWER[place], _UPPER[place]

    @property
    def not_finite(self) -> int:
        """Number of NaN and infinite values."""
        half = HISTOGRAM_BINS // 2
        return int(self.counts[_INFINITE_BIN:half].sum() + self.counts[half + _INFINITE_BIN :].sum())

    def percentile(self, q: float) -> float:
        """The q-th percentile (0..100) of the finite values, right to within an eighth of a binade; NaN when empty."""
        counts, lower, upper = self.finite()
        if not counts.size:
            return float("nan")
        total = np.cumsum(counts)
        rank = q / 100 * (total[-1] - 1)
        at = int(np.searchsorted(total, rank, side="right"))
        at = min(at, len(counts) - 1)
        before = total[at] - counts[at]
        share = (rank - before + 0.5) / counts[at]
        return float(lower[at] + (upper[at] - lower[at]) * min(max(share, 0.0), 1.0))

    def overflow_share(self, dtype: str) -> float:
        """Share of the finite values whose magnitude is beyond the largest number of `dtype`."""
        return self._share(dtype, overflow=True)

    def underflow_share(self, dtype: str) -> float:
        """Share of the finite values that are not zero but below the smallest normal number of `dtype`."""
        return self._share(dtype, overflow=False)

    def headroom(self, dtype: str) -> float:
        """Binades between the largest finite magnitude and the limit of `dtype`; negative when it overflows."""
        counts, lower, upper = self.finite()
        if not counts.size:
            return float("inf")
        largest = max(abs(lower[0]), abs(upper[-1]))
        return float(np.log2(DTYPE_LIMITS[dtype][0] / largest)) if largest > 0 else float("inf")

    def linear(self, bins: int, low: float, high: float, *, all_within: bool = False) -> NDArray[np.float64]:
        """Counts in `bins` equal intervals from `low` to `high`, each float bin spread evenly over its width.

        Args:
            bins: How many.
            low: Where the first begins.
            high: Where the last ends.
            all_within: No value is outside, though the float bins of the extrema reach beyond them.
        """
        counts, lower, upper = self.finite()
        if not counts.size or not high > low:
            return np.zeros(bins)
        if all_within:  # the extrema may be the very edges of their bins: keep some width within the range
            least = (high - low) / bins / 1024
            lower, upper = lower.clip(low, high - least), upper.clip(low + least, high)
        edges = np.linspace(low, high, bins + 1)
        # the cumulative count is piecewise linear between the float bins' edges
        knots = np.column_stack([lower, upper]).ravel()
        total = np.cumsum(counts)
        heights = np.column_stack([total - counts, total]).ravel()
        return np.diff(np.interp(edges, knots, heights)).clip(min=0)

    def _share(self, dtype: str, *, overflow: bool) -> float:
        counts, lower, upper = self.finite()
        largest, smallest = DTYPE_LIMITS[dtype]
        inner = np.minimum(np.abs(lower), np.abs(upper))
        outer = np.maximum(np.abs(lower), np.abs(upper))
        chosen = inner >= largest if overflow else (outer <= smallest) & (inner > 0)
        return float(counts[chosen].sum() / counts.sum()) if counts.size else 0.0
