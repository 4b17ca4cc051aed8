"""A tensor in one line: shape, dtype, range, moments, a sparkline of its histogram, and a flag for NaN."""

from __future__ import annotations

from dataclasses import dataclass

from ..histogram import Histogram
from ..text import number, sparkline
from .statistics import Statistics

__all__ = ["Summary"]

_SPARK_WIDTH = 12


@dataclass(frozen=True, slots=True)
class Summary:
    """What `Tracer.record` saw. Print it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    statistics: Statistics

    def __str__(self) -> str:
        seen = self.statistics
        counts = Histogram(seen.histogram).linear(_SPARK_WIDTH, seen.min, seen.max, all_within=True)
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
