"""How far two tensors are apart, and what their statistics alone say of it. numpy, in blocks, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..layout import STATISTICS

__all__ = ["EQUAL", "Distance", "Tolerance", "histogram_distance", "least_distance", "measure"]

Numbers = NDArray[Any]

_BLOCK: Final = 1 << 16
"""Elements in work at a time: four float64 arrays of this size stay in a cache."""
_RTOL: Final = {
    "float64": 1e-7,
    "float32": 1.3e-6,
    "float16": 1e-3,
    "bfloat16": 1.6e-2,
    "float8_e4m3fn": 0.125,
    "float8_e5m2": 0.25,
}
_COUNTS: Final = [STATISTICS.index(name) for name in ("nans", "positive_infs", "negative_infs")]
_MEAN, _STD, _COUNT = (STATISTICS.index(name) for name in ("mean", "std", "count"))


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Elements a and b agree where |a − b| ≤ `absolute` + `relative`·|a|, as in `torch.testing.assert_close`."""

    relative: float
    absolute: float

    @classmethod
    def of(cls, *dtypes: str) -> Tolerance:
        """That of the coarser dtype: torch's own defaults, and for 8-bit floats the distance of two neighbours.

        Args:
            dtypes: Names of torch or numpy, "bfloat16". What is no float agrees only where it is equal.
        """
        relative = max((_RTOL.get(dtype, 0.0) for dtype in dtypes), default=0.0)
        return cls(relative, 0.0 if not relative else 1e-7 if relative == _RTOL["float64"] else 1e-5)


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a tensor B is from a tensor A of the same shape.

    Where both hold NaN, or the same infinity, they are equal. Where only one does, the distance is infinite.
    """

    relative_l2: float
    """‖A − B‖₂ / ‖A‖₂; 0 for equal tensors, infinite where A is 0 and B is not."""
    cosine: float
    """⟨A, B⟩ / (‖A‖₂ ‖B‖₂); 1 for equal tensors, NaN where one of them is 0 or the distance is infinite."""
    max_abs: float
    """Largest |a − b|."""
    where: int
    """Where that is, counted in row-major order: the first such place, of an infinite distance the first of these."""
    over: float
    """Share of the elements that are further apart than the tolerance."""


EQUAL: Final = Distance(0.0, 1.0, 0.0, 0, 0.0)


def measure(blocks: Iterable[tuple[Numbers, Numbers]], tolerance: Tolerance) -> Distance:
    """The distance of two tensors that are given in parts.

    Sums are kept in float64, relative to the largest value met, so that neither large nor small numbers are lost.

    Args:
        blocks: Parts of A and of B in row-major order, each pair of one shape.
        tolerance: What `Distance.over` counts.
    """
    sums = _Sums()
    for a, b in blocks:
        for start in range(0, a.size, _BLOCK):
            sums.add(a.ravel()[start : start + _BLOCK], b.ravel()[start : start + _BLOCK], tolerance)
    return sums.distance()


class _Sums:
    """What is kept between two blocks."""

    def __init__(self) -> None:
        self._a, self._b, self._gap = _Norm(), _Norm(), _Norm()
        self._product = 0.0  # in units of both scales
        self._largest = 0.0
        self._where = self._seen = self._over = 0

    def add(self, a: Numbers, b: Numbers, tolerance: Tolerance) -> None:
        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(wide_a) & np.isfinite(wide_b)
        apart = None
        if not (np.array_equal(a, b) and finite.all()):
            apart = _apart(a, b, wide_a, wide_b)
            limit = tolerance.absolute + tolerance.relative * np.abs(np.where(finite, wide_a, 0.0))
            self._over += int((apart > limit).sum())
            at = int(apart.argmax())
            if apart[at] > self._largest:
                self._largest, self._where = float(apart[at]), self._seen + at
            if not finite.all():
                apart, wide_a, wide_b = (np.where(finite, values, 0.0) for values in (apart, wide_a, wide_b))
        self._seen += a.size
        self._product *= self._a.add(wide_a) * self._b.add(wide_b)
        self._product += float(wide_a @ wide_b)
        if apart is not None:
            self._gap.add(apart)

    def distance(self) -> Distance:
        if self._largest == 0:
            return EQUAL
        over = self._over / self._seen
        if math.isinf(self._largest):
            return Distance(math.inf, math.nan, math.inf, self._where, over)
        norms = self._a.root * self._b.root
        cosine = min(max(self._product / norms, -1.0), 1.0) if norms else math.nan
        return Distance(self._gap.over(self._a), cosine, self._largest, self._where, over)


class _Norm:
    """A sum of squares in units of the square of the largest value met, so that neither large nor small are lost."""

    def __init__(self) -> None:
        self._scale = self._squares = 0.0

    def add(self, values: NDArray[np.float64]) -> float:
        """Add values, which are divided by the scale in place; returns by what the scale has shrunk what was before."""
        top = float(np.abs(values).max(initial=0))
        shrunk = 1.0
        if top > self._scale:
            shrunk = self._scale / top
            self._squares *= shrunk**2
            self._scale = top
        if self._scale:
            values /= self._scale
            self._squares += float(values @ values)
        return shrunk

    @property
    def root(self) -> float:
        """The norm in units of the scale."""
        return math.sqrt(self._squares)

    def over(self, other: _Norm) -> float:
        """One norm relative to another."""
        return self.root / other.root * (self._scale / other._scale) if other._squares else math.inf


def _apart(a: Numbers, b: Numbers, wide_a: Numbers, wide_b: Numbers) -> NDArray[np.float64]:
    """|a − b|, 0 where both are the same and not finite, infinite where one is and the other is not."""
    if a.dtype.kind in "iu" and b.dtype == a.dtype:  # beyond 2⁵³ float64 would call neighbours equal
        larger = a > b
        unsigned = a.dtype.str.replace("i", "u")
        return np.asarray(np.where(larger, a - b, b - a).view(unsigned), np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(wide_a - wide_b)
    same = (wide_a == wide_b) | (np.isnan(wide_a) & np.isnan(wide_b))
    apart[np.isnan(apart)] = np.inf
    apart[same] = 0
    return np.asarray(apart, np.float64)


def least_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the statistics of two tensors say their relative L2 distance is at least.

    √((μ_A − μ_B)² + (σ_A − σ_B)²) / √(μ_A² + σ_A²): the Fréchet distance of two normal distributions of these moments
    (Dowson and Landau 1982), in units of the root mean square of A. No two tensors of one shape with these moments
    are closer, as ‖A − B‖²/N = (μ_A − μ_B)² + Var(A − B) and σ(A − B) ≥ |σ_A − σ_B|. They may be much further apart:
    a tensor and its reverse have 0. As precise as the moments, some nine digits.

    Args:
        a: Rows of the statistics table, shape (..., statistic).
        b: Likewise.

    Returns:
        Shape (...). Infinite where the counts of NaN or infinite values differ; NaN where there are no statistics, or
        the tensors are not of one size.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        moved = np.hypot(a[..., _MEAN] - b[..., _MEAN], a[..., _STD] - b[..., _STD])
        size = np.hypot(a[..., _MEAN], a[..., _STD])
        least = np.where(moved == 0, 0.0, moved / size)
    nothing = np.isnan(a[..., _MEAN]) & np.isnan(b[..., _MEAN])  # of both no value is finite
    least = np.where(nothing, 0.0, least)
    least = np.where((a[..., _COUNTS] != b[..., _COUNTS]).any(axis=-1), np.inf, least)
    comparable = a[..., _COUNT] == b[..., _COUNT]  # NaN, where nothing was recorded, equals nothing
    return np.where(comparable, least, np.nan)


def histogram_distance(a: NDArray[np.integer], b: NDArray[np.integer]) -> NDArray[np.float64]:
    """Total variation of two float-bit histograms: ½ Σ |p − q| over the bins, p and q the shares of the values.

    At least this share of the values lies in another bin, an eighth of a binade wide: 0 for equal histograms, 1 for
    such that share no bin (Gibbs and Su 2002, "On choosing and bounding probability metrics").

    Args:
        a: Counts, shape (..., bin).
        b: Likewise.

    Returns:
        Shape (...), NaN where one of them is empty.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = [counts / counts.sum(axis=-1, keepdims=True, dtype=np.int64) for counts in (a, b)]
    distance: NDArray[np.float64] = np.abs(shares[0] - shares[1]).sum(axis=-1) / 2
    return distance
