"""A tensor in one line: shape, dtype, range, moments, a sparkline of its histogram, and a flag for NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .histogram import Histogram

if TYPE_CHECKING:
    from .statistics import Statistics

__all__ = ["Summary", "number", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 12


def number(value: float) -> str:
    """A number in at most eight characters."""
    if math.isnan(value):
        return "–"
    if value == int(value) and abs(value) < 100_000:
        return str(int(value))
    return f"{value:.3g}" if 0.001 <= abs(value) < 100_000 else f"{value:.1e}"


def sparkline(values: Sequence[float]) -> str:
    """Bars scaled from 0 (or the smallest, where negative) to the largest value; NaN leaves a gap."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return " " * len(values)
    low, high = min(0.0, *finite), max(finite)
    span = (high - low) or 1.0
    return "".join(
        _BARS[round((value - low) / span * (len(_BARS) - 1))] if math.isfinite(value) else " " for value in values
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """What `Tracer.record` saw. Print it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    statistics: Statistics

    def __str__(self) -> str:
        seen = self.statistics
        counts = Histogram(seen.histogram).linear(_SPARK_WIDTH, seen.min, seen.max)
        size = "×".join(map(str, self.shape)) or "scalar"
        flags = [f"{count} {label}" for label, count in self._faults() if count]
        return (
            f"{self.name} {size} {self.dtype} [{number(seen.min)}, {number(seen.max)}] "
            f"{number(seen.mean)} ± {number(seen.std)} {sparkline(list(counts))}"
            + (f" ✗ {', '.join(flags)}" if flags else "")
        )

    __repr__ = __str__

    def _faults(self) -> tuple[tuple[str, int], ...]:
        seen = self.statistics
        return ("NaN", seen.nans), ("+Inf", seen.positive_infs), ("-Inf", seen.negative_infs)
