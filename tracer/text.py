"""Numbers as text: in few characters, or as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["number", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"


def number(value: float) -> str:
    """A number in at most eight characters."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
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
