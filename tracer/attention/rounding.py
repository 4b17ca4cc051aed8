"""How exactly numbers can be computed: the unit roundoff of a dtype, half the distance from 1 to the next number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["product_error", "unit_roundoff"]

_UNIT: Final[Mapping[str, float]] = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "tfloat32": 2.0**-11,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}
_ACCUMULATOR: Final = _UNIT["float32"]
"""Kernels add up in float32 whatever they multiply."""


def unit_roundoff(dtype: str) -> float:
    """Of a dtype by its name; of one that is not known that of float32."""
    return _UNIT.get(dtype, _ACCUMULATOR)


def product_error(dtype: str, terms: int) -> float:
    """Most that two correct computations of shares · values differ, relative to the norm of the result.

    A sum of n products has the error γₙ Σ|aⱼvⱼ| with γₙ ≈ n·u (Higham, "Accuracy and Stability of Numerical
    Algorithms", 2nd edition, equation 3.5), u being that of the accumulator; the result is rounded to its dtype once
    by each. Both are doubled, as Σ|aⱼvⱼ| is larger than the sum where values of both signs meet.

    Args:
        dtype: The coarsest of what took part.
        terms: How many were added up: the keys.
    """
    return 4 * unit_roundoff(dtype) + 4 * terms * _ACCUMULATOR
