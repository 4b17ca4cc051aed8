"""How far correct kernels may be apart: some rows of attention in float64, and the same with every rounding of theirs.

An a-priori bound would be useless where it matters: scores of fp16 that are rounded at 50 may be wrong by 0.02, which
is 2 % of each share, but how much of that is felt depends on the values. So the rounding is done: each intermediate is
perturbed by the unit roundoff of its dtype, up or down at random, and how far the results scatter about the exact one
is what rounding explains (stochastic arithmetic; Vignes, "A stochastic arithmetic for reliable scientific computation",
1993). The perturbed intermediates are all that any of the kernels rounds, so that each of them rounds less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rounding import unit_roundoff

__all__ = ["Head", "scatter"]

_DRAWS = 16
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """What a kernel was given of one head: arrays of any float dtype."""

    query: NDArray[Any]
    """Shape (query, head_dim)."""
    key: NDArray[Any]
    """Shape (key, head_dim)."""
    value: NDArray[Any]
    """Shape (key, value_dim)."""
    scale: float
    mask: NDArray[Any] | None = None
    """Shape (query or 1, key or 1), boolean or additive."""
    causal: bool = False

    def attend(self, rows: NDArray[np.intp], noise: _Noise | None = None) -> Doubles:
        """softmax(Q Kᵀ · scale + mask) V of some rows, shape (row, value_dim)."""
        query, key, value = (np.asarray(part, np.float64) for part in (self.query[rows], self.key, self.value))
        if noise is not None:
            query, key, value = noise.rounded(query), noise.rounded(key), noise.rounded(value)
        scores = query @ key.T * self.scale
        if noise is not None:  # a sum of products is off by what each of them is, and by the size of the sum on its way
            scores += noise.summed(np.sqrt(query**2 @ (key**2).T) * abs(self.scale), query.shape[1])
        scores = self._masked(scores, rows)
        if noise is not None:
            scores = noise.rounded(scores)
        largest = scores.max(axis=1, keepdims=True, initial=-np.inf)
        shares = np.exp(scores - np.where(np.isneginf(largest), 0, largest))
        if noise is not None:
            shares = noise.rounded(shares) + noise.summed(shares, len(key))
        sums = shares.sum(axis=1, keepdims=True)
        result: Doubles = shares @ value / np.where(sums == 0, 1, sums)
        return result if noise is None else noise.rounded(result)

    def largest_product(self, rows: NDArray[np.intp]) -> Doubles:
        """The largest |q · k| of each row, before the scale: beyond the range of a dtype kernels overflow."""
        query, key = (np.asarray(part, np.float64) for part in (self.query[rows], self.key))
        found: Doubles = np.abs(query @ key.T).max(axis=1, initial=0)
        return found

    def _masked(self, scores: Doubles, rows: NDArray[np.intp]) -> Doubles:
        if self.mask is not None:
            own = self.mask[rows] if len(self.mask) > 1 else self.mask
            scores = np.where(own, scores, -np.inf) if own.dtype == bool else scores + own
        if self.causal:
            scores = np.where(np.arange(scores.shape[1]) > rows[:, None], -np.inf, scores)
        return scores


class _Noise:
    """Random rounding, the same each time."""

    def __init__(self, dtype: str, seed: int) -> None:
        self._unit, self._sum = unit_roundoff(dtype), min(unit_roundoff(dtype), unit_roundoff("float32"))
        self._random = np.random.default_rng(seed)

    def rounded(self, exact: Doubles) -> Doubles:
        """To the dtype."""
        finite = np.where(np.isfinite(exact), exact, 0)  # −inf stays what it is
        found: Doubles = exact + finite * self._up_or_down(self._unit, exact.shape)
        return found

    def summed(self, size: Doubles, terms: int) -> Doubles:
        """The error of a sum of so many terms of a size, added up in float32 (or the dtype, where that is finer)."""
        found: Doubles = size * np.sqrt(terms) * self._up_or_down(self._sum, size.shape)
        return found

    def _up_or_down(self, unit: float, shape: tuple[int, ...]) -> Doubles:
        """As far as rounding can go: where two scores are nearly alike it is the extreme that counts."""
        found: Doubles = self._random.choice(np.array([-unit, unit]), shape)
        return found


def scatter(head: Head, rows: NDArray[np.intp], dtype: str) -> tuple[Doubles, Doubles]:
    """Exact attention of some rows, (row, value_dim), and errors that rounding explains, (draw, row, value_dim)."""
    exact = head.attend(rows)
    return exact, np.stack([head.attend(rows, _Noise(dtype, seed)) - exact for seed in range(_DRAWS)])
